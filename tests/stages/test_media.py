"""Media read right to the frame: the 25 fps grid, the sound on the same clock, and bad files that say what is wrong."""

import json
import resource
import struct
import subprocess
import tracemalloc
from fractions import Fraction
from pathlib import Path

import av
import imageio_ffmpeg
import numpy as np
import pytest
from av.video.frame import VideoFrame

from stages.media import Frames, MediaError, audio, audio_array, frames, frames_at, pictures, probe
from stages.picture import Picture, Shape
from tests import media
from tests.benchmarks.counts import counted

FRAME_S = 1 / 25
CLIPS = Path(__file__).parents[3] / "shared" / "clips"


def numbers(path: Path, **span) -> list[int]:
    return [media.read_number(image) for batch in frames(path, **span) for image in batch.images]


def images(path: Path, **span) -> np.ndarray:
    return np.concatenate([batch.images for batch in frames(path, **span)])


def sound_of(path: Path, **span) -> np.ndarray:
    return np.concatenate([np.zeros(0, np.int16), *audio(path, **span)])


def colour_bars(width: int, height: int) -> np.ndarray:
    corners = np.array([[(40, 40, 200), (40, 180, 40)], [(200, 60, 40), (128, 128, 128)]], np.uint8)
    return np.repeat(np.repeat(corners, height // 2, axis=0), width // 2, axis=1)


@pytest.mark.parametrize("suffix", [".mp4", ".mkv"])
@pytest.mark.parametrize("rate", media.RATES)
def test_the_grid_shows_the_nearest_frame_at_every_rate(tmp_path, rate, suffix):
    times = media.times_at(media.RATES[rate], 6)
    path = media.numbered_video(tmp_path / f"v{suffix}", times)
    for start_s in (0.0, 3.32):
        seen = numbers(path, start_s=start_s, batch=16)
        error = [float(times[n]) - start_s - k * FRAME_S for k, n in enumerate(seen)]
        assert max(map(abs, error)) <= min(0.5 / float(media.RATES[rate]), 0.02) + 0.0025
        assert abs(np.mean(error)) < 0.003
        assert abs(len(seen) - (6 - start_s) * 25) <= 1


@pytest.mark.parametrize("suffix", [".mp4", ".mkv", ".ts", ".flv", ".avi", ".webm"])
def test_25_fps_passes_one_to_one_in_every_container(tmp_path, suffix):
    look = media.Look()
    if suffix == ".avi":
        look = media.Look(tick_s=Fraction(1, 25))  # with B-frames, which AVI has no times for
    if suffix == ".webm":
        look = media.Look(codec="libvpx-vp9")
    path = media.numbered_video(tmp_path / f"v{suffix}", media.times_at(Fraction(25), 6), look=look)
    assert numbers(path) == list(range(150))
    assert numbers(path, start_s=2.2, end_s=4.0) == list(range(55, 100))
    found = probe(path)
    assert found.duration_s == pytest.approx(6, abs=0.021) and found.n_packets == 150


def test_a_variable_rate_is_followed_and_its_holes_are_held(tmp_path):
    times = media.times_variable(6)
    path = media.numbered_video(tmp_path / "v.mp4", times)
    real = np.array([float(t) for t in times])
    for k, n in enumerate(numbers(path)):
        nearest = np.abs(real - k * FRAME_S).min()
        assert real[n] <= k * FRAME_S + 0.0201
        late = k * FRAME_S - real[n]
        held = n + 1 == len(real) or real[n + 1] > k * FRAME_S + 0.0199 or late <= nearest + 1e-4
        assert held, (k, n, late)


def test_pictures_that_start_late_or_early_keep_their_sound(tmp_path):
    for first in (0.5, -0.5, 0.0):
        times = media.times_at(Fraction(25), 4, first)
        path = media.click_flash(tmp_path / f"{first}.mp4", times, [1.0, 2.5])
        zero = max(first, 0.0)  # what an edit cuts off is not shown
        flashes = np.array(media.flash_frames(images(path).mean(axis=(1, 2, 3)))) * FRAME_S
        assert np.abs(flashes - (np.array([1.0, 2.5]) - zero)).max() <= FRAME_S
        assert np.abs(np.array(media.click_times(sound_of(path))) - (np.array([1.0, 2.5]) - zero)).max() < 0.002


@pytest.mark.parametrize(
    ("suffix", "codec", "rate_hz"),
    [
        (".mp4", "aac", 44_100),
        (".mp4", "mp3", 48_000),
        (".mkv", "libopus", 48_000),
        (".ts", "aac", 48_000),
        (".flv", "aac", 44_100),
        (".mkv", "pcm_s16le", 22_050),
    ],
)
@pytest.mark.parametrize("start_s", [0.0, 2.0])
def test_sound_lies_where_it_was_recorded(tmp_path, suffix, codec, rate_hz, start_s):
    events = [0.5, 1.0, 2.6, 3.3]
    for late_s in (0.0, 0.3):
        path = media.click_flash(
            tmp_path / f"{late_s}{suffix}",
            media.times_at(Fraction(25), 4),
            events,
            audio_codec=codec,
            audio_rate_hz=rate_hz,
            audio_start_s=late_s,
        )
        heard = media.click_times(sound_of(path, start_s=start_s))
        wanted = [e - start_s for e in events if e >= start_s]
        assert len(heard) == len(wanted) and np.abs(np.array(heard) - wanted).max() < 0.002
        exact = audio_array(path, start_s=start_s, end_s=start_s + 1.5)
        assert exact.dtype == np.int16 and len(exact) == 24_000
        assert np.array_equal(exact, sound_of(path, start_s=start_s)[:24_000])


def test_a_hole_in_the_sound_is_silence_of_its_length(tmp_path):
    path = media.click_flash(tmp_path / "v.mkv", media.times_at(Fraction(25), 6), [1.0, 5.0], audio_codec="pcm_s16le")
    holed = tmp_path / "holed.mkv"
    with av.open(str(path)) as source, av.open(str(holed), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in source.streams}
        for packet in source.demux():
            if not packet.size or (packet.stream.type == "audio" and 2.0 < packet.pts * packet.time_base < 4.0):
                continue
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    assert np.abs(np.array(media.click_times(sound_of(holed))) - [1.0, 5.0]).max() < 0.002


def test_without_sound_there_is_silence_of_the_wanted_length(tmp_path):
    path = media.numbered_video(tmp_path / "v.mp4", media.times_at(Fraction(25), 1))
    assert list(audio(path)) == [] and probe(path).audio is None
    assert audio_array(path, start_s=0.2, end_s=1.0).tolist() == [0] * 12_800


def as_ffmpeg_shows(path: Path) -> np.ndarray:
    """The first picture's bytes, BGR, as the ffmpeg program turns it."""
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-v", "error", "-i", str(path), "-frames:v", "1"]
    shown = subprocess.run(
        [*command, "-f", "rawvideo", "-pix_fmt", "bgr24", "-"], capture_output=True, check=True, timeout=60
    )
    return np.frombuffer(shown.stdout, np.uint8)


@pytest.mark.parametrize("turn", [90, 180, -90])
def test_turned_pictures_come_upright_as_ffmpeg_shows_them(tmp_path, turn):
    bars = colour_bars(160, 96)
    path = media.painted_video(tmp_path / "v.mp4", lambda _: bars, 0.5, look=media.Look(rotation_deg=turn))
    found = probe(path).video
    assert (found.width_px, found.height_px) == ((160, 96) if turn == 180 else (96, 160))
    shown = images(path)[0]
    expected = as_ffmpeg_shows(path).reshape(shown.shape)
    assert np.abs(shown.astype(int) - expected).mean() < 4
    box = (8.0, 16.0, 72.0, 80.0)
    crop = next(pictures(path)).crop(box, 64)
    assert np.abs(crop.astype(int) - expected[16:80, 8:72]).mean() < 6


@pytest.mark.parametrize(("turn", "mirror"), [(90, {"hflip": True}), (0, {"vflip": True}), (0, {"hflip": True})])
def test_a_mirrored_picture_is_mirrored_back(tmp_path, turn, mirror):
    bars = colour_bars(160, 96)
    plain = media.painted_video(tmp_path / "v.mp4", lambda _: bars, 0.5)
    path = tmp_path / "mirrored.mp4"
    with av.open(str(plain)) as source, av.open(str(path), "w") as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        stream.set_display_rotation(turn, **mirror)
        for packet in source.demux(source.streams.video[0]):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    shown = images(path)[0]
    assert np.abs(shown.astype(int) - as_ffmpeg_shows(path).reshape(shown.shape)).mean() < 4
    crop = next(pictures(path)).crop((16.0, 24.0, 80.0, 88.0), 64)
    assert np.abs(crop.astype(int) - shown[24:88, 16:80]).mean() < 6


def test_wide_pixels_are_made_square(tmp_path):
    look = media.Look(pixel_aspect=Fraction(4, 3))
    path = media.numbered_video(tmp_path / "v.mp4", media.times_at(Fraction(25), 1), width_px=180, look=look)
    found = probe(path).video
    assert (found.width_px, found.height_px) == (240, 96)
    assert images(path).shape[1:3] == (96, 240) and numbers(path) == list(range(25))
    crop = next(pictures(path)).crop((0.0, 0.0, 96.0, 96.0), 96)
    assert np.abs(crop.astype(int) - images(path)[0, :, :96]).mean() < 6


def test_colours_are_those_that_were_filmed(tmp_path):
    bars = colour_bars(160, 96)
    for colorspace, full, pix_fmt in (
        (1, False, "yuv420p"),
        (6, False, "yuv420p"),
        (2, False, "yuv420p"),  # untagged and small: BT.601
        (1, True, "yuv420p"),
        (6, True, "yuv444p"),
        (1, False, "yuv420p10le"),
    ):
        look = media.Look(colorspace=colorspace, full_range=full, pix_fmt=pix_fmt, crf=4)
        path = media.painted_video(tmp_path / "v.mkv", lambda _: bars, 0.2, look=look)
        crop = next(pictures(path)).crop((0.0, 0.0, 96.0, 96.0), 96)
        for image, right in ((images(path)[0], 120), (crop, 90)):
            for y, x in ((24, 40), (72, 40), (24, right), (72, right)):
                assert np.abs(image[y, x].astype(int) - bars[y, x]).max() <= 6, (colorspace, full, pix_fmt)


def test_single_frames_are_those_of_the_whole_and_nothing_after_them_is_decoded(tmp_path):
    path = media.numbered_video(tmp_path / "v.mp4", media.times_at(Fraction(30_000, 1001), 6))
    with counted() as counts:
        found = dict(frames_at(path, {3, 40, 41}))
    assert list(found) == [3, 40, 41] and counts.decoded[str(path)] < 100
    whole = images(path)
    assert all(np.array_equal(image, whole[k]) for k, image in found.items())
    assert list(frames_at(path, {148, 999})) != [] and list(frames_at(path, set())) == []


def test_batches_are_scaled_and_numbered(tmp_path):
    path = media.numbered_video(tmp_path / "v.mp4", media.times_at(Fraction(25), 3), width_px=320, height_px=180)
    batches = list(frames(path, short_side_px=90, batch=32))
    assert [b.first_frame for b in batches] == [0, 32, 64]
    assert [len(b.images) for b in batches] == [32, 32, 11]
    assert all(isinstance(b, Frames) and b.scale == 0.5 for b in batches)
    assert {image.shape for b in batches for image in b.images} == {(90, 160, 3)}
    assert next(frames(path, short_side_px=999)).scale == 1.0


def test_a_picture_that_is_held_is_converted_and_kept_in_memory_once(tmp_path):
    path = media.numbered_video(tmp_path / "v.mp4", media.times_at(Fraction(5), 4))
    (batch,) = frames(path, batch=100)
    assert len(batch.images) == 100 and len({id(image) for image in batch.images}) == 20


def test_odd_and_huge_sizes_are_read(tmp_path):
    odd = media.numbered_video(
        tmp_path / "o.mp4",
        media.times_at(Fraction(25), 1),
        width_px=161,
        height_px=97,
        look=media.Look(pix_fmt="yuv444p"),
    )
    assert numbers(odd) == list(range(25)) and next(pictures(odd)).crop((90.0, 30.0, 161.0, 97.0), 64).shape[0] == 64
    huge = media.numbered_video(tmp_path / "h.mp4", media.times_at(Fraction(25), 0.08), width_px=7680, height_px=4320)
    assert numbers(huge, short_side_px=270) == [0, 1]


def test_a_crop_between_pixels_moves_by_the_fraction_it_should_in_all_colours(tmp_path):
    rise = np.clip(100 + 6.0 * (np.arange(160) - 66), 40, 220)  # within 30 pixels, inside the window
    slope = np.tile(np.stack([rise, 260 - rise, np.full(160, 100.0)], axis=-1).astype(np.uint8), (96, 1, 1))
    for pix_fmt in ("yuv420p", "yuv444p", "yuv420p10le"):
        look = media.Look(crf=1, pix_fmt=pix_fmt)
        picture = next(pictures(media.painted_video(tmp_path / "v.mkv", lambda _: slope, 0.2, look=look)))
        for size in (32, 64, 128):
            base = picture.crop((40.0, 16.0, 104.0, 80.0), size).astype(float)
            for shift in (0.5, 1.0, 2.5, 3.25):
                moved = picture.crop((40.0 + shift, 16.0, 104.0 + shift, 80.0), size).astype(float)
                grown = (moved - base).mean(axis=(0, 1)) / (180 / 64)
                assert np.abs(grown - np.array([shift, -shift, 0])).max() < 0.15, (pix_fmt, size, shift)


def test_a_crop_has_the_very_colours_that_are_coded():
    rng, off = np.random.default_rng(0), []
    for y, u, v in rng.uniform((60, 112, 112), (190, 144, 144), (40, 3)).round():
        for pix_fmt in ("yuv420p", "yuv422p", "yuv444p"):
            frame = VideoFrame(64, 48, pix_fmt)
            for plane, level in zip(frame.planes, (y, u, v), strict=True):
                plane.update(bytes([int(level)]) * plane.buffer_size)
            found = Picture(0, frame, Shape.of(frame, None)).crop((8.0, 4.0, 48.0, 44.0), 64).mean(axis=(0, 1))
            light, blue, red = (y - 16) * 255 / 219, (u - 128) * 255 / 224, (v - 128) * 255 / 224
            off.append(found - (light + 1.772 * blue, light - 0.3441 * blue - 0.7141 * red, light + 1.402 * red))
    assert np.abs(np.mean(off, axis=0)).max() < 0.1 and np.abs(off).max() < 1.0  # packed BGR: green 1.4 too low


def test_a_crop_that_leaves_the_picture_repeats_its_border(tmp_path):
    bars = colour_bars(160, 96)
    picture = next(pictures(media.painted_video(tmp_path / "v.mp4", lambda _: bars, 0.2, look=media.Look(crf=4))))
    for fraction in (0.0, 0.4):
        half_out = picture.crop((-32.0 + fraction, 8.0, 32.0 + fraction, 72.0), 64).astype(int)
        inside = picture.crop((0.0, 8.0, 64.0, 72.0), 64).astype(int)
        assert (
            np.abs(half_out[:, :32] - inside[:, :1]).max() <= 4 and np.abs(half_out[8:24, 40:] - bars[24, 8]).max() <= 6
        )
        for box, corner in (((-300.0, -300.0), (0, 0)), ((400.0, 30.0), (0, -1)), ((40.0, 500.0), (-1, 0))):
            x, y = box[0] + fraction, box[1] + fraction
            far = picture.crop((x, y, x + 16, y + 16), 32)
            assert np.abs(far.astype(int) - bars[corner]).max() <= 6


def reason(path: Path) -> str:
    with pytest.raises(MediaError) as caught:
        probe(path)
    return caught.value.reason


def test_bad_files_say_what_is_wrong(tmp_path):
    (tmp_path / "empty.mp4").write_bytes(b"")
    assert reason(tmp_path / "empty.mp4") == "empty"
    assert reason(media.not_a_video(tmp_path / "page.mp4")) == "not_a_video"
    assert reason(media.with_cover_art(tmp_path / "song.mp4")) == "no_video_stream"
    (tmp_path / "list.m3u8").write_text("#EXTM3U\n#EXTINF:4,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n")
    assert reason(tmp_path / "list.m3u8") == "not_a_video"
    good = media.numbered_video(tmp_path / "v.mp4", media.times_at(Fraction(25), 4))
    assert reason(media.cut_off(good, tmp_path / "cut.mp4", 0.6)) == "truncated"
    with pytest.raises(FileNotFoundError):
        probe(tmp_path / "none.mp4")


def test_a_file_cut_off_on_its_way_is_as_long_as_what_arrived(tmp_path):
    good = media.numbered_video(tmp_path / "v.mkv", media.times_at(Fraction(25), 8), width_px=320, height_px=180)
    found = probe(media.cut_off(good, tmp_path / "cut.mkv", 0.5))
    assert found.declared_s == pytest.approx(8, abs=0.05) and 1 < found.duration_s < 7
    seen = numbers(tmp_path / "cut.mkv")
    assert abs(len(seen) * FRAME_S - found.duration_s) <= 2 * FRAME_S
    front = tmp_path / "front.mp4"
    media.write_video(
        front,
        ((t, media.numbered(i, 320, 180)) for i, t in enumerate(media.times_at(Fraction(25), 8))),
        options={"movflags": "faststart"},
    )
    found = probe(media.cut_off(front, tmp_path / "cut.mp4", 0.5))
    assert found.declared_s == pytest.approx(8, abs=0.05) and 1 < found.duration_s < 7


def test_pictures_that_an_edit_list_hides_at_the_end_do_not_count(tmp_path):
    path = media.numbered_video(tmp_path / "v.mp4", media.times_at(Fraction(25), 4))
    data = bytearray(path.read_bytes())
    at = data.index(b"elst") + 12  # past kind, version and number of edits: how long the first is shown, in ms
    assert struct.unpack_from(">I", data, at) == (4000,)
    struct.pack_into(">I", data, at, 1520)
    path.write_bytes(data)
    assert probe(path).duration_s == pytest.approx(1.52, abs=0.001) and numbers(path) == list(range(38))


def test_a_damaged_middle_is_held_over_and_the_rest_is_in_place(tmp_path):
    times = media.times_at(Fraction(25), 12)
    good = media.numbered_video(tmp_path / "v.mp4", times, width_px=320, height_px=180)
    bad = media.scarred(good, tmp_path / "bad.mp4", 0.45, 0.5)
    seen = numbers(bad)
    assert len(seen) == 300
    right = np.array([n == k for k, n in enumerate(seen)])
    assert right[:100].all() and right[200:].all()


def test_clocks_that_jump_or_stand_still_are_refused_not_followed(tmp_path):
    jump = [*media.times_at(Fraction(25), 1), *media.times_at(Fraction(25), 1, 5000)]
    with pytest.raises(MediaError, match="timestamps"):
        numbers(media.numbered_video(tmp_path / "v.mkv", jump))


def test_memory_does_not_grow_with_length(tmp_path):
    still = np.zeros((180, 320, 3), np.uint8)
    path = media.write_video(
        tmp_path / "v.mp4",
        ((t, still) for t in media.times_at(Fraction(25), 150)),
        sound=media.Sound(samples=media.hum(150, rate_hz=16_000, channels=1), rate_hz=16_000),
    )
    for _ in frames(path, end_s=20):
        pass
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    tracemalloc.start()
    n = sum(len(batch.images) for batch in frames(path))
    samples = sum(len(block) for block in audio(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (n, round(samples / 16_000)) == (3750, 150)
    batch_bytes = 64 * 180 * 320 * 3
    assert peak < 4 * batch_bytes  # all pictures at once would be 650 MB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000


@pytest.mark.real
def test_real_files_are_as_long_as_their_index_says():
    if not CLIPS.exists():
        pytest.skip("no real footage at ../shared/clips")
    listed = [c for c in json.loads((CLIPS / "INDEX.json").read_text()) if c.get("w") and c.get("dur", 99) < 12]
    for clip in listed[::8]:
        found = probe(CLIPS / clip["file"])
        assert {found.video.width_px, found.video.height_px} == {clip["w"], clip["h"]}, clip["file"]
        assert found.duration_s == pytest.approx(clip["dur"], abs=0.25), clip["file"]
        seen = sum(len(batch.images) for batch in frames(CLIPS / clip["file"], short_side_px=90))
        assert abs(seen - found.duration_s * 25) <= 2, clip["file"]
