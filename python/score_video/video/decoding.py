"""Decoding a few frames of a video by their number, from the nearest keyframe before each.

Every packet is given its own number in place of its time, so that each decoded frame says which packet it is from,
whatever the times in the file are worth. The order in which frames come out is checked against the timeline.

Of H.264 the decoder leaves out frames that are not wanted and that no other frame refers to.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from score_video.video.container import VideoError, read_packets, seek, time_base
from score_video.video.timeline import EMPTY, Int64s, Timeline, tolerance

_EARLIER = 2  # keyframes further back that are tried where a frame cannot be decoded from the nearest
_FEW, _RARE = 2, 10  # so many odd frames, or one in so many, are put down to damage
_MAX_SEARCHED = 1000  # packets that are looked at for the keyframe that a search should have led to


class DisorderedError(Exception):
    """The decoder shows frames in another order than their packets' times say."""


class Cursor:
    """A place in a video that moves forward only: the frame on display there and the one after it."""

    def __init__(
        self,
        path: str | Path,
        decoding: tuple[InputContainer, VideoStream],
        searching: tuple[InputContainer, VideoStream],
        timeline: Timeline,
        wanted: Int64s,
        *,
        allow_truncated: bool = False,
    ) -> None:
        """
        Args:
            path: the file's name, for error messages.
            decoding: a freshly opened file.
            searching: the same file, opened once more: searched for keyframes, so that the other's place is not lost.
            timeline: what the file shows.
            wanted: int64, numbers of the frames that will be asked for.
            allow_truncated: take the last frame that can be decoded for all those after it.
        """
        self.path = path
        self.container, self.stream = decoding
        self.timeline = timeline
        self.decoded = 0
        self._damaged: set[int] = set()
        self._odd = 0  # frames that were not where the timeline has them
        self._searching = searching
        self._allow_truncated = allow_truncated
        self._shown: tuple[int, VideoFrame] | None = None  # with its number
        self._next: tuple[int, VideoFrame] | None = None
        self._ended = self._jumped = False
        self._fed = -1  # number of the last packet that the decoder was given
        self._count = 0  # frames that it handed out, for timelines by count
        self._needed = self._needed_packets(wanted)
        self._frames = self._decode(None)

    @property
    def damaged(self) -> int:
        """How many packets the decoder refused."""
        return len(self._damaged)

    def at(self, number: int) -> tuple[int, VideoFrame]:
        """The frame of that number and the number; an earlier one where it cannot be decoded (a later one, at the
        beginning).

        Raises:
            VideoError: nothing can be decoded any more.
            DisorderedError: the timeline is wrong.
        """
        if not self._is_at(number):
            self._approach(number)
        found = self._shown or self._next
        if found is None:
            raise VideoError(f"{self.path}: none of its frames can be decoded")
        times, base = self.timeline.times, float(self.timeline.base)
        missing = float(times[number] - times[found[0]]) * base
        if self._ended and missing > tolerance(self.timeline.seconds) and not self._allow_truncated:
            at = float(times[found[0]]) * base
            raise VideoError(
                f"{self.path}: damaged: nothing can be decoded after {at:.1f} s (--allow-truncated reads what there is)"
            )
        return found

    def count_all(self) -> int:
        """Decodes to the end. Returns how many frames there were, with those before."""
        for _ in self._frames:
            pass
        return self._count

    def _is_at(self, number: int) -> bool:
        return self._ended or (self._next is not None and self._next[0] > number and self._shown is not None)

    def _approach(self, number: int) -> None:
        starts = self._keyframes_before(number)
        if starts and starts[0] > self._fed + 1:  # skips some packets
            self._jump(starts[0])
        self._step_to(number)
        for start in starts[1:]:
            if self._shown is not None and self._shown[0] <= number:
                return
            if self._jump(start):
                self._step_to(number)
        if self._jumped and self._shown is None and self._next is None:
            raise DisorderedError  # what the search found is not there

    def _keyframes_before(self, number: int) -> list[int]:
        """Packets to begin decoding at for a frame, the nearest first; none where the file cannot be searched."""
        timeline = self.timeline
        if not len(timeline.keyframes):
            return []
        packet = timeline.packet_of[number]
        stop = int(np.searchsorted(timeline.keyframes, packet, side="right"))
        # further back than those that are tried: some are stored before the frame and shown after it
        near = timeline.keyframes[max(0, stop - 8) : stop]
        near = near[timeline.pts[near] <= timeline.pts[packet]]
        return [int(keyframe) for keyframe in near[::-1][: 1 + _EARLIER]]

    def _jump(self, keyframe: int) -> bool:
        """Goes to a keyframe, or one before it; False if the file cannot be searched for it."""
        found = self._search(keyframe)
        if found is None or not seek(self.container, self.stream, found[0]):
            return False
        self._shown = self._next = None
        self._ended = False
        self._jumped = True
        self._frames = self._decode(found[1])
        return True

    def _search(self, keyframe: int) -> tuple[int, int] | None:
        """(time to seek to, number of the keyframe found there), at or before the one wanted; None: not found.

        Some demuxers land after the time asked for, or between keyframes: then further back is tried.
        """
        container, stream = self._searching
        second = int(1 / time_base(stream))
        for back in (0, 1, 4, 16, 64, 256, 1024):
            target = int(self.timeline.pts[keyframe]) - back * second
            if not seek(container, stream, target):
                return None
            for packet in islice(read_packets(container), _MAX_SEARCHED):
                if packet.stream_index == stream.index and packet.is_keyframe:
                    found = self._number_of(packet)
                    if found is not None and found <= keyframe:
                        return target, found
                    break
        return None

    def _number_of(self, packet: Packet[Stream]) -> int | None:
        return None if packet.pts is None else self.timeline.packet_at.get(packet.pts)

    def _step_to(self, number: int) -> None:
        while not self._ended and (self._next is None or self._next[0] <= number):
            frame = next(self._frames, None)
            if frame is None:
                self._ended = True
                self._shown, self._next = self._next or self._shown, None
            else:
                self._shown, self._next = self._next, frame

    def _decode(self, keyframe: int | None) -> Iterator[tuple[int, VideoFrame]]:
        """Frames that are shown, with their numbers: from the beginning of the file, or from a keyframe on."""
        latest = -1
        came = False  # a frame: until then a decoder that begins at an intra refresh must see everything
        for number, packet in self._numbered(keyframe):
            if self._needed is not None:
                leaves_out = came and packet is not None and number not in self._needed
                self.stream.codec_context.skip_frame = "NONREF" if leaves_out else "DEFAULT"
            try:
                frames = self.stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                self._damaged.add(number)
                continue
            came = came or bool(frames)
            for frame in frames:
                self.decoded += 1
                shown = self._number(frame)
                if 0 <= shown < latest:
                    self._note_odd()
                if shown > latest:  # else a second picture of one packet
                    latest = shown
                    yield shown, frame

    def _needed_packets(self, wanted: Int64s) -> frozenset[int] | None:
        """Numbers of the packets of wanted frames, where others that no frame refers to may be left out; else None.

        H.264 says of each whether any other refers to it; HEVC may say so with regard to some of the others alone.
        Where times do not reorder frames they may be made up, and only decoding all frames would tell.
        """
        timeline = self.timeline
        reorders = timeline.frame_of is not None and bool((np.diff(timeline.packet_of) < 0).any())
        if self.stream.codec_context.name != "h264" or not reorders:
            return None
        return frozenset(timeline.packet_of[wanted].tolist())

    def _number(self, frame: VideoFrame) -> int:
        """The frame's number; ``HIDDEN``: it is not shown."""
        frame_of = self.timeline.frame_of
        if frame_of is None:
            self._count += 1
            return min(self._count, len(self.timeline)) - 1
        number = EMPTY if frame.pts is None or not 0 <= frame.pts < len(frame_of) else int(frame_of[frame.pts])
        if number == EMPTY:
            self._note_odd()
        return number

    def _note_odd(self) -> None:
        """One such frame comes of damage, and is left out. Many of them: the timeline is wrong."""
        self._odd += 1
        if self._odd > _FEW and self._odd * _RARE > self.decoded:
            raise DisorderedError

    def _numbered(self, keyframe: int | None) -> Iterator[tuple[int, Packet[Stream] | None]]:
        """Packets from the beginning or from the keyframe on, each with its number for its time."""
        number = -1
        begun = keyframe is None
        for packet in read_packets(self.container):
            if packet.stream_index != self.stream.index:
                continue
            found = None if keyframe is None else self._number_of(packet)
            if not begun and found != keyframe:
                continue
            begun = True
            number = number + 1 if found is None else found
            packet.pts = self._fed = number
            yield number, packet
        yield number, None  # makes the decoder hand out what it still holds
