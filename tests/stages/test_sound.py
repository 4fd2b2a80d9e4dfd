"""Sound where its file is not as it should be: stamps that jitter, channels in opposite phase, an index of pictures."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from stages.media import audio, audio_array
from tests import media

TIMES = media.times_at(Fraction(25), 6)
CLICKS_S = [1.0, 3.0, 4.5]


def sound_of(path: Path) -> np.ndarray:
    return np.concatenate(list(audio(path)))


def stamped(path: Path, source: Path, late_s: Callable[[int, float], float]) -> Path:
    """A copy whose sound packets, by their number and time, are stamped so much later."""
    with av.open(str(source)) as given, av.open(str(path), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in given.streams}
        n = 0
        for packet in given.demux():
            if packet.size and packet.stream.type == "audio":
                packet.pts += round(late_s(n, float(packet.pts * packet.time_base)) / packet.time_base)
                packet.dts = min(packet.dts, packet.pts)
                n += 1
            if packet.size:
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    return path


def click_track(folder: Path) -> Path:
    return media.click_flash(folder / "plain.mkv", TIMES, CLICKS_S, audio_codec="pcm_s16le", audio_rate_hz=16_000)


@pytest.mark.parametrize(
    "late_s",
    [
        lambda n, time_s: 0.015 * (n % 2),
        lambda n, time_s: 0.02 * np.sin(1.3 * n),
        lambda n, time_s: 3.0 * (n == 50),
        lambda n, time_s: 3.0 * (n == 0),
        lambda n, time_s: 95_443.0 * (n == 0),  # a transport stream's clock, which begins anew then
        lambda n, time_s: 0.03 * (n % 20 == 7),
    ],
    ids=["every second", "a wave", "a broken one", "a broken first", "a first of before", "now and then"],
)
def test_sound_whose_stamps_jitter_stays_whole(tmp_path, late_s):
    """Live recordings are stamped as their packets arrive."""
    plain = click_track(tmp_path)
    assert np.array_equal(sound_of(stamped(tmp_path / "late.mkv", plain, late_s)), sound_of(plain))


@pytest.mark.parametrize("step_s", [0.02, 0.04, -0.02, 0.7])
@pytest.mark.parametrize("jitter_s", [0.0, 0.015])
def test_a_step_of_the_stamps_that_lasts_is_followed(tmp_path, step_s, jitter_s):
    path = stamped(
        tmp_path / "step.mkv",
        click_track(tmp_path),
        lambda n, time_s: step_s * (time_s > 2) + jitter_s * (n % 2),
    )
    wanted = np.array(CLICKS_S) + np.array([0, step_s, step_s])
    heard = np.array(media.click_times(sound_of(path)))
    assert len(heard) == 3 and np.abs(heard - wanted - jitter_s / 2).max() < (0.01 if jitter_s else 0.002)


def slowed(path: Path, source: Path, slower: int) -> Path:
    """A copy of an MP4 whose sound, as its header has it, lasts so many times as long as it does."""
    data = bytearray(source.read_bytes())
    at = data.rindex(b"mdhd", 0, data.index(b"soun")) + 16  # the clock of that track, in ticks a second
    data[at : at + 4] = (int.from_bytes(data[at : at + 4], "big") // slower).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    return path


@pytest.mark.parametrize("slower", [1000, 16_000])
def test_a_clock_that_is_broken_as_a_whole_makes_no_days_of_silence(tmp_path, slower):
    sound = media.Sound(samples=media.hum(6, rate_hz=16_000), rate_hz=16_000)
    pictures = ((time, media.numbered(n)) for n, time in enumerate(TIMES))
    in_pieces = {"movflags": "frag_keyframe+empty_moov+default_base_moof", "use_editlist": "0"}
    plain = media.write_video(tmp_path / "plain.mp4", pictures, sound=sound, options=in_pieces)
    length_s = sum(len(block) for block in audio(slowed(tmp_path / "slow.mp4", plain, slower))) / 16_000
    assert length_s < 700


def test_a_quarter_of_an_hour_without_sound_is_silence_where_there_are_pictures(tmp_path):
    plain, path = media.click_flash(tmp_path / "plain.mp4", TIMES, CLICKS_S), tmp_path / "long.mp4"
    with av.open(str(plain)) as given, av.open(str(path), "w") as target:
        streams = {s.index: target.add_stream_from_template(s) for s in given.streams}
        for packet in given.demux():
            if packet.size:
                if packet.dts * packet.time_base > 2:
                    packet.pts += round(900 / packet.time_base)
                    packet.dts += round(900 / packet.time_base)
                packet.stream = streams[packet.stream.index]
                target.mux(packet)
    assert media.click_times(sound_of(path)) == pytest.approx([1.0, 903.0, 904.5], abs=0.03)


def pictured(path: Path, ahead_s: float = 0.0) -> Path:
    """30 s of big pictures, nearly all of the bytes; their sound may lie ahead of them in the file."""
    raw, samples = path.with_name("raw.mkv"), media.hum(30, rate_hz=16_000, channels=1)
    sound = media.Sound(samples=samples, codec="pcm_s16le", rate_hz=16_000)
    look = media.Look(codec="mjpeg", full_range=True, b_frames=0)
    rng = np.random.default_rng(0)
    noise = [rng.integers(0, 255, (120, 160, 3), np.uint8) for _ in range(5)]
    pictures = ((time, noise[n % 5]) for n, time in enumerate(media.times_at(Fraction(25), 30)))
    media.write_video(raw, pictures, look=look, sound=sound)
    with av.open(str(raw)) as given, av.open(str(path), "w", options={"max_interleave_delta": "1"}) as target:
        streams = {s.index: target.add_stream_from_template(s) for s in given.streams}
        packets = [packet for packet in given.demux() if packet.size]
        for packet in sorted(packets, key=lambda p: p.dts * p.time_base - ahead_s * (p.stream.type == "audio")):
            packet.stream = streams[packet.stream.index]
            target.mux(packet)
    return path


def bytes_read() -> int:
    return int(Path("/proc/self/io").read_text().split()[1])


def test_the_sound_of_a_late_clip_in_matroska_is_read_without_what_lies_before_it(tmp_path):
    path = pictured(tmp_path / "v.mkv")
    whole = sound_of(path)
    before = bytes_read()
    part = audio_array(path, start_s=26.0, end_s=27.0)
    assert bytes_read() - before < path.stat().st_size / 3
    assert np.abs(part.astype(int) - whole[416_000:432_000]).max() <= 1


def test_sound_that_lies_before_the_pictures_of_its_time_is_found(tmp_path):
    path = pictured(tmp_path / "v.mkv", ahead_s=3.0)
    part = audio_array(path, start_s=6.0, end_s=7.0)
    assert np.abs(part.astype(int) - sound_of(path)[96_000:112_000]).max() <= 1


@pytest.mark.parametrize("suffix", [".flv", ".mkv", ".mp4", ".ts"])
def test_a_part_before_the_first_sound_is_silence_up_to_it(tmp_path, suffix):
    path = media.click_flash(
        tmp_path / f"v{suffix}", TIMES, [2.5], audio_codec="mp3", audio_rate_hz=44_100, audio_start_s=1.8
    )
    part = audio_array(path, start_s=1.2, end_s=3.2)
    assert media.click_times(part) == pytest.approx([1.3], abs=0.002)
    assert np.abs(part[:8000].astype(int)).max() < 100


@pytest.mark.parametrize("codec", ["aac", "pcm_s16le"])
def test_channels_in_opposite_phase_do_not_silence_each_other(tmp_path, codec):
    left = np.convolve(media.hum(4, channels=1), np.ones(24), "same").astype(np.int16)  # as low as voices
    left[:48_000] //= 100  # as good as silent at first
    levels = {}
    for name, right in (("alike", left), ("opposed", -left), ("apart", np.roll(left, 24_000))):
        sound = media.Sound(samples=np.stack([left, right], axis=1), codec=codec)
        path = media.numbered_video(tmp_path / f"{name}.mkv", media.times_at(Fraction(25), 4), sound=sound)
        heard = sound_of(path)
        levels[name] = float(heard[32_000:60_000].std())
        part = audio_array(path, start_s=2.0, end_s=3.0)
        assert part.std() == pytest.approx(heard[32_000:48_000].std(), rel=0.02), name
    assert levels["opposed"] == pytest.approx(levels["alike"], rel=0.1)
    assert levels["apart"] == pytest.approx(levels["alike"] / np.sqrt(2), rel=0.1), "the mean of both"
