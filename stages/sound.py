"""Sound as the pipeline hears it: 16 kHz mono int16, on the pictures' clock. PyAV."""

import contextlib
from collections import deque
from collections.abc import Iterator
from fractions import Fraction
from itertools import chain, dropwhile, repeat
from pathlib import Path
from statistics import median

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.filter import Graph
from av.packet import Packet
from av.video.stream import VideoStream

from manifests.records import SAMPLE_RATE_HZ
from stages.clock import declared_s
from stages.container import MediaError, only, opened, packets_of, picture_stream, pulled, seek, sound_stream, zero_s

_PREROLL_S = 0.5
"""Decoding begins this much before the wanted part: AAC and Opus need up to 80 ms to settle, MP3 its bit reservoir."""

_JUMP_S = 0.01
"""Time stamps that leave the running sample count by more, and last, are believed: silence is put in, or samples are
dropped. Rounded stamps (1 ms in Matroska and FLV) stay far below."""

_LASTING = 20
"""So many stamps are looked at together, since live recordings stamp sound when it arrives: with every second packet
15 ms late, half of the sound was cut up by moves forth and back (measured). Even: no such rhythm has a majority."""

_BACK_S = (0.5, 5.0)
"""How long before the wanted time to look for a key frame, in turn: sound may lie before the pictures of its time."""

_OPPOSED = 32.0
"""Two channels whose mean has so much less power than the first (15 dB) are in opposite phase: the first is heard."""

_LOOK_FRAMES = 8
"""One frame of so many is looked at for that: all of them would make stereo a third dearer (24 us a frame)."""

_RESTART_S = 1.0
"""Over longer holes the resampler begins anew, since it would hold all of the hole's silence at once."""

_GAP_S = 12 * 3600
"""A stamp that leaves a longer hole is broken and ends the sound."""

_SILENCE_S = 600.0
"""So does one that makes more silence than this in all, and lies after the end that the file states: a clock that is
broken as a whole made 77 hours of a file of 6 s. A stated end alone proves nothing, headers of live streams lie."""


def audio(path: Path, *, start_s: float = 0.0, end_s: float | None = None) -> Iterator[np.ndarray]:
    """Blocks (n,) of int16 at 16 kHz, channels averaged (of two in opposite phase the first is heard), from
    `start_s` to `end_s` or the sound's end.

    Time zero is that of the first picture, so a sound track that begins later begins with silence here, and one that
    begins earlier is cut; edit lists and codec delays are honoured by the container library. Files without pictures
    count from their first sample. Nothing comes where there is no sound stream. Raises `MediaError`.
    """
    left = None if end_s is None else max(round((end_s - start_s) * SAMPLE_RATE_HZ), 0)
    for block in _resampled(path, start_s):
        if left is not None:
            block = block[:left]
            left -= len(block)
        if len(block):
            yield block
        if left == 0:
            return


def audio_array(path: Path, *, start_s: float, end_s: float) -> np.ndarray:
    """Sound (n,) int16 at 16 kHz of exactly this span, zeros at the end where there is none. Raises `MediaError`."""
    out = np.zeros(round((end_s - start_s) * SAMPLE_RATE_HZ), np.int16)
    at = 0
    for block in audio(path, start_s=start_s, end_s=end_s):
        out[at : at + len(block)] = block
        at += len(block)
    return out


def _resampled(path: Path, start_s: float) -> Iterator[np.ndarray]:
    with opened(path) as container:
        stream = sound_stream(container)
        if stream is None:
            return
        pictures = _pictures(container)
        origin = zero_s(pictures or stream)
        end_s = 0.0 if pictures is None else declared_s(container, pictures)
        at, n_silent = round(start_s * SAMPLE_RATE_HZ), 0  # the next sample to give; how many no packet had
        if start_s > 2 * _PREROLL_S:
            target_s = origin + Fraction(start_s - _PREROLL_S).limit_denominator(1_000_000)
            packets = _packets_from(container, stream, pictures, target_s)
        else:
            only(container, stream)
            packets = packets_of(container, stream)
        for first, block in _on_clock(_decoded(packets), origin):
            n_silent += max(first - at, 0)
            is_beyond = 0 < end_s < first / SAMPLE_RATE_HZ and n_silent > _SILENCE_S * SAMPLE_RATE_HZ
            if is_beyond or first - at > _GAP_S * SAMPLE_RATE_HZ:  # a broken stamp: what follows cannot be placed
                return
            while first > at:
                silence = np.zeros(min(first - at, SAMPLE_RATE_HZ), np.int16)
                yield silence
                at += len(silence)
            if first + len(block) > at:
                yield block[at - first :]
                at = first + len(block)


def _on_clock(frames: Iterator[AudioFrame], origin: Fraction) -> Iterator[tuple[int, np.ndarray]]:
    """Resampled blocks, each with the number of its first sample on the clock that begins at `origin`."""
    graph: Graph | None = None
    form: tuple[object, ...] = ()
    expected_s = of_mean = of_first = 0.0
    for n, (frame, time_s) in enumerate(_timed(frames, origin)):
        if n % _LOOK_FRAMES == 0 and frame.layout.nb_channels == 2:
            power = _power(frame)
            of_mean, of_first = of_mean + power[0], of_first + power[1]
        opposed = of_mean * _OPPOSED < of_first and frame.layout.nb_channels == 2
        before, form = form, (frame.sample_rate, frame.format.name, frame.layout.name, opposed)
        anew = abs(time_s - expected_s) > _RESTART_S or form != before  # broadcasts change channels
        if graph is not None and anew:
            yield from _numbered(graph, None)
            graph = None
        if graph is None:
            graph = _graph(frame, first_only=opposed)
        expected_s = time_s + frame.samples / frame.sample_rate
        # twice, as half a sample would go up or down by the noise in its last digits
        frame.pts, frame.time_base = round(round(time_s * frame.sample_rate, 3)), Fraction(1, frame.sample_rate)
        yield from _numbered(graph, frame)
    if graph is not None:
        yield from _numbered(graph, None)


def _timed(frames: Iterator[AudioFrame], origin: Fraction) -> Iterator[tuple[AudioFrame, float]]:
    """Frames, each with the seconds from `origin` at which it is to be heard: samples are counted on from the first.

    A stamp moves the count as far as the median of it and the next ones bears it out: holes are followed where they
    are, single stamps that are early, late or plainly broken are not.
    """
    waiting: deque[tuple[AudioFrame, float, float]] = deque()
    leads: deque[float] = deque(maxlen=_LASTING)
    counted_s, lead_s, held_s = 0.0, 0.0, None
    for read in chain(frames, repeat(None, _LASTING)):
        if read is not None:
            if read.pts is not None and read.time_base is not None:
                lead_s = float(read.pts * read.time_base - origin) - counted_s
            waiting.append((read, counted_s, lead_s))
            leads.append(lead_s)
            counted_s += read.samples / read.sample_rate
        if waiting and (read is None or len(waiting) == _LASTING):
            frame, before_s, own_s = waiting.popleft()
            if held_s is None:  # where all that follows lies before it, the first stamp is the broken one
                held_s = own_s if own_s - median(leads) < _RESTART_S else median(leads)
            elif abs(own_s - held_s) > _JUMP_S:
                low, high = sorted((own_s, median(leads)))
                near = max(low, min(held_s, high))
                held_s = near if abs(near - held_s) > _JUMP_S else held_s
            yield frame, before_s + held_s


def _power(frame: AudioFrame) -> tuple[float, float]:
    """Of the mean of two channels, and of the first."""
    samples = frame.to_ndarray().astype(np.float64)
    left, right = samples if frame.format.is_planar else samples.reshape(-1, 2).T
    mean = (left + right) / 2
    return float(mean @ mean), float(left @ left)


def _pictures(container: InputContainer) -> VideoStream | None:
    try:
        return picture_stream(container)
    except MediaError:
        return None


def _packets_from(
    container: InputContainer, stream: AudioStream, pictures: VideoStream | None, time_s: Fraction
) -> "Iterator[Packet[AudioStream]]":
    """Sound packets from a time on the container's clock, or somewhat before.

    Matroska's index lists pictures, as a rule: sought by its sound, a file is read from its start. It is sought by its
    pictures, therefore; and left to skip them only then, since without any index they are how it finds its way.
    """
    if pictures is not None and "matroska" in container.format.name:
        base = stream.time_base or Fraction(1, 1000)
        wanted = time_s / base
        for back_s in _BACK_S:
            with contextlib.suppress(av.error.FFmpegError):
                seek(container, pictures, time_s - Fraction(back_s))
                packets = packets_of(container, stream)
                first = next(packets, None)
                if first is not None and first.pts is not None and first.pts <= wanted:
                    only(container, stream)
                    return dropwhile(lambda p: (p.pts or 0) + (p.duration or 0) <= wanted, chain([first], packets))
    only(container, stream)
    try:
        seek(container, stream, time_s)
    except av.error.FFmpegError:
        container.seek(0, backward=False)  # no sound lies before it: FLV finds none then, not even the first
    return packets_of(container, stream)


def _decoded(packets: "Iterator[Packet[AudioStream]]") -> Iterator[AudioFrame]:
    for packet in packets:
        with contextlib.suppress(av.error.FFmpegError):
            yield from packet.decode()


def _graph(frame: AudioFrame, *, first_only: bool) -> Graph:
    """libswresample by way of its filter, which keeps the output on the stamps' clock (`async`)."""
    graph = Graph()
    source = graph.add_abuffer(
        sample_rate=frame.sample_rate,
        format=frame.format.name,
        layout=frame.layout.name,
        time_base=Fraction(1, frame.sample_rate),
    )
    resample = graph.add(
        "aresample",
        f"{SAMPLE_RATE_HZ}:async=1:min_hard_comp={_JUMP_S / 2}:out_sample_fmt=s16:out_chlayout=mono",
    )
    sink = graph.add("abuffersink")
    if first_only:
        first = graph.add("pan", "mono|c0=c0")
        source.link_to(first)
        first.link_to(resample)
    else:
        source.link_to(resample)
    resample.link_to(sink)
    try:
        graph.configure()
    except av.error.FFmpegError as error:  # channels that nobody knows how to mix
        raise MediaError("undecodable", f"sound of {frame.layout.name}: {error}") from None
    return graph


def _numbered(graph: Graph, put_in: AudioFrame | None) -> Iterator[tuple[int, np.ndarray]]:
    for frame in pulled(graph, put_in):
        assert isinstance(frame, AudioFrame)
        assert frame.pts is not None
        yield frame.pts, frame.to_ndarray().reshape(-1)
