"""Files as the world writes them: B-frames in AVI, codecs that nobody knows, several programmes in one stream."""

import io
import struct
import subprocess
from fractions import Fraction
from pathlib import Path

import av
import av.error
import cv2
import imageio_ffmpeg
import numpy as np
import pytest
from av.video.frame import PictureType

from stages.container import decoded, opened, packets_of, picture_stream, sound_stream
from stages.media import MediaError, audio, frames, pictures, probe
from tests import media

OPEN = "open-gop=1:keyint=27:bframes=3:b-adapt=0:scenecut=0"
"""Groups whose first pictures to be shown come after their key frame, and need the group before."""


def encoded(path: Path, *coding: str, length_s: float = 6) -> Path:
    """Numbered pictures at 25 fps, coded by ffmpeg."""
    plain = media.numbered_video(path.with_name("plain.mkv"), media.times_at(Fraction(25), length_s))
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(plain), "-c:v", *coding, str(path)]
    subprocess.run(command, check=True)
    return path


def images(path: Path, **span) -> np.ndarray:
    return np.concatenate([batch.images for batch in frames(path, **span)])


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize(
    "coding", [("mpeg4", "-q:v", "2", "-bf", "2", "-g", "30"), ("libx264", "-x264-params", OPEN)], ids=lambda c: c[0]
)
def test_pictures_of_an_avi_with_b_frames_have_their_times_after_a_seek_as_well(tmp_path, coding, threads):
    path = encoded(tmp_path / "v.avi", *coding)
    for first in (0, 40, 76, 101, 130):
        seen = [media.read_number(i) for i in images(path, start_s=first / 25, end_s=first / 25 + 0.4, threads=threads)]
        assert seen == list(range(first, first + 10))


class HalfReadable(io.FileIO):
    """A file that makes no sense from its middle on."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell() > Path(self.name).stat().st_size // 2:
            raise av.error.InvalidDataError(0, "made no sense")
        return super().read(size)


def test_where_bytes_can_be_read_no_further_the_pictures_of_all_that_was_read_are_there(tmp_path):
    path = encoded(tmp_path / "v.mkv", "libx264", "-x264-params", OPEN)
    with av.open(HalfReadable(path), buffer_size=4096) as container:
        n_read = sum(packet.size > 0 for packet in packets_of(container, picture_stream(container)))
    with av.open(HalfReadable(path), buffer_size=4096) as container:
        seen = list(decoded(container, picture_stream(container)))
    assert 20 < len(seen) == n_read < 150


@pytest.mark.parametrize("suffix", [".ts", ".mpg"])
def test_no_picture_of_mpeg4_is_made_from_nothing_after_a_seek(tmp_path, suffix):
    path = encoded(tmp_path / f"v{suffix}", "mpeg4", "-q:v", "2", "-bf", "2", "-g", "40")
    whole = images(path)
    for first in (30, 55, 77, 110):
        part = images(path, start_s=first / 25, end_s=first / 25 + 0.4)
        assert np.array_equal(part, whole[first : first + 10]), first


def with_sounds(path: Path, n: int) -> Path:
    """Pictures and n times the same sound."""
    sound = media.Sound(samples=media.hum(1))
    plain = media.numbered_video(path.with_name("plain.mp4"), media.times_at(Fraction(25), 1), sound=sound)
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        tone = source.streams.audio[0]
        copies = [target.add_stream_from_template(one) for one in (source.streams.video[0], *[tone] * n)]
        for packet in list(source.demux()):
            for copy in copies[1:] if packet.stream is tone else copies[:1]:
                if packet.size:
                    packet.stream = copy
                    target.mux(packet)
    return path


def renamed(path: Path, *names: bytes, times: int) -> Path:
    """The first boxes of these names in an MP4 called by one that nobody knows."""
    data = path.read_bytes()
    for name in names:
        data = data.replace(name, b"n0ne", times)
    path.write_bytes(data)
    return path


def test_streams_that_nobody_can_decode_are_passed_over_and_refused_where_there_is_no_other(tmp_path):
    found = probe(renamed(with_sounds(tmp_path / "one.mp4", 2), b"mp4a", b"esds", times=1))
    assert found.audio is not None and found.n_audio_packets
    mute = renamed(with_sounds(tmp_path / "two.mp4", 2), b"mp4a", b"esds", times=2)
    blind = renamed(with_sounds(tmp_path / "three.mp4", 1), b"avc1", times=-1)
    for path, read in ((mute, probe), (mute, lambda path: list(audio(path))), (blind, probe), (blind, images)):
        with pytest.raises(MediaError) as caught:
            read(path)
        assert caught.value.reason == "undecodable"
    assert len(images(mute)) == 25 and len(list(audio(blind)))


def test_of_pictures_of_one_size_those_that_the_file_marks_are_watched_and_not_a_cover_before_them(tmp_path):
    film = media.numbered_video(tmp_path / "film.mkv", media.times_at(Fraction(25), 2))
    path, cover = tmp_path / "both.mkv", tmp_path / "cover.png"
    ffmpeg = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error"]
    subprocess.run([*ffmpeg, "-i", str(film), "-frames:v", "1", str(cover)], check=True)
    both = ["-i", str(cover), "-i", str(film), "-map", "0", "-map", "1", "-c", "copy"]
    subprocess.run([*ffmpeg, *both, "-disposition:v:0", "0", "-disposition:v:1", "default", str(path)], check=True)
    with opened(path) as container:
        assert [one.codec_context.name for one in container.streams.video] == ["png", "h264"]
    assert probe(path).duration_s == pytest.approx(2.0) and len(images(path)) == 50


def test_the_sound_of_a_transport_stream_is_that_of_the_programme_one_sees(tmp_path):
    sources = []
    for size, pitch in (("80x60", 300), ("160x120", 600)):
        sources += ["-f", "lavfi", "-i", f"testsrc=s={size}:d=1", "-f", "lavfi", "-i", f"sine={pitch}:d=1"]
    maps = [word for n in range(4) for word in ("-map", str(n))]
    both = ["-program", "title=a:st=0:st=1", "-program", "title=b:st=2:st=3", str(tmp_path / "v.ts")]
    coding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "aac"]
    subprocess.run([imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *sources, *maps, *coding, *both], check=True)
    with opened(tmp_path / "v.ts") as container:
        heard = sound_stream(container)
        assert heard is not None
        assert (picture_stream(container).width, heard.index) == (160, 3)


@pytest.mark.parametrize("rates", [("64k", "256k"), ("256k", "64k")])
@pytest.mark.parametrize("first", [("0:a", "1:v", "2:a", "3:a"), ("1:v", "2:a", "3:a", "0:a")], ids=["radio", "film"])
def test_of_several_sounds_of_a_programme_the_first_is_heard_whatever_their_rates(tmp_path, rates, first):
    sources = ["-f", "lavfi", "-i", "sine=100:d=1", "-f", "lavfi", "-i", "testsrc=s=80x60:d=1"]
    sources += ["-f", "lavfi", "-i", "sine=300:d=1", "-f", "lavfi", "-i", "sine=600:d=1"]
    radio = first.index("0:a")
    rest = [n for n in range(4) if n != radio]
    maps = [word for one in first for word in ("-map", one)]
    programmes = ["-program", f"title=a:st={radio}", "-program", "title=b:" + ":".join(f"st={n}" for n in rest)]
    coding = ["-c:v", "libx264", "-pix_fmt", "yuv420p", "-c:a", "mp2", f"-b:{radio}", "320k"]
    coding += [word for n, rate in zip(rest[1:], rates, strict=True) for word in (f"-b:{n}", rate)]
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *sources, *maps, *coding, *programmes]
    subprocess.run([*command, str(tmp_path / "v.ts")], check=True)
    with opened(tmp_path / "v.ts") as container:
        heard = sound_stream(container)
        assert heard is not None and heard.id == 0x100 + rest[1]


def test_pictures_with_notes_of_a_camera_that_pyav_has_no_name_for_are_read(tmp_path):
    """EXIF in every picture of a Motion JPEG."""
    note = b"Exif\0\0II*\0" + struct.pack("<IHHHI4sI", 8, 1, 0x0131, 2, 4, b"abc", 0)
    plain = cv2.imencode(".jpg", media.numbered(5, 160, 96))[1].tobytes()
    noted = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(note) + 2) + note + plain[2:]
    with av.open(str(tmp_path / "v.avi"), "w") as target:
        stream = target.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuvj420p"
        target.start_encoding()
        for n in range(10):
            packet = av.Packet(noted)
            packet.stream, packet.pts, packet.dts, packet.time_base = stream, n, n, Fraction(1, 25)
            target.mux(packet)
    assert [media.read_number(image) for image in images(tmp_path / "v.avi")] == [5] * 10


def test_rough_pictures_are_almost_the_same_and_no_other_is_made_from_those_that_are_not(tmp_path):
    path = encoded(tmp_path / "v.mkv", "libx264", "-crf", "40", "-x264-params", "bframes=3", length_s=2)
    good, rough = images(path).astype(int), images(path, rough=True).astype(int)
    off = np.abs(good - rough).mean(axis=(1, 2, 3))
    with av.open(str(path)) as container:
        kinds = [frame.pict_type for frame in container.decode(video=0)]
    made_from = np.array([kind != PictureType.B for kind in kinds])
    assert not off[made_from].any() and 0 < off.max() < 2


def test_no_thread_of_a_decoder_waits_for_python_to_tell_it_a_message(tmp_path):
    """It would for ever, where Python waits for the thread's end: torchvision asks for messages when it is imported."""
    path = encoded(tmp_path / "v.avi", "libx264", "-x264-params", OPEN, length_s=1)
    av.logging.set_level(av.logging.ERROR)
    try:
        images(path, threads=3)
        assert av.logging.get_level() is None
    finally:
        av.logging.set_level(None)


def plain(path: Path, width_px: int, height_px: int, **kind) -> Path:
    look = media.Look(b_frames=0)
    times = media.times_at(Fraction(25), 1.0, **kind)
    return media.numbered_video(path, times, width_px=width_px, height_px=height_px, look=look)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts"])
def test_pictures_beyond_8k_are_refused_before_any_is_decoded(tmp_path, monkeypatch, suffix):
    def reason(path: Path) -> str:
        with pytest.raises(MediaError) as caught:
            probe(path)
        return str(caught.value)

    assert reason(plain(tmp_path / f"side{suffix}", 8200, 32)) == "picture_too_large: 8200 x 32 px"
    path = plain(tmp_path / f"area{suffix}", 320, 240)
    monkeypatch.setattr("stages.container.MOST_PX", 320 * 240)
    assert probe(path).video.width_px == 320
    monkeypatch.setattr("stages.container.MOST_PX", 320 * 240 - 1)
    assert reason(path) == "picture_too_large: 320 x 240 px"


def test_pictures_that_become_too_large_midway_are_left_out_as_damaged_ones_are(tmp_path, monkeypatch):
    parts = [
        plain(tmp_path / f"{n}.ts", *size, start_s=n).read_bytes()
        for n, size in enumerate([(320, 240), (640, 480), (320, 240)])
    ]
    (tmp_path / "v.ts").write_bytes(b"".join(parts))
    monkeypatch.setattr("stages.container.MOST_PX", 320 * 240)
    shown = [media.read_number(image) for image in images(tmp_path / "v.ts")]
    assert shown == [*range(25), *[24] * 25, *range(25)]
    assert max(picture.frame.width for picture in pictures(tmp_path / "v.ts")) == 320


def test_a_sound_that_begins_after_megabytes_of_an_flv_ends_it_and_is_no_crash(tmp_path):
    """FLV names no streams beforehand: FFmpeg looks for them in the first five megabytes."""
    noise = ("-f", "lavfi", "-i", "nullsrc=s=320x240:r=25:d=2,geq=random(1)*255:128:128", "-c:v", "flv1", "-q:v", "1")
    for name, given in {"v": noise, "a": ("-f", "lavfi", "-i", "sine=d=1", "-c:a", "libmp3lame")}.items():
        command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", *given, str(tmp_path / f"{name}.flv")]
        subprocess.run(command, check=True)
    pictures_alone, sound = ((tmp_path / f"{name}.flv").read_bytes() for name in "va")
    late = tmp_path / "late.flv"
    late.write_bytes(pictures_alone + sound[13:])  # past its header
    assert len(pictures_alone) > 5_000_000
    found = probe(late)
    assert found.audio is None and found.video is not None
    assert len(images(late)) == pytest.approx(50, abs=1)
