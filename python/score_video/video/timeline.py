"""What a video shows and when, read from all of its packets without decoding any.

A header cannot be trusted with this, nor can a packet's time alone: packets may be there that are never shown (edit
lists), times may be missing or made up (program streams, AVI), begin anywhere, begin anew in the middle (joined
recordings) or jump. So every packet is looked at once, and what comes of it is one list: the frames in the order in
which they are shown, each with its time from 0 on. Decoding then checks it (:mod:`score_video.video.decoding`).
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.stream import VideoStream

from score_video.video.container import VideoError, read_packets, time_base

MAX_REORDERED = 32  # frames by which the order of storing may differ from that of showing; codecs allow 16
MAX_PACKETS = 2**24  # of video; three days at 60 a second
LONGEST_PAUSE = 10.0  # seconds between two frames that are always believed
RARE = 100  # a pause that is so many times the usual interval may be a jump
SOON_COUNTED = 2000  # packets that are decoded all, rather than that a frame without a time of its own is missed
PLAIN_RATE = Fraction(25)  # frames a second where a file says nothing

_NO_TIME = -(2**63)
_LATEST = 2**61  # ticks; leaves room for arithmetic in int64
_TIMES_ARE_GUESSED = frozenset({"avi", "mpeg"})  # containers in which frames may be without a time of their own
_JOINED = 0x200  # AVFMT_TS_DISCONT: formats whose times may begin anew by design
_SHOWN, _KEY = 1, 2
HIDDEN, EMPTY = -1, -2

Int64s = npt.NDArray[np.int64]


def _none() -> Int64s:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True)
class Packets:
    """All packets of the video stream in the order in which they are stored.

    Attributes:
        pts, dts: int64 [P], ticks; ``_NO_TIME`` where there is none.
        duration: int64 [P], ticks; 0 where it is not known.
        shown: bool [P], False for what is decoded only because others need it.
        key: bool [P], whether decoding can begin there.
        end_of_all: seconds, when the last packet of any stream ends.
    """

    pts: Int64s
    dts: Int64s
    duration: Int64s
    shown: npt.NDArray[np.bool_]
    key: npt.NDArray[np.bool_]
    end_of_all: float


@dataclass(frozen=True)
class Timeline:
    """The frames of a video in the order in which they are shown.

    Attributes:
        times: int64 [F], when each comes on, strictly ascending from 0, in ticks of ``base`` seconds.
        end: when the last goes off.
        base: seconds a tick.
        frame_of: int64 [P], for each packet the number of the frame it holds; ``HIDDEN`` where it is not shown,
            ``EMPTY`` where it should hold none. None: frames are counted as the decoder hands them out, because their
            times say nothing.
        packet_of: int64 [F], for each frame the number of its packet.
        pts: int64 [P], the packets' own times.
        keyframes: int64, ascending: numbers of packets that decoding can begin at, and that the file can be searched
            for; none where several packets have one time.
        packet_at: time -> number of the packet, where there are ``keyframes``.
    """

    times: Int64s
    end: int
    base: Fraction
    frame_of: Int64s | None = None
    packet_of: Int64s = field(default_factory=_none)
    pts: Int64s = field(default_factory=_none)
    keyframes: Int64s = field(default_factory=_none)
    packet_at: dict[int, int] = field(default_factory=dict, repr=False)

    @property
    def seconds(self) -> float:
        """How long the video is."""
        return float(self.end * self.base)

    @property
    def rate(self) -> float | None:
        """Frames a second on average; None of a single one."""
        return len(self) / self.seconds if len(self) > 1 and self.end else None

    @property
    def packets_shown(self) -> int:
        """How many packets are not hidden."""
        return len(self) if self.frame_of is None else int((self.frame_of != HIDDEN).sum())

    def __len__(self) -> int:
        return len(self.times)


def read_timeline(
    path: str | Path, container: InputContainer, stream: VideoStream, *, allow_truncated: bool = False
) -> Timeline:
    """Reads a freshly opened file to its end.

    Args:
        allow_truncated: take what there is of a file that ends long before its header says so.

    Raises:
        VideoError: there is nothing to show; or the file ends early.
    """
    packets = _read(path, container, stream)
    if not packets.shown.any():
        raise VideoError(f"{path}: no video data in it (cut off after its header?)")
    timeline = _by_time(container, stream, packets) or by_count(stream, int(packets.shown.sum()))
    if not allow_truncated:
        _check_whole(path, container, stream, packets, timeline)
    return timeline


def by_count(stream: VideoStream, count: int) -> Timeline:
    """Frames of equal length, by the stream's rate, in whatever order they come from the decoder."""
    rate = stream.guessed_rate or stream.average_rate or PLAIN_RATE  # the average of a raw stream is made up
    return Timeline(np.arange(count, dtype=np.int64), count, 1 / Fraction(rate))


def _read(path: str | Path, container: InputContainer, stream: VideoStream) -> Packets:
    pts, dts, duration, flags = array("q"), array("q"), array("q"), array("B")
    own, ends = stream.index, [0] * len(container.streams)  # when the last packet of each stream ends, in its ticks
    for packet in read_packets(container):
        index, shown_at, length = packet.stream_index, packet.pts, packet.duration or 0
        if shown_at is not None and index < len(ends):
            ends[index] = max(ends[index], shown_at + length)
        if index != own:
            continue
        if len(pts) == MAX_PACKETS:
            raise VideoError(f"{path}: more than {MAX_PACKETS} packets of video")
        pts.append(_ticks(shown_at))
        dts.append(_ticks(packet.dts))
        duration.append(length if 0 < length < _LATEST else 0)
        flags.append((0 if packet.is_discard else _SHOWN) | (_KEY if packet.is_keyframe else 0))
    bits = np.array(flags, dtype=np.uint8)
    times, key = np.array(pts, dtype=np.int64), (bits & _KEY) != 0
    return Packets(
        times,
        np.array(dts, dtype=np.int64),
        np.array(duration, dtype=np.int64),
        ((bits & _SHOWN) != 0) & ~_without_references(times, key),
        key,
        max(float(end * (of.time_base or 0)) for end, of in zip(ends, container.streams, strict=False)),
    )


def _without_references(pts: Int64s, key: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """bool [P]: what a recording that was cut out of another begins with, and no decoder can show.

    Packets before the first keyframe; and those right behind it that come on before it.
    """
    lost = np.zeros(len(pts), dtype=bool)
    if not key.any():
        return lost
    first = int(key.argmax())
    lost[:first] = True
    leading = slice(first + 1, first + 1 + MAX_REORDERED)
    if pts[first] != _NO_TIME:
        lost[leading] = (pts[leading] != _NO_TIME) & (pts[leading] < pts[first]) & (first > 0)
    return lost


def _ticks(time: int | None) -> int:
    """Times that no file can have come of damage: they count as missing."""
    return time if time is not None and abs(time) < _LATEST else _NO_TIME


def _by_time(container: InputContainer, stream: VideoStream, packets: Packets) -> Timeline | None:
    """The timeline that the packets' times make; None where they say nothing."""
    number = np.flatnonzero(packets.shown & (packets.pts != _NO_TIME))
    if not len(number):
        return None
    base = time_base(stream)
    sections = _sections(packets)
    order = number[np.lexsort((packets.pts[number], sections[number]))]
    pts, section = packets.pts[order], sections[order]
    twice = np.zeros(len(order), dtype=bool)  # the second field of a frame, for one; the decoder will tell
    twice[1:] = (pts[1:] == pts[:-1]) & (section[1:] == section[:-1])
    missing = len(order) - int(twice.sum()) < packets.shown.sum()
    if missing and len(packets.pts) <= SOON_COUNTED:
        return None
    if container.format.name in _TIMES_ARE_GUESSED:
        reordered = bool((np.diff(packets.pts[number]) < 0).any())
        delayed = bool(stream.codec_context.has_b_frames)
        # AVI counts dropped frames, so that its pauses are real; those of a program stream come of guessing
        uneven = container.format.name == "mpeg" and len(pts) > 2 and int(np.ptp(np.diff(pts))) > 2
        if missing or uneven or section[-1] > 0 or (delayed and not reordered):
            return None
    order, pts, section = order[~twice], pts[~twice], section[~twice]
    step = np.diff(pts)
    cut = np.diff(section) != 0
    usual = int(np.median(step[~cut])) if (~cut).any() else max(1, int(1 / PLAIN_RATE / base))
    joined = bool(container.format.flags & _JOINED)
    step[cut | _jumps(step, usual, int(LONGEST_PAUSE / base), joined)] = usual
    times = np.concatenate([np.zeros(1, dtype=np.int64), step.cumsum()])
    end = int(times[-1]) + _last_duration(stream, packets, order, usual)
    frame_of = np.where(packets.shown, EMPTY, HIDDEN).astype(np.int64)
    frame_of[order] = np.arange(len(order))
    return Timeline(times, end, base, frame_of, order, packets.pts, *_index(packets, frame_of))


def _sections(packets: Packets) -> Int64s:
    """int64 [P]: counts up where the times of decoding go back: there, times begin anew."""
    known = np.flatnonzero(packets.dts != _NO_TIME)
    breaks = np.zeros(len(packets.dts), dtype=np.int64)
    breaks[known[1:]] = np.diff(packets.dts[known]) < 0
    return breaks.cumsum()


def _jumps(step: Int64s, usual: int, longest: int, joined: bool) -> npt.NDArray[np.bool_]:
    """Pauses that are no pauses.

    In formats that recorders join, any long and rare one; in others one that is longer than all the rest of the video,
    so that hardly a frame of the rest would be seen.
    """
    long = (step > longest) & (step > RARE * usual)
    jumps: npt.NDArray[np.bool_] = long if joined else long & (step > step[~long].sum())
    return jumps


def _last_duration(stream: VideoStream, packets: Packets, order: Int64s, usual: int) -> int:
    """How long the last frame is shown: by the header where that can be, else by its packet."""
    first, last = order[0], order[-1]
    by_packet = int(packets.duration[last])
    by_header = int(packets.pts[first] - packets.pts[last]) + (stream.duration or 0)
    if 0 < by_header <= max(by_packet, usual):
        return by_header
    # Where frames are stored in another order, a packet's duration is often the time to the next one stored
    return by_packet if by_packet and (np.diff(order) > 0).all() else usual


def _index(packets: Packets, frame_of: Int64s) -> tuple[Int64s, dict[int, int]]:
    """(keyframes, packet_at): what a file is searched by. Empty where one time means several frames."""
    timed = np.flatnonzero(packets.pts != _NO_TIME)
    values, first, counts = np.unique(packets.pts[timed], return_index=True, return_counts=True)
    ambiguous = np.isin(packets.pts, values[counts > 1])
    if (ambiguous & (frame_of >= 0)).any():
        return _none(), {}
    keyframes = np.flatnonzero(packets.key & ~ambiguous & (packets.pts != _NO_TIME))
    packet_at = dict(zip(values[counts == 1].tolist(), timed[first[counts == 1]].tolist(), strict=True))
    return keyframes, packet_at


def _check_whole(
    path: str | Path, container: InputContainer, stream: VideoStream, packets: Packets, timeline: Timeline
) -> None:
    """Raises VideoError where every length that the header gives lies well beyond the data.

    A length may count from the first frame or from the container's 0, and an edit list may have changed the one of
    the stream and not that of the file, or the other way round.
    """
    if container.format.flags & _JOINED:
        return  # has no header; libav takes the length from the data
    timed = packets.pts != _NO_TIME
    ends = (packets.pts + packets.duration)[timed]
    start, reached = (int(packets.pts[timed].min()), int(ends.max())) if timed.any() else (0, 0)
    base = time_base(stream)
    of_video = max(timeline.seconds, float((reached - min(0, start)) * base))
    claims = []
    if container.duration:
        of_all = of_video if stream.duration else max(of_video, packets.end_of_all)
        claims.append((container.duration / 1e6, of_all))
    if stream.duration:
        claims.append((float(stream.duration * base), of_video))
    missing, said, found = min(((said - found, said, found) for said, found in claims), default=(0.0, 0.0, 0.0))
    if missing > tolerance(said):
        raise VideoError(
            f"{path}: truncated, or its header lies: {said:.1f} s by the header, but the data end at {found:.1f} s"
            " (--allow-truncated reads what there is)"
        )


def tolerance(seconds: float) -> float:
    """How much of a video's end may be missing before it counts as truncated: a second or a tenth."""
    return max(1.0, seconds / 10)
