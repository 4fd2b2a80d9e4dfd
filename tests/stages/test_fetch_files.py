"""Own files and buckets are copied in, and of a longer source the wanted part is stored, to the frame."""

import shutil
import subprocess
from fractions import Fraction
from pathlib import Path

import fsspec
import numpy as np
import pytest

from manifests.records import MISSING, Source
from pipeline.stage import PostponedError
from stages.ffmpeg import ffmpeg_path
from stages.media import audio_array, frames, probe
from stages.outcomes import NetworkError
from tests.media import (
    Look,
    Sound,
    click_flash,
    click_times,
    clicks,
    cut_off,
    flash_frames,
    hum,
    not_a_video,
    numbered,
    numbered_video,
    read_number,
    times_at,
    write_video,
)
from tests.server import Web
from tests.stages.fetching import Fetching, reason


def shown(path: Path, source: Source | None = None) -> list[int]:
    """The numbers on the pictures of a file on the 25 fps grid, as far as whoever reads the source goes."""
    found = frames(path, end_s=source.stop_s if source else None)
    return [read_number(image) for batch in found for image in batch.images]


@pytest.fixture(scope="session")
def clip(tmp_path_factory) -> Path:
    """Four seconds with picture and sound."""
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    return numbered_video(path, times_at(Fraction(25), 4), sound=Sound(samples=hum(4)))


@pytest.fixture
def fetch(tmp_path) -> Fetching:
    return Fetching(tmp_path)


def test_local_files_and_buckets_are_copied_as_they_are(fetch, clip):
    with fsspec.open("memory://bucket/clip.MP4", "wb") as f:
        f.write(clip.read_bytes())
    for url in (clip, clip.as_uri(), "memory://bucket/clip.MP4"):
        source = fetch(url, title="T")
        assert isinstance(source, Source)
        assert fetch.store.get(source.file.path) == clip.read_bytes()
        assert (source.extractor, source.tool, source.title, source.start_s) == ("file", "", "", 0.0)


def test_a_file_may_have_any_name(fetch, clip, tmp_path):
    for name in ("a::b.mp4", "c:d.mp4", "[e]*?.mp4", "100% #1.mp4"):
        assert isinstance(fetch(shutil.copy(clip, tmp_path / name)), Source), name


def test_a_file_that_a_page_named_is_not_taken_for_one_s_own(fetch, clip):
    """Found by runs of before the search passed such addresses over: the lists in their stores still have them."""
    for url in (str(clip), f"file://{clip}", "s3://own/a.mp4"):
        assert reason(fetch(url, licence_rule="any")) == "licence"
    assert fetch.stored() == []


def test_a_local_file_that_cannot_be_used_says_why(fetch, clip, tmp_path):

    (tmp_path / "empty.mp4").write_bytes(b"")
    assert reason(fetch(tmp_path / "no.mp4")) == "gone"
    assert reason(fetch(tmp_path)) == "not_a_video"
    assert reason(fetch(not_a_video(tmp_path / "text.mp4"))) == "not_a_video"
    assert reason(fetch(tmp_path / "empty.mp4")) == "empty"
    assert reason(fetch(cut_off(clip, tmp_path / "cut.mp4", 0.5))) == "truncated"
    assert reason(fetch(tmp_path / "no?such.mp4")) == "gone"
    assert fetch.stored() == []


def test_a_file_cut_off_before_its_first_sound_is_truncated_and_not_mute(fetch, tmp_path):
    sound = Sound(samples=hum(1), start_s=8.0)
    pictures = ((time, numbered(i)) for i, time in enumerate(times_at(Fraction(25), 9)))
    path = write_video(tmp_path / "a.mp4", pictures, sound=sound, options={"movflags": "+faststart"})
    assert isinstance(fetch(path), Source)
    assert reason(fetch(cut_off(path, tmp_path / "cut.mp4", 0.4))) == "truncated"


@pytest.mark.parametrize("suffix", [".mkv", ".flv", ".mp4"])
def test_sound_that_outlasts_the_pictures_is_no_sign_of_a_file_cut_off(fetch, tmp_path, suffix):
    """Matroska and FLV state one length, that of the longer of both."""
    sound = Sound(samples=hum(12))
    path = numbered_video(tmp_path / f"v{suffix}", times_at(Fraction(25), 6), width_px=320, height_px=180, sound=sound)
    source = fetch(path)
    assert isinstance(source, Source) and source.duration_s == pytest.approx(6, abs=0.1)
    assert reason(fetch(cut_off(path, tmp_path / f"cut{suffix}", 0.4))) == "truncated"


@pytest.mark.parametrize("suffix", [".mkv", ".nut", ".asf", ".mp4", ".ts", ".flv"])
@pytest.mark.parametrize("late_s", [0, 60, 36_000])
def test_a_file_whose_clock_does_not_begin_at_zero_is_no_file_cut_off(fetch, clip, tmp_path, suffix, late_s):
    """As recordings that were cut with their stamps kept."""
    path = tmp_path / f"late{suffix}"
    coding = ["wmv2", "-c:a", "wmav2"] if suffix == ".asf" else ["copy", "-c:a", "aac"]
    keeping = ["-copyts", "-output_ts_offset", str(late_s), "-c:v", *coding]
    subprocess.run([ffmpeg_path(), "-v", "error", "-i", str(clip), *keeping, str(path)], check=True)
    source = fetch(path)
    assert isinstance(source, Source) and source.duration_s == pytest.approx(4, abs=0.1)
    if suffix == ".mkv":
        assert reason(fetch(cut_off(path, tmp_path / f"cut{suffix}", 0.3))) == "truncated"


@pytest.mark.parametrize("stamp", ["", MISSING])
def test_a_file_that_the_command_saw_and_a_node_does_not_is_tried_again_and_not_gone(fetch, tmp_path, stamp):
    assert reason(fetch(tmp_path / "no.mp4", stamp=stamp)) == "gone"
    with pytest.raises(OSError, match=r"no\.mp4 is not seen by .*: files must lie on a disk that all nodes share"):
        fetch(tmp_path / "no.mp4", stamp="7-1")


def test_the_wanted_part_begins_at_its_start_to_the_frame_and_stays_in_step(fetch, tmp_path):

    path = click_flash(tmp_path / "long.mp4", times_at(Fraction(25), 12), [3.0, 5.0, 6.0, 9.0])
    with Web() as web:
        source = fetch(web.file("/long.mp4", path), start_s=4.36, end_s=7.5)
    assert isinstance(source, Source)
    assert (source.duration_s, source.stop_s, source.beyond_s) == (3.12, 3.12, 0.0)  # the frames that fit into 3.14 s
    part = fetch.store.get_file(source.file.path, tmp_path)
    brightness = [image.mean() for batch in frames(part) for image in batch.images]
    assert flash_frames(brightness) == [16, 41]  # (5.0 - 4.36) * 25 and (6.0 - 4.36) * 25
    sound = audio_array(part, start_s=0.0, end_s=3.0)
    assert click_times(sound) == pytest.approx([0.64, 1.64], abs=0.005)


def test_a_part_beyond_the_end_is_out_of_range(fetch, clip):
    result = fetch(clip, start_s=10.0, end_s=12.0)
    assert reason(result) == "out_of_range"
    assert result.measured["duration_s"] == pytest.approx(4.0, abs=0.05)
    open_ended = fetch(clip, start_s=3.0, end_s=100.0)
    assert isinstance(open_ended, Source)
    assert (open_ended.duration_s, open_ended.stop_s) == (pytest.approx(1.0, abs=1e-3), None)
    assert open_ended.beyond_s == pytest.approx(96.0, abs=0.05)
    assert reason(fetch(clip, start_s=1.0, end_s=1.03)) == "out_of_range"  # not one frame


@pytest.mark.parametrize(
    ("name", "codec", "tone", "kept"),
    [
        ("a.mkv", "libx264", "aac", "h264"),
        ("a.webm", "libvpx-vp9", "libopus", "vp9"),
        ("a.avi", "mpeg4", "libmp3lame", "h264"),  # AVI has no presentation times
        ("b.webm", "libvpx", "libopus", "h264"),  # no mp4 can hold VP8
        ("a.ts", "libx264", "aac", "h264"),  # no index: ffmpeg seeks to the keyframe after
    ],
)
@pytest.mark.parametrize("start_s", [0.0, 2.36, 5.0])
def test_every_container_is_cut_to_the_frame(fetch, tmp_path, name, codec, tone, kept, start_s):
    avi = name.endswith("avi")
    look = Look(codec=codec, gop=100, b_frames=0 if avi else 2, tick_s=Fraction(1, 25) if avi else Look().tick_s)
    sound = Sound(samples=clicks([3.0, 6.0], 8.0), codec=tone)
    path = numbered_video(tmp_path / name, times_at(Fraction(25), 8), look=look, sound=sound)
    source = fetch(path, start_s=start_s, end_s=start_s + 2.0)
    assert isinstance(source, Source)
    assert source.video.codec == kept
    part = fetch.store.get_file(source.file.path, tmp_path)
    first = round(start_s * 25)
    assert shown(part, source) == shown(path)[first : first + 50]
    heard = [at for at in click_times(audio_array(path, start_s=0.0, end_s=8.0)) if start_s <= at < start_s + 2]
    assert click_times(audio_array(part, start_s=0.0, end_s=2.0)) == pytest.approx(
        [at - start_s for at in heard], abs=0.02
    )


@pytest.mark.parametrize(
    ("name", "rate", "starts"),
    [
        ("a.mp4", Fraction(25), {1.521: 1.52, 3.97: 3.96, 4.0: 4.0}),
        ("b.mp4", Fraction(25, 2), {1.601: 1.6, 3.99: 3.92}),
        ("c.mkv", Fraction(30_000, 1001), {3.95: 3.937}),  # times in milliseconds
        ("d.webm", Fraction(25), {1.521: 1.52}),
        ("e.ts", Fraction(25), {0.013: 0.0, 3.97: 3.96}),  # encoded anew
    ],
)
def test_a_part_begins_with_the_picture_shown_at_its_start_and_sound_and_picture_stay_in_step(
    fetch, tmp_path, name, rate, starts
):
    web = name.endswith("webm")
    sound = Sound(samples=hum(6) * 20, codec="libopus" if web else "aac")
    look = Look(codec="libvpx-vp9", b_frames=0, gop=100) if web else Look(gop=100)
    late_s = 0.0 if web else 0.08  # sound may begin before the picture, which time counts from
    path = numbered_video(tmp_path / name, times_at(rate, 5, late_s), look=look, sound=sound)
    for asked_s, start_s in starts.items():
        source = fetch(path, start_s=asked_s, end_s=asked_s + 1.0)
        assert isinstance(source, Source)
        assert source.start_s == pytest.approx(start_s, abs=1e-6)
        part = fetch.store.get_file(source.file.path, tmp_path)
        numbers = [read_number(image) for batch in frames(part) for image in batch.images]
        shown = [read_number(image) for batch in frames(path, start_s=start_s) for image in batch.images]
        assert numbers[0] == round(start_s * rate) and numbers[:20] == shown[:20]
        heard, around = audio_array(part, start_s=0.3, end_s=0.8), audio_array(path, start_s=start_s, end_s=start_s + 1)
        lag_s = np.correlate(around.astype(float), heard.astype(float), "valid").argmax() / 16_000 - 0.3
        assert abs(lag_s) < 0.002


@pytest.mark.parametrize(
    ("name", "codec", "tone", "b_frames"),
    [
        ("a.mp4", "libx264", "aac", 2),
        ("b.mp4", "libx264", "aac", 16),
        ("c.mp4", "libx265", "aac", 4),
        ("d.webm", "libvpx-vp9", "libopus", 0),
    ],
)
def test_adjoining_parts_lose_no_frame_and_share_none_and_are_heard_to_their_last_sample(
    fetch, tmp_path, name, codec, tone, b_frames
):
    soft = np.convolve(hum(7, channels=1), np.hanning(96), "same").astype(np.int16)  # a sample changes little
    look = Look(codec=codec, gop=100, b_frames=b_frames)
    path = numbered_video(tmp_path / name, times_at(Fraction(25), 7), look=look, sound=Sound(samples=soft, codec=tone))
    numbers = []
    for start_s, end_s in ((0.0, 2.6), (2.6, 5.001), (5.001, 6.48)):
        source = fetch(path, start_s=start_s, end_s=end_s)
        assert isinstance(source, Source)
        part, n_samples = fetch.store.get_file(source.file.path, tmp_path), round(source.duration_s * 16_000)
        numbers += shown(part, source)
        assert len(numbers) * 640 == round(source.start_s * 16_000) + n_samples
        ours = audio_array(part, start_s=source.duration_s - 0.2, end_s=source.duration_s).astype(float)
        end_s = source.start_s + source.duration_s
        around = audio_array(path, start_s=end_s - 0.202, end_s=end_s + 0.002).astype(float)
        lag = np.correlate(around, ours, "valid").argmax()
        theirs = around[lag : lag + len(ours)]
        assert abs(lag - 32) <= 20  # samples; of Opus in WebM times are 1 ms off
        assert np.abs(ours - theirs)[-640:].max() < 0.1 * np.abs(theirs).max()
    assert numbers == list(range(162))


def test_at_other_rates_adjoining_parts_meet_within_a_frame(fetch, tmp_path):
    path = numbered_video(tmp_path / "a.mp4", times_at(Fraction(30_000, 1001), 6), sound=Sound(samples=hum(6)))
    one, two = fetch(path, end_s=2.5), fetch(path, start_s=2.5, end_s=5.0)
    assert isinstance(one, Source) and isinstance(two, Source)
    assert 2.5 - 1 / 25 < one.start_s + one.duration_s <= 2.5
    assert 2.5 - 1001 / 30_000 < two.start_s <= 2.5
    assert one.duration_s - two.start_s == pytest.approx(0.0, abs=0.04)
    for source in (one, two):
        part = fetch.store.get_file(source.file.path, tmp_path)
        whole = frames(path, start_s=source.start_s, end_s=source.start_s + source.duration_s)
        assert shown(part, source) == [read_number(image) for batch in whole for image in batch.images]


def test_a_picture_that_is_held_beyond_the_end_of_a_part_is_held_up_to_it(fetch, tmp_path):
    times = [time for time in times_at(Fraction(25), 6) if not 2.0 < time < 2.8]
    sound = Sound(samples=hum(6), codec="libopus")
    path = numbered_video(tmp_path / "a.webm", times, look=Look(codec="libvpx-vp9", b_frames=0), sound=sound)
    source = fetch(path, start_s=1.0, end_s=2.6)
    assert isinstance(source, Source)
    assert source.duration_s == 1.6
    part = fetch.store.get_file(source.file.path, tmp_path)
    assert shown(part, source) == [*range(25, 50), *[50] * 15]


def test_where_the_sound_ends_before_a_part_does_the_pictures_go_on_over_silence(fetch, tmp_path):
    path = numbered_video(tmp_path / "a.mp4", times_at(Fraction(25), 6), sound=Sound(samples=hum(3)))
    source = fetch(path, start_s=2.0, end_s=4.0)
    assert isinstance(source, Source)
    part = fetch.store.get_file(source.file.path, tmp_path)
    assert shown(part, source) == list(range(50, 100))
    heard = audio_array(part, start_s=0.0, end_s=source.duration_s)
    assert heard[15_000:16_000].any() and not heard[17_600:].any()
    late = fetch(path, start_s=4.0, end_s=5.0)
    assert not audio_array(fetch.store.get_file(late.file.path, tmp_path), start_s=0.0, end_s=1.0).any()


def test_of_several_sound_tracks_the_default_one_is_heard_and_cut(fetch, clip, tmp_path):
    """As in films: the dubbed sound first, the original marked; here the original is the one with clicks."""
    original = click_flash(tmp_path / "original.mp4", times_at(Fraction(25), 4), [1.0, 3.0])
    path = tmp_path / "film.mkv"
    both = ["-i", str(clip), "-i", str(original), "-map", "0:v", "-map", "0:a", "-map", "1:a", "-c:v", "copy"]
    kinds = ["-c:a", "aac", "-ac:a:0", "2", "-ac:a:1", "1", "-disposition:a:0", "0", "-disposition:a:1", "default"]
    subprocess.run([ffmpeg_path(), "-v", "error", *both, *kinds, str(path)], check=True)
    whole, part = fetch(path), fetch(path, start_s=2.0)
    assert isinstance(whole, Source) and isinstance(part, Source)
    assert (whole.audio.channels, part.audio.channels) == (1, 1)
    for source, clicked in ((whole, [1.0, 3.0]), (part, [1.0])):
        stored = fetch.store.get_file(source.file.path, tmp_path)
        assert click_times(audio_array(stored, start_s=0.0, end_s=3.9)) == pytest.approx(clicked, abs=0.005)


def test_the_parts_of_one_source_share_one_download(fetch, clip):
    with Web() as web:
        url = web.file("/talk.mp4", clip)
        assert isinstance(fetch(url, start_s=0.0, end_s=1.0), Source)
        once = web.asked("/talk.mp4")
        parts = [fetch(url, start_s=start_s, end_s=start_s + 1.0) for start_s in (1.0, 2.0)]
        assert reason(fetch(url, start_s=60.0, end_s=61.0)) == "out_of_range"
        parts += [fetch(url, start_s=3.0), fetch(url)]
        assert web.asked("/talk.mp4") == once
        assert [one.duration_s for one in parts] == pytest.approx([1.0, 1.0, 1.0, 4.0], abs=1e-3)
        assert len({one.file.path for one in parts}) == 4
        assert fetch.store.get(parts[-1].file.path) == clip.read_bytes()
        # another source takes its place on the disk
        other = web.file("/other.mp4", clip)
        assert isinstance(fetch(other, start_s=1.0), Source)
        assert isinstance(fetch(url, start_s=1.0), Source)
        assert web.asked("/talk.mp4") == 2 * once


def test_a_source_is_read_whole_once_for_all_its_parts_and_again_after_it_has_changed(
    fetch, clip, tmp_path, monkeypatch
):
    probed: list[str] = []
    monkeypatch.setattr("stages.media.probe", lambda path: (probed.append(path.name), probe(path))[1])
    talk = Path(shutil.copy(clip, tmp_path / "talk.mp4"))
    parts = [fetch(talk, start_s=start_s, end_s=start_s + 1.0) for start_s in (0.0, 1.0)]
    assert [one.duration_s for one in parts] == [1.0, 1.0]
    assert probed == ["talk.mp4", "part.mp4", "part.mp4"]
    talk.write_bytes(b"no video")
    assert reason(fetch(talk, start_s=2.0, end_s=3.0)) == "not_a_video"


def test_a_whole_video_is_not_held_on_the_disk_after_its_call(fetch, clip):
    with Web() as web:
        url = web.file("/talk.mp4", clip)
        assert isinstance(fetch(url), Source)
        once = web.asked("/talk.mp4")
        assert isinstance(fetch(url, start_s=1.0), Source)
        assert web.asked("/talk.mp4") == 2 * once


def test_what_is_wrong_with_a_source_is_asked_once_for_all_its_parts(fetch, clip):
    with Web() as web:
        gone, busy = web.status("/gone.mp4", 404), web.status("/busy.mp4", 500)
        assert reason(fetch(gone, start_s=1.0)) == "gone"
        once = web.asked("/gone.mp4")
        assert reason(fetch(gone, start_s=2.0)) == "gone" and web.asked("/gone.mp4") == once
        with pytest.raises(NetworkError):
            fetch(busy, start_s=1.0)
        once = web.asked("/busy.mp4")
        with pytest.raises(PostponedError, match="another part of this source met trouble"):
            fetch(busy, start_s=2.0)
        assert web.asked("/busy.mp4") == once


def test_a_part_whose_row_states_another_licence_is_judged_by_its_own(tmp_path, clip):
    fetch = Fetching(tmp_path, licence="cc")
    with Web() as web:
        url = web.file("/talk.mp4", clip)
        assert isinstance(fetch(url, start_s=1.0, licence="CC BY 4.0"), Source)
        assert reason(fetch(url, start_s=2.0, licence="all rights reserved")) == "licence"
