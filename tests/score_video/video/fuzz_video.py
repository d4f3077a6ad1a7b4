"""Random video files read by time, against a plain decode from beginning to end.

    python tests/score_video/video/fuzz_video.py READS [SEED]

Codec, container, group of pictures, B-frames, rate, offset, edit list, uneven times, jumps and joints are drawn at
random; each file is read at 8, 32 and 64 frames and at one rate. What is wanted is worked out from what was written and
from what a plain decode shows, not from anything that the reader says.
"""

from __future__ import annotations

import os
import random
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av

from score_video.video import SampledVideo, read_frames

sys.path.append(str(Path(__file__).parents[2]))  # it also runs by itself

from helpers.numbered import MOST, cut_by_edit_list, number_of, shown_by_a_player, write_numbered

os.environ.setdefault("SVT_LOG", "1")  # errors alone

# container -> codecs, and whether a file may begin anywhere in time, have uneven times, and be joined by its bytes
CONTAINERS = {
    "mp4": (("libx264", "libx265", "libsvtav1", "libvpx-vp9", "mpeg4"), True, True, False),
    "mov": (("libx264", "mjpeg"), True, True, False),
    "mkv": (("libx264", "libx265", "libvpx-vp9", "libsvtav1", "mpeg2video", "ffv1"), True, True, False),
    "webm": (("libvpx", "libvpx-vp9", "libsvtav1"), True, True, False),
    "ts": (("libx264", "mpeg2video"), True, True, True),
    "mpg": (("mpeg2video", "mpeg1video"), False, False, True),
    "avi": (("libx264", "mpeg4", "mjpeg"), False, False, False),
    "flv": (("libx264", "flv"), True, True, False),
    "wmv": (("wmv2",), True, True, False),
    "h264": (("libx264",), False, False, True),
    "hevc": (("libx265",), False, False, False),
    "m2v": (("mpeg2video",), False, False, False),
}
INTRA = frozenset({"mjpeg", "ffv1"})
WITH_B_FRAMES = frozenset({"libx264", "mpeg2video", "mpeg4"})
JUMP = 40  # seconds
TICK = Fraction(2, 1000)  # seconds; Matroska, FLV and ASF count milliseconds
RATES = {"mpeg2video": (24, 25, 30), "mpeg1video": (24, 25, 30), "": (5, 10, 24, 25, 30)}


@dataclass
class Clip:
    """A file, and what it shows.

    Attributes:
        shown: number of each frame, in order.
        times: seconds, when each comes on; from 0, without the jumps.
        end: seconds, when the last goes off.
        story: how it was made.
        unknown: seconds by which ``end`` may be taken to be another.
    """

    path: Path
    shown: list[int]
    times: list[Fraction]
    end: Fraction
    story: dict[str, object]
    unknown: Fraction

    def on_display(self, moment: Fraction) -> set[int]:
        """Numbers of the frames that a moment may show: two where it falls between them by a container's ticks.

        Where frames are of unequal length, many containers do not say of which the last one is, nor then where the
        moments lie that share out the whole.
        """
        off = TICK + moment / self.end * self.unknown
        places = [
            max((i for i, time in enumerate(self.times) if time <= moment + shift), default=0) for shift in (-off, off)
        ]
        return set(self.shown[places[0] : places[1] + 1])


def make(choose: random.Random, folder: Path) -> Clip:
    suffix = choose.choice(sorted(CONTAINERS))
    codecs, anywhere, uneven, joinable = CONTAINERS[suffix]
    codec = choose.choice(codecs)
    rate = choose.choice(RATES.get(codec, RATES[""]))
    count = choose.choice([1, 2, 7, 31, 33, 64, 100, 180, 250])
    gop = 1 if codec in INTRA else choose.choice([1, 5, 12, 50, 250])
    b_frames = choose.choice([0, 1, 2, 3]) if codec in WITH_B_FRAMES and gop > 1 else 0
    offset = choose.choice([0, 0, 1, 7 * rate, 400 * rate]) if anywhere else 0
    if codec in RATES and suffix == "ts":
        b_frames = min(b_frames, 2)
    steps = [1] * (count - 1)
    if uneven and codec not in RATES and choose.random() < 0.3:
        steps = [choose.choice([1, 1, 1, 2, 3, 3 * rate]) for _ in steps]
    times = [offset + sum(steps[:i]) for i in range(count)]
    options = {"g": str(gop), "bf": str(b_frames)} if codec not in INTRA else {}
    options |= {
        "libx264": {"preset": "ultrafast" if not b_frames else "veryfast", "sc_threshold": "0"},
        "libx265": {
            "preset": "ultrafast",
            "x265-params": f"log-level=none:keyint={gop}:bframes={choose.choice([0, 3])}",
        },
        "libsvtav1": {"preset": "12"},
        "libvpx": {"deadline": "realtime", "cpu-used": "8", "auto-alt-ref": "1", "lag-in-frames": "16"},
        "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": choose.choice(["0", "16"])},
    }.get(codec, {})
    if codec == "libx264" and gop > 1 and choose.random() < 0.2:
        options["x264-params"] = choose.choice(["open-gop=1", "intra-refresh=1"])
    refreshed = "intra-refresh=1" in options.values()
    story: dict[str, object] = {"suffix": suffix, "codec": codec, "rate": rate, "count": count, "offset": offset}
    story |= {"options": options, "uneven": len(set(steps)) > 1}
    jump = 0
    if suffix in ("ts", "mkv", "mp4", "flv") and len(set(steps)) < 2 and count > 7 and choose.random() < 0.15:
        jump = choose.randrange(3, count - 3)
        times = [time + (JUMP * rate if i >= jump else 0) for i, time in enumerate(times)]
        story["jump"] = jump
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = folder / f"clip.{suffix}"
    numbers = range(count)
    write_numbered(path, numbers, times, rate=rate, codec=codec, pix_fmt=pix_fmt, options=options)
    length = [Fraction(times[i + 1] - times[i], rate) for i in range(count - 1)] + [Fraction(1, rate)]
    if jump:
        length[jump - 1] = Fraction(1, rate)
    if joinable and count < MOST // 2 and not jump and choose.random() < 0.3:
        story["joined"] = True
        other = write_numbered(
            folder / f"more.{suffix}",
            range(count, 2 * count),
            times,
            rate=rate,
            codec=codec,
            pix_fmt=pix_fmt,
            options=options,
        )
        path.write_bytes(path.read_bytes() + other.read_bytes())
        length += length
    # not after an intra refresh, of which a player that begins at the cut misses the first frames
    elif suffix in ("mp4", "mov") and count > 6 and not jump and not refreshed and choose.random() < 0.4:
        front, back = choose.randrange(count // 2), choose.randrange(1, count // 3)
        begin, end = (Fraction(times[i], rate) - Fraction(offset, rate) for i in (front, count - back))
        story["edit"] = (front, back)
        if offset == 0:  # else the muxer writes a list of two edits
            cut_by_edit_list(path, begin, end - begin)
            length = length[front : count - back]
    shown = shown_by_a_player(path)
    starts = [sum(length[:i], Fraction(0)) for i in range(len(shown))]
    unknown = Fraction(2, rate) if len(set(steps)) > 1 else Fraction(0)
    return Clip(path, shown, starts, sum(length, Fraction(0)), story, unknown)


def readings(clip: Clip, choose: random.Random) -> Iterator[tuple[dict[str, float], SampledVideo, list[set[int]]]]:
    """(how it was read, what came, what each moment may show) for each way of reading."""
    for number in (8, 32, 64):
        moments = [clip.end * Fraction(2 * i + 1, 2 * number) for i in range(number)]
        wanted = [{n} for n in clip.shown] if len(clip.shown) <= number else list(map(clip.on_display, moments))
        yield {"num_frames": number}, read_frames(clip.path, same_size, num_frames=number), wanted
    fps = choose.choice([0.5, 1.0, 2.0, 4.0])
    moments = [Fraction(i) / Fraction(fps) for i in range(max(1, int(-(-clip.end * Fraction(fps) // 1))))]
    yield {"fps": fps}, read_frames(clip.path, same_size, fps=fps), list(map(clip.on_display, moments))


def same_size(height: int, width: int) -> tuple[int, int]:
    return height, width


def check(clip: Clip, how: dict[str, float], video: SampledVideo, wanted: list[set[int]]) -> None:
    """Raises AssertionError where the frames that came are not those that the moments may show, each once."""
    got = [number_of(frame) for frame in video.frames]
    told = f"{clip.story} read with {how}: got {got}, wanted {wanted}, shown {clip.shown}"
    assert len(set(got)) == len(got), told
    seen = -1
    for moment, may_show in enumerate(wanted):
        # the frame of the moment before is still on, or the next one that came
        if seen + 1 < len(got) and got[seen + 1] in may_show:
            seen += 1
        else:
            last = moment == len(wanted) - 1 and "fps" in how  # one more where the end is a tick later
            assert seen >= 0 and (got[seen] in may_show or last), told
    assert seen + 1 >= len(got) - ("fps" in how), told


def main() -> None:
    reads, seed = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0
    done = number = 0
    failed: list[str] = []
    while done < reads:
        choose = random.Random(f"{seed}/{number}")
        with tempfile.TemporaryDirectory() as folder:
            try:
                clip = make(choose, Path(folder))
            except av.error.FFmpegError:  # a combination that libav itself does not write or read
                clip = None
            if clip is None or sorted(set(clip.shown)) != sorted(clip.shown):  # or an encoder blurred the stripes
                number += 1
                continue
            try:
                for how, video, wanted in readings(clip, choose):
                    done += 1
                    check(clip, how, video, wanted)
            except Exception as error:  # any: the next file may show another fault
                failed.append(f"{seed}/{number}: {type(error).__name__}: {error} ({clip.story})")
                print(failed[-1], file=sys.stderr, flush=True)
        number += 1
    print(f"{done} reads of {number} files, {len(failed)} files read wrong")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
