"""Videos on their way into vLLM: looked at before they are decoded, and an error of their client's where they fail.

All of vLLM's ways to a video of a request, whatever loader it or the request names, go through two methods of one
class, which are wrapped here.
"""

from __future__ import annotations

import base64
import binascii
import functools
import inspect
from io import BytesIO
from typing import Any

from PIL import Image, UnidentifiedImageError
from vllm.exceptions import VLLMValidationError
from vllm.logger import init_logger
from vllm.multimodal.media.video import VideoMediaIO
from vllm.multimodal.video_decoders import VideoSourceMetadata, VideoTargetMetadata

from score_video.serving.counters import counter
from score_video.serving.limits import Limits, RefusedVideoError, read_header

logger = init_logger(f"vllm.plugins.{__name__}")

_PICTURES = "video/jpeg"
_NOT_OF_SAMPLING = ("num_frames", "fps", "max_duration", "backend", "frame_recovery")


def check_videos(limits: Limits) -> None:
    """Makes vLLM refuse videos beyond the limits, and those that cannot be decoded. Called any number of times."""
    if hasattr(VideoMediaIO.load_bytes, "__wrapped_by_score_video__"):
        return
    VideoMediaIO.load_bytes = _checked(VideoMediaIO.load_bytes, functools.partial(_check_file, limits))
    VideoMediaIO.load_base64 = _checked(VideoMediaIO.load_base64, functools.partial(_check_text, limits))


def _checked(load: Any, check: Any) -> Any:
    @functools.wraps(load)
    def load_what_is_allowed(io: Any, *given: Any) -> Any:
        try:
            check(io, *given)
            loaded = load(io, *given)
            if not len(loaded.media[0]):
                raise RefusedVideoError("unreadable", "video cannot be read: none of its frames can be decoded")
            return loaded
        except VLLMValidationError:
            raise  # of the method inside, or vLLM's own
        except RefusedVideoError as refused:
            counter("refused").labels(refused.reason).inc()
            raise VLLMValidationError(str(refused), parameter="video_url") from None
        except Exception as error:  # decoders raise whatever they like at a damaged file
            logger.info("a request's video could not be decoded: %r", error)
            counter("refused").labels("unreadable").inc()
            raise VLLMValidationError(f"video cannot be read: {error}", parameter="video_url") from error

    load_what_is_allowed.__wrapped_by_score_video__ = True  # type: ignore[attr-defined]
    return load_what_is_allowed


def _check_file(limits: Limits, io: Any, data: bytes) -> None:
    """Raises RefusedVideoError for a file that is no video, or too large, itself or what would be decoded of it."""
    header = read_header(data, limits)
    source = VideoSourceMetadata(header.frames, header.frames / header.seconds if header.seconds else 0, header.seconds)
    if not header.frames or not header.seconds:
        raise RefusedVideoError("unreadable", "video cannot be read: its header does not say how long it is")
    usual = inspect.signature(io.video_loader.load_bytes).parameters  # each loader has a rate of its own
    fps, longest = (io.kwargs.get(name, usual[name].default) for name in ("fps", "max_duration"))
    wanted = VideoTargetMetadata(io.num_frames, fps, longest)
    others = {name: value for name, value in io.kwargs.items() if name not in _NOT_OF_SAMPLING}
    sampled = len(io.video_loader.compute_frames_index_to_sample(source, wanted, **others))
    limits.check("decoded_megabytes", sampled * header.width * header.height * 3 / 1e6)


def _check_text(limits: Limits, io: Any, media_type: str, data: str) -> None:
    """The same for base64. A file is checked once it is decoded from it; frames that are pictures are, here."""
    limits.check("megabytes", len(data) * 3 / 4 / 1e6)
    if media_type.lower() != _PICTURES:
        return
    frames = data.count(",") + 1
    limits.check("frames", frames)
    parts = data.split(",", io.num_frames)[: io.num_frames] if io.num_frames > 0 else data.split(",")
    pixels = 0
    for part in parts:
        try:
            with Image.open(BytesIO(base64.b64decode(part, validate=True))) as picture:  # reads its header alone
                limits.check("pixels", picture.width * picture.height)
                pixels += picture.width * picture.height
        except (UnidentifiedImageError, binascii.Error, Image.DecompressionBombError) as error:
            raise RefusedVideoError(
                "unreadable", f"video cannot be read: one of its pictures is none: {error}"
            ) from None
    limits.check("decoded_megabytes", pixels * 3 / 1e6)
