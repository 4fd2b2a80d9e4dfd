"""Sound as the pipeline hears it: 16 kHz mono int16, on the pictures' clock. PyAV."""

from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import av.error
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.filter import Graph

from manifests.records import SAMPLE_RATE_HZ
from stages.container import MediaError, only, opened, picture_stream, seek, sound_stream, zero_s

_PREROLL_S = 0.5
"""Decoding begins this much before the wanted part: AAC and Opus need up to 80 ms to settle, MP3 its bit reservoir."""

_JUMP_S = 0.01
"""Time stamps that leave the running sample count by more are believed: silence is put in, or samples are dropped.
Rounded stamps (1 ms in Matroska and FLV) stay far below."""

_RESTART_S = 1.0
"""Over longer holes the resampler begins anew, since it would hold all of the hole's silence at once."""

_GAP_S = 12 * 3600
"""A stamp that leaves a longer hole is broken and ends the sound."""


def audio(path: Path, *, start_s: float = 0.0, end_s: float | None = None) -> Iterator[np.ndarray]:
    """Blocks (n,) of int16 at 16 kHz, channels averaged, from `start_s` to `end_s` or the sound's end.

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


def audio_array(path: Path, *, start_s: float, end_s: float, n_samples: int | None = None) -> np.ndarray:
    """Sound (n,) int16 at 16 kHz from `start_s`, of exactly `n_samples` (else the span's length), zeros at the end
    where there is none. Raises `MediaError`.
    """
    wanted = round((end_s - start_s) * SAMPLE_RATE_HZ) if n_samples is None else n_samples
    out = np.zeros(wanted, np.int16)
    at = 0
    for block in audio(path, start_s=start_s, end_s=start_s + wanted / SAMPLE_RATE_HZ):
        out[at : at + len(block)] = block
        at += len(block)
    return out


def _resampled(path: Path, start_s: float) -> Iterator[np.ndarray]:
    with opened(path) as container:
        stream = sound_stream(container)
        if stream is None:
            return
        only(container, stream)
        origin = _origin_s(container, stream)
        at = round(start_s * SAMPLE_RATE_HZ)  # the next sample to give
        if start_s > 2 * _PREROLL_S:
            target_s = origin + Fraction(start_s - _PREROLL_S).limit_denominator(1_000_000)
            try:
                seek(container, stream, target_s)
            except av.error.FFmpegError:
                container.seek(0)
        for first, block in _on_clock(_decoded(container, stream), origin):
            if first - at > _GAP_S * SAMPLE_RATE_HZ:  # a broken stamp: what follows cannot be placed
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
    expected = Fraction(0)
    for frame in frames:
        time = expected if frame.pts is None or frame.time_base is None else frame.pts * frame.time_base - origin
        before, form = form, (frame.sample_rate, frame.format.name, frame.layout.name)
        if graph is not None and (abs(time - expected) > _RESTART_S or form != before):  # broadcasts change channels
            graph.push(None)
            yield from _pulled(graph)
            graph = None
        if graph is None:
            graph = _graph(frame)
        expected = time + Fraction(frame.samples, frame.sample_rate)
        frame.pts, frame.time_base = round(time * frame.sample_rate), Fraction(1, frame.sample_rate)
        graph.push(frame)
        yield from _pulled(graph)
    if graph is not None:
        graph.push(None)
        yield from _pulled(graph)


def _origin_s(container: InputContainer, stream: AudioStream) -> Fraction:
    try:
        return zero_s(picture_stream(container))
    except MediaError:
        return zero_s(stream)


def _decoded(container: InputContainer, stream: AudioStream) -> Iterator[AudioFrame]:
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except (StopIteration, av.error.FFmpegError):
            return
        try:
            yield from packet.decode()
        except av.error.FFmpegError:
            continue


def _graph(frame: AudioFrame) -> Graph:
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
        f"{SAMPLE_RATE_HZ}:async=1:min_hard_comp={_JUMP_S}:out_sample_fmt=s16:out_chlayout=mono",
    )
    sink = graph.add("abuffersink")
    source.link_to(resample)
    resample.link_to(sink)
    try:
        graph.configure()
    except av.error.FFmpegError as error:  # channels that nobody knows how to mix
        raise MediaError("undecodable", f"sound of {frame.layout.name}: {error}") from None
    return graph


def _pulled(graph: Graph) -> Iterator[tuple[int, np.ndarray]]:
    while True:
        try:
            frame = graph.pull()
        except (av.error.BlockingIOError, av.error.EOFError):
            return
        assert isinstance(frame, AudioFrame)
        assert frame.pts is not None
        yield frame.pts, frame.to_ndarray().reshape(-1)
