"""Media files opened with care: which formats, which stream is the picture, where time zero is, how to seek. PyAV."""

import contextlib
import heapq
import itertools
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import av.error
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.filter import Graph
from av.packet import Packet
from av.stream import Discard, Disposition, Stream
from av.video.frame import PictureType, VideoFrame
from av.video.stream import VideoStream

from stages.ffmpeg import BWDIF, FORMATS, LONGEST_PX, MOST_PX

_SEEK_SLACK_S = 0.1  # MP4 seeks by decoding time, up to a few frames before presentation time
_SEEK_BACK_S = (0.0, 5.0, 30.0)  # tried in turn where an index is coarse or wrong, then the file from its start
_REORDER_S = 0.5  # in a transport stream one lands between pictures, of which those shown first may come last
_UNSURE = ("mpeg4",)  # decoders that begin anywhere, with pictures of grey where others wait for a key frame
_STAMP_SLACK_S = 0.0005  # Matroska and FLV round to 1 ms: who names a picture's true time means that picture


Wanted = Callable[["Packet[Any]"], bool]
"""Whether a packet is to be decoded."""


class MediaError(Exception):
    """A file that cannot be used as video, with a slug that says why.

    `empty`, `not_a_video`, `truncated` (its index never arrived), `no_video_stream`, `undecodable` (no picture comes
    out), `picture_too_large` (see `stages.ffmpeg`), `timestamps` (they jump or run backwards beyond repair).
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail


@contextlib.contextmanager
def opened(path: Path) -> Iterator[InputContainer]:
    """Open a media file for reading; raises `MediaError`, or `FileNotFoundError` if there is none."""
    if path.stat().st_size == 0:
        raise MediaError("empty")
    options = {"format_whitelist": FORMATS, "protocol_whitelist": "file", "max_pixels": str(MOST_PX)}
    # torchvision, at its import, has messages told to Python. A decoder's thread with one to tell then waits for the
    # interpreter, and for ever where that waits for the thread to end: so a file was closed that never was (seen once).
    av.logging.set_level(None)
    try:
        container = av.open(str(path), options=options, metadata_errors="replace")
    except (av.error.FFmpegError, ValueError) as error:
        with path.open("rb") as f:
            head = f.read(12)
        # An MP4 is an `ftyp` box and, often at the very end, the index without which nothing in it can be found.
        raise MediaError("truncated" if head[4:8] == b"ftyp" else "not_a_video", str(error)) from error
    try:
        yield container
    finally:
        container.close()


def picture_stream(container: InputContainer) -> VideoStream:
    """The stream to watch: the largest that is not a cover picture, of several the one that the file marks as its
    default, else the first; raises `MediaError`.

    Pictures that are too large midway, or larger than the file says, are left out as damaged ones are.
    """
    still = Disposition.attached_pic | Disposition.timed_thumbnails
    moving = [stream for stream in container.streams.video if not stream.disposition & still]
    if not moving:
        raise MediaError("no_video_stream")
    # A stream that no decoder is there for has no context, and no size either.
    known = [stream for stream in moving if stream.codec_context is not None and stream.width and stream.height]
    if not known:
        raise MediaError("undecodable", "unknown picture size or codec")
    marks = Disposition.default
    largest = max(known, key=lambda one: (one.width * one.height, bool(one.disposition & marks), -one.index))
    if max(largest.width, largest.height) > LONGEST_PX or largest.width * largest.height > MOST_PX:
        raise MediaError("picture_too_large", f"{largest.width} x {largest.height} px")
    largest.codec_context.options = {"max_pixels": str(MOST_PX)}
    return largest


def sound_stream(container: InputContainer) -> AudioStream | None:
    """The stream to hear: the first that the file marks as its default (films, DVDs: other languages beside it), else
    in a transport stream the first of the pictures' programme, else the first there is.

    Raises `MediaError` where there is sound, but none that can be decoded.
    """
    known = [stream for stream in container.streams.audio if stream.codec_context is not None]
    if not known:
        if container.streams.audio:
            raise MediaError("undecodable", "sound of an unknown codec")
        return None
    marked = (stream for stream in known if stream.disposition & Disposition.default)
    return next(marked, None) or _of_the_programme(container, known) or known[0]


def _of_the_programme(container: InputContainer, known: list[AudioStream]) -> AudioStream | None:
    """The first sound that a transport stream of several programmes has for the pictures to watch. PyAV tells of no
    programmes, but FFmpeg finds one best sound, by bit rate, for all streams of one."""
    if container.format.name != "mpegts":
        return None
    with contextlib.suppress(MediaError):  # a radio programme
        best = container.streams.best
        mark = best("audio", related=picture_stream(container))
        return next((stream for stream in known if mark in (stream, best("audio", related=stream))), None)
    return None


def packets_of(container: InputContainer, *streams: Stream) -> "Iterator[Packet[Any]]":
    """Of these streams as they lie in the file, up to where the bytes end, make no sense, or, in FLV, begin a stream
    that was not there before: PyAV knows no place for it."""
    with contextlib.suppress(av.error.FFmpegError, IndexError):
        yield from container.demux(*streams)


def zero_s(stream: Stream) -> Fraction:
    """Presentation time of the stream's first picture (or sample) on the container's clock."""
    return stream.start_time * _base(stream) if stream.start_time is not None else Fraction(0)


def source_rate_hz(stream: VideoStream) -> float:
    """Average frame rate, 25 where the container states none or nonsense (1/time base)."""
    for rate in (stream.average_rate, stream.guessed_rate):
        if rate is not None and 1 <= rate <= 240:
            return float(rate)
    return 25.0


def only(container: InputContainer, wanted: Stream) -> None:
    """Let the demuxer skip the other streams' bytes."""
    for stream in container.streams:
        if stream is not wanted:
            stream.discard = Discard.all


class Decoded(NamedTuple):
    """A decoded picture; plain values beside it, since a stream must not be touched once its file is closed."""

    time_s: float  # presentation time, from the stream's first picture
    length_s: float  # how long it is to be shown, as far as the container says
    frame: VideoFrame
    aspect: Fraction | None  # width / height of a pixel


def every_packet(packet: "Packet[Any]") -> bool:
    """All are to be decoded."""
    return True


def decoded(container: InputContainer, stream: VideoStream, wanted: Wanted = every_packet) -> Iterator[Decoded]:
    """Pictures in presentation order, with their times.

    Damaged packets and pictures are left out. AVI states decoding times only, so there the n-th picture shown takes the
    n-th smallest of them (packets in decoding order, pictures in presentation order, one to one); of pictures that the
    decoder swallowed without a word, as those before the key frame that a seek landed on, none is taken.
    """
    origin, base, period_s = zero_s(stream), _base(stream), 1 / source_rate_hz(stream)
    aspect = _aspect_of(container, stream)
    decoding_times: list[int] | None = [] if has_decoding_times_only(container) else None
    last_s = -period_s
    for pictures in _decoded_packets(container, stream, decoding_times, wanted):
        for picture in pictures:
            ticks = picture.pts
            if decoding_times is not None:
                _forget_swallowed(decoding_times, picture.dts, stream.codec_context.reorder_depth)
                ticks = heapq.heappop(decoding_times) if decoding_times else None
            if picture.is_corrupt:
                continue
            last_s = last_s + period_s if ticks is None else float(ticks * base - origin)
            yield Decoded(last_s, float(picture.duration * base) or period_s, picture, aspect())


def _forget_swallowed(decoding_times: list[int], fed: int | None, n_held: int) -> None:
    """Leave a picture's own time, and those of as many as the decoder holds back for their order; `fed` is that of the
    packet with which the picture came out (later ones may be under way in other threads), None at the end."""
    if fed is not None:
        for _ in range(sum(time <= fed for time in decoding_times) - 1 - n_held):
            heapq.heappop(decoding_times)


def whole(found: Iterator[Decoded]) -> Iterator[Decoded]:
    """The same pictures, interlaced ones (broadcasts, DV) made of one instant by libavfilter's `bwdif`.

    Their two fields are 20 ms apart, and a mouth moves between them. Where no picture says that it is interlaced,
    nothing is done.
    """
    graph: Graph | None = None
    form: tuple[object, ...] = ()
    waiting: deque[Decoded] = deque()
    for one in found:
        before, form = form, (one.frame.width, one.frame.height, one.frame.format.name)
        if graph is not None and form != before:
            yield from _made(graph, None, waiting)
            graph = None
        if graph is None and not one.frame.interlaced_frame:
            yield one
            continue
        if graph is None:
            graph = _deinterlacer(one.frame)
        waiting.append(one)
        yield from _made(graph, one.frame, waiting)
    if graph is not None:
        yield from _made(graph, None, waiting)


def _deinterlacer(frame: VideoFrame) -> Graph:
    """One picture out for each one in, a picture late; those that are not interlaced pass as they are."""
    graph = Graph()
    graph.threads = 1
    time_base = frame.time_base or Fraction(1, 90_000)
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=time_base)
    bwdif, sink = graph.add("bwdif", BWDIF), graph.add("buffersink")
    source.link_to(bwdif)
    bwdif.link_to(sink)
    graph.configure()
    return graph


def pulled(graph: Graph, put_in: VideoFrame | AudioFrame | None) -> Iterator[VideoFrame | AudioFrame]:
    """What comes out of a filter graph when a frame is put in; for None, all that it still holds."""
    graph.push(put_in)
    with contextlib.suppress(av.error.BlockingIOError, av.error.EOFError):
        while True:
            yield graph.pull()


def _made(graph: Graph, put_in: VideoFrame | None, waiting: deque[Decoded]) -> Iterator[Decoded]:
    for frame in pulled(graph, put_in):
        assert isinstance(frame, VideoFrame)
        one = waiting.popleft()
        frame.colorspace, frame.color_range = one.frame.colorspace, one.frame.color_range
        yield one._replace(frame=frame)


def is_transport_stream(container: InputContainer) -> bool:
    """Whether it is an MPEG transport or program stream: no index, and whatever comes, at any time."""
    return container.format.name in ("mpegts", "mpeg")


def has_decoding_times_only(container: InputContainer) -> bool:
    """Whether the format stores no presentation times (AVI)."""
    return container.format.name == "avi"


def _base(stream: Stream) -> Fraction:
    return stream.time_base or Fraction(1, 90_000)


def seek(container: InputContainer, stream: Stream, time_s: Fraction) -> None:
    """Go to the key frame at or before a time on the container's clock; raises `av.error.FFmpegError`."""
    container.seek(int(time_s / _base(stream)), stream=stream)


def lead_s(container: InputContainer, stream: Stream) -> Fraction:
    """How long after the file's earliest stream this one begins. ffmpeg counts from there, we from the picture."""
    return zero_s(stream) - Fraction(container.start_time or 0, av.time_base)


def time_shown(container: InputContainer, stream: VideoStream, time_s: float) -> Fraction:
    """When the picture that is shown at `time_s` begins, both from the first picture; `time_s` where none is found.

    Packets are read from the key frame before, none is decoded. The file must have been opened for this alone.
    """
    only(container, stream)
    wanted = zero_s(stream) + Fraction(time_s + _STAMP_SLACK_S)
    for back_s in (*_SEEK_BACK_S, time_s):
        with contextlib.suppress(av.error.FFmpegError):
            if time_s > _REORDER_S:  # else from where the file was opened
                seek(container, stream, max(zero_s(stream), wanted - Fraction(_REORDER_S + back_s)))
            if (found := _last_stamp(container, stream, wanted)) is not None:
                return max(Fraction(0), found - zero_s(stream))
    return Fraction(time_s)


def _last_stamp(container: InputContainer, stream: VideoStream, wanted: Fraction) -> Fraction | None:
    """The latest presentation time at or before the one wanted; of those of AVI, which has none, decoding time."""
    by_decoding, last = has_decoding_times_only(container), None
    for packet in container.demux(stream):
        stamp = packet.dts if by_decoding else packet.pts
        if packet.size and not packet.is_discard and stamp is not None and (at := stamp * _base(stream)) <= wanted:
            last = at if last is None else max(last, at)
        if packet.dts is not None and packet.dts * _base(stream) > wanted:  # and nothing is shown before it is decoded
            break
    return last


def _decoded_packets(
    container: InputContainer, stream: VideoStream, decoding_times: list[int] | None, wanted: Wanted
) -> Iterator[list[VideoFrame]]:
    for packet in packets_of(container, stream):
        if packet.size and not wanted(packet):
            continue
        if decoding_times is not None and packet.size and packet.dts is not None:
            heapq.heappush(decoding_times, packet.dts)
        try:
            pictures = packet.decode()
        except av.error.FFmpegError:
            if decoding_times and packet.dts in decoding_times:
                decoding_times.remove(packet.dts)
                heapq.heapify(decoding_times)
            continue
        yield pictures
    with contextlib.suppress(av.error.FFmpegError):  # of bytes that end early, what the decoder still holds
        yield stream.decode(None)


def decoded_keys(path: Path, threads: int) -> Iterator[Decoded]:
    """Pictures of the key frames alone, with their times; all others are read and not decoded.

    Left out is whatever is in doubt: damaged pictures, those without a time of their own (all of an AVI), those that
    only claim to stand for themselves (streams that refresh bit by bit), and interlaced ones, of which a packet may
    hold half. Raises `MediaError`.
    """
    with opened(path) as container:
        stream = picture_stream(container)
        only(container, stream)
        _threaded(stream, threads)
        stream.codec_context.skip_frame = "NONKEY"
        if has_decoding_times_only(container):
            return
        origin, base = zero_s(stream), _base(stream)
        aspect = _aspect_of(container, stream)
        for pictures in _decoded_packets(container, stream, None, lambda packet: packet.is_keyframe):
            for picture in pictures:
                whole = picture.pict_type == PictureType.I and not picture.interlaced_frame
                if picture.is_corrupt or picture.pts is None or not whole:
                    continue
                yield Decoded(float(picture.pts * base - origin), float(picture.duration * base), picture, aspect())


def _aspect_of(container: InputContainer, stream: VideoStream) -> Callable[[], Fraction | None]:
    """The pixel aspect of the picture decoded last: what the container says, in a transport stream what the codec does,
    since broadcasts change it with the programme."""
    if is_transport_stream(container):
        return lambda: stream.codec_context.sample_aspect_ratio
    stated = stream.sample_aspect_ratio
    return lambda: stated


def _threaded(stream: VideoStream, threads: int) -> None:
    stream.codec_context.thread_count = threads
    if threads != 1:
        stream.codec_context.thread_type = "AUTO"


def decoded_from(
    path: Path, start_s: float, threads: int, wanted: Wanted = every_packet, *, rough: bool = False
) -> Iterator[Decoded]:
    """Pictures from the last one at or before `start_s` (or earlier) on, decoding from the key frame before it.

    `start_s` counts from the first picture. Rough ones keep the edges of their blocks where none is made from them.
    Raises `MediaError`.
    """
    tries: tuple[float | None, ...] = (*_SEEK_BACK_S, None) if start_s > 1 else (None,)
    for back_s in tries:
        with opened(path) as container:
            stream = picture_stream(container)
            only(container, stream)
            _threaded(stream, threads)
            if rough:
                stream.codec_context.options |= {"skip_loop_filter": "noref"}
            if back_s is not None:
                target_s = zero_s(stream) + Fraction(start_s - _SEEK_SLACK_S - back_s).limit_denominator(1_000_000)
                try:
                    seek(container, stream, target_s)
                except av.error.FFmpegError:
                    continue
            seen = decoded(container, stream, wanted)
            if back_s is not None and is_transport_stream(container) and stream.codec_context.name in _UNSURE:
                seen = itertools.dropwhile(lambda one: one.time_s <= start_s and not one.frame.key_frame, seen)
            found = whole(seen)
            first = next(found, None)
            if first is None or first.time_s > start_s:
                if back_s is not None:
                    continue
                if first is None:
                    raise MediaError("undecodable", "no picture")
            yield first
            yield from found
            return
