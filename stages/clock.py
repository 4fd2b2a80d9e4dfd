"""What a container's clock leaves out: where it begins, where it ends, how far ffmpeg reads it wrongly."""

from av.container import InputContainer
from av.video.stream import VideoStream

from stages.container import has_decoding_times_only, source_rate_hz, zero_s

_ENDS = ("matroska,webm", "asf", "nut")
"""Their headers state when the last stream ends, on a clock that need not begin at 0; others how long it is."""


def declared_s(container: InputContainer, stream: VideoStream) -> float:
    """How long the pictures are to be by the header, from the first on, or all streams where it has one length for
    them; 0 where it states none."""
    said_s = float(stream.duration * stream.time_base) if stream.duration and stream.time_base else 0.0
    said_s = said_s or (container.duration or 0) / 1_000_000
    before_s = float(zero_s(stream)) if container.format.name in _ENDS else 0.0
    return said_s - before_s if 0 < before_s < said_s else said_s


def late_s(container: InputContainer, stream: VideoStream) -> float:
    """How much too late ffmpeg shows a file's pictures: without times of their own they get that of the one with which
    they leave the decoder, which holds some back for their order."""
    return stream.codec_context.reorder_depth / source_rate_hz(stream) if has_decoding_times_only(container) else 0.0
