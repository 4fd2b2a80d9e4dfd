"""Move a clip's sound against its picture without encoding anything, as LatentSync does with `-itsoffset -c copy`."""

import io
import tempfile
import wave
from fractions import Fraction
from pathlib import Path

from manifests.records import RATE_HZ, SAMPLES_PER_FRAME
from manifests.scratch import prefix


def shift_audio(video: Path, audio: Path, *, frames: int) -> tuple[bytes, bytes]:
    """The mp4 and the wav with the sound `frames` (at 25 fps) earlier; later if negative. Lengths stay.

    What moves past an end is cut off; what is missing at the other end is silence in the wav and absent in the mp4.
    """
    return _shift_mp4(video, frames), _shift_wav(audio, frames)


def _shift_wav(audio: Path, frames: int) -> bytes:
    with wave.open(str(audio), "rb") as source:
        form, data = source.getparams(), source.readframes(source.getnframes())
    moved = abs(frames) * SAMPLES_PER_FRAME * form.sampwidth * form.nchannels
    silence = bytes(min(moved, len(data)))
    shifted = data[moved:] + silence if frames > 0 else silence + data[: max(len(data) - moved, 0)]
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as target:
        target.setparams(form)
        target.writeframes(shifted)
    return buffer.getvalue()


def _shift_mp4(video: Path, frames: int) -> bytes:
    import av

    # A real file: "faststart" moves the index to the front by reading the file again, by its name.
    with tempfile.TemporaryDirectory(prefix=prefix("shift")) as folder, av.open(str(video)) as source:
        shifted = Path(folder) / video.name
        picture, sound = source.streams.video[0], source.streams.audio
        if not sound:
            return video.read_bytes()
        # Every pts in the clip counts from here, so the last sample may not begin after it.
        end_s = Fraction(picture.frames, RATE_HZ)
        with av.open(str(shifted), "w", format="mp4", options={"movflags": "+faststart"}) as target:
            streams = {one.index: target.add_stream_from_template(one) for one in (picture, sound[0])}
            for packet in source.demux(picture, sound[0]):
                if packet.dts is None or packet.time_base is None:
                    continue
                if packet.stream.type == "audio":
                    moved = round(Fraction(frames, RATE_HZ) / packet.time_base)
                    packet.pts, packet.dts = (packet.pts or 0) - moved, packet.dts - moved
                    if packet.dts < 0 or packet.dts * packet.time_base >= end_s:
                        continue
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
        return shifted.read_bytes()
