"""Which packets must be decoded to see some pictures. PyAV."""

import itertools
from collections.abc import Collection
from fractions import Fraction
from pathlib import Path
from typing import TypeAlias

import av.error
from av.container import InputContainer
from av.video.stream import VideoStream

from manifests.records import RATE_HZ
from stages.container import Wanted, every_packet, only, opened, packets_of, picture_stream, zero_s

_CLOSED = (b" interlaced=0 ", b" open_gop=0 ", b" intra_refresh=0 ")
_NOTE = b"\x06\x05"  # how a NAL unit of free text begins: in the first, x264 says what it was asked for
_NOTE_BYTES = 4096
_LENGTH_BYTES = 4  # before each NAL unit in MP4
_UNREFERENCED = b"\x01"  # how a slice (type 1) begins of a picture that none refers to (nal_ref_idc 0)
_MOST_PACKETS = 600 * RATE_HZ
"""More are no clip, and over longer holes `stages.media` takes the clock for broken."""

_Coded: TypeAlias = tuple[int, bool, bool]
"""A packet's time stamp, whether a group begins with it, whether others may refer to it."""


def needed(path: Path, numbers: Collection[int]) -> Wanted:
    """The packets that must be decoded for these numbers of the 25 fps grid to come out as from a decode of all.

    They are known for what `stages.encode` writes: MP4 by x264 that by its own note keeps its groups closed, with one
    picture for every number. A group is decoded up to its last wanted picture, without the others that none refers to.
    Of anything else every packet is needed. Raises `MediaError`.
    """
    with opened(path) as container:
        stream = picture_stream(container)
        only(container, stream)
        packets = _packets(container, stream)
        first, tick_s = stream.start_time or 0, stream.time_base or Fraction(0)
    stamps = sorted(at for at, *_ in packets)
    if not packets or not numbers or [(at - first) * tick_s * RATE_HZ for at in stamps] != list(range(len(stamps))):
        return every_packet
    shown = {stamps[min(number, len(stamps) - 1)] for number in numbers}
    found: set[int] = set()
    waiting: list[int] = []  # of the group, since its last wanted picture
    for at, begins, referenced in packets:
        if begins:
            waiting.clear()
        if referenced or at in shown:
            waiting.append(at)
        if at in shown:
            found.update(waiting)
            waiting.clear()
    return lambda packet: packet.pts in found


def key_times_s(path: Path) -> list[float]:
    """When the key frames are shown, from the first picture on, in order. All packets are read. Raises `MediaError`."""
    with opened(path) as container:
        stream = picture_stream(container)
        only(container, stream)
        origin, tick_s = zero_s(stream), stream.time_base or Fraction(0)
        keys = (packet for packet in packets_of(container, stream) if packet.is_keyframe)
        stamps = [packet.dts if packet.pts is None else packet.pts for packet in keys]
    return sorted(float(stamp * tick_s - origin) for stamp in stamps if stamp is not None)


def _packets(container: InputContainer, stream: VideoStream) -> list[_Coded]:
    """In decoding order; none where what they say is not to be relied on."""
    found = (packet for packet in container.demux(stream) if packet.size)
    try:
        if "mp4" not in container.format.name or (first := next(found, None)) is None:
            return []
        note = bytes(memoryview(first)[_LENGTH_BYTES:_NOTE_BYTES])
        if not note.startswith(_NOTE) or not all(one in note for one in _CLOSED):
            return []
        packets = [
            (one.pts or 0, one.is_keyframe, bytes(memoryview(one)[_LENGTH_BYTES : _LENGTH_BYTES + 1]) != _UNREFERENCED)
            for one in itertools.chain([first], itertools.islice(found, _MOST_PACKETS))
        ]
    except av.error.FFmpegError:  # cut off
        return []
    return packets if len(packets) <= _MOST_PACKETS else []
