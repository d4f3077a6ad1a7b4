"""How stored frames are turned and mirrored for display: the eight ways in which a camera may have been held."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from av.sidedata.sidedata import Type
from av.video.frame import VideoFrame


@dataclass(frozen=True)
class Orientation:
    """What is done to a stored frame so that it can be shown.

    Attributes:
        mirrored: whether left and right are exchanged, before it is turned.
        rotation: degrees counter-clockwise by which it is turned: 0, 90, 180 or 270.
    """

    mirrored: bool = False
    rotation: int = 0

    @property
    def turns_sides(self) -> bool:
        """Whether height and width are exchanged."""
        return self.rotation % 180 != 0

    def apply(self, frame: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """[H, W, ...] as stored -> as shown, [W, H, ...] where ``turns_sides``."""
        return np.ascontiguousarray(np.rot90(frame[:, ::-1] if self.mirrored else frame, self.rotation // 90))


def orientation_of(frame: VideoFrame) -> Orientation:
    """What the frame's display matrix asks for; the nearest of the eight ways where it is at an angle."""
    try:
        side_data: Iterable[Any] = frame.side_data
        matrices = [bytes(data) for data in side_data if data.type == Type.DISPLAYMATRIX]
    except ValueError:  # PyAV's, for a frame with a kind of data that its release does not know
        return Orientation(rotation=round(frame.rotation / 90) * 90 % 360)
    if not matrices or len(matrices[0]) < 20:
        return Orientation()
    # (x, y) -> (a x + c y, b x + d y), x to the right and y down
    a, b, _, c, d = struct.unpack("=5i", matrices[0][:20])
    if abs(a) + abs(d) >= abs(b) + abs(c):
        mirrored = (a < 0) != (d < 0)
        return Orientation(mirrored, 180 if d < 0 else 0)
    mirrored = (b < 0) == (c < 0)
    # where x comes to point up (b < 0), what was at the right is at the top: a quarter counter-clockwise
    return Orientation(mirrored, 270 if (b < 0) == mirrored else 90)
