"""What `chain` compares: the same face over the same frames, and nothing else."""

import dataclasses
import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from manifests.records import Seen
from manifests.store import Store
from stages.judge import Measured
from stages.media import frames, probe
from tests import media
from tests.benchmarks.agreement import (
    our_clips,
    our_tracks,
    overlaps,
    readings,
    same_sound,
    script_faces,
    texts,
    unseen,
)
from tests.benchmarks.classic import even_rate, late_frames, later
from tests.stages.measured import clip, measured, speech, sync, track

LEFT, RIGHT = (10.0, 10.0, 60.0, 60.0), (110.0, 10.0, 160.0, 60.0)


def two_people(store: Store, n_frames: int = 100) -> Measured:
    """A video with a face on the left, track 0, and one on the right, track 1, and a clip of each."""
    arrays = {}
    for number, box in enumerate((LEFT, RIGHT)):
        arrays[f"{number}/frame"] = np.arange(n_frames, dtype=np.int32)
        arrays[f"{number}/box"] = np.tile(np.array([*box, 0.9], np.float32), (n_frames, 1))
    path = Path(store.at("tracks.npz"))
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, allow_pickle=False, **arrays)
    clips = tuple(clip("v0", number, track=number, n_frames=n_frames) for number in (0, 1))
    one = measured(
        clips=clips,
        tracks=(track(0), track(1)),
        syncs=(sync(clips[0].key, 3.0, 2), sync(clips[1].key, 8.0, -4)),
        speeches=(speech(clips[0].key, text="left"), speech(clips[1].key, text="right")),
    )
    assert one.seen is not None
    arrays_ref = dataclasses.replace(one.seen.arrays, path="tracks.npz")
    seen: Seen = dataclasses.replace(one.seen, arrays=arrays_ref)
    return dataclasses.replace(one, seen=seen)


def theirs(box: tuple[float, ...], frames: range) -> dict[str, np.ndarray]:
    return {"frame": np.array(frames), "bbox": np.tile(np.array(box), (len(frames), 1))}


def test_readings_are_those_of_the_same_face_where_two_are_seen_at_once(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one = two_people(store)
    # syncnet-python's sign is the other one; its tracks come in another order
    classic = {one.video.url: [(theirs(RIGHT, range(100)), (4, 7.5, 6.0)), (theirs(LEFT, range(100)), (-2, 2.5, 9.0))]}
    found = readings(our_clips([one], store), script_faces(classic))
    assert found["agreement: tracks whose footage both have"] == 2
    assert found["agreement: share of them with |offset difference| <= 1"] == pytest.approx(1.0)
    (tmp_path / "texts").mkdir()
    for number, text in enumerate(("right", "left")):
        said = {"segments": [{"text": f" {text}"}]}
        (tmp_path / "texts" / f"v0-{number:05d}.json").write_text(json.dumps(said))
    heard = texts(our_clips([one], store), script_faces(classic, tmp_path))
    assert heard["agreement: share of equal texts"] == pytest.approx(1.0)


def test_another_offset_is_named_with_both_confidences(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one = two_people(store)
    classic = {one.video.url: [(theirs(LEFT, range(100)), (5, 0.4, 9.0))]}
    found = readings(our_clips([one], store), script_faces(classic))
    assert found["agreement: share of them with |offset difference| <= 1"] == pytest.approx(0.0)
    assert found["agreement: the others, frames apart at the confidences of both"] == {"v0.mp4 0": "7 at 3.0, 0.4"}


def test_other_frames_or_another_face_are_not_compared(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one = two_people(store)
    half, nobody = theirs(LEFT, range(50)), theirs((200.0, 200.0, 250.0, 250.0), range(100))
    classic = {one.video.url: [(half, (0, 5.0, 6.0)), (nobody, (0, 5.0, 6.0))]}
    found = readings(our_clips([one], store), script_faces(classic))
    assert found["agreement: tracks whose footage both have"] == 0


def test_boxes_agree_with_the_track_that_fits_and_rejected_videos_are_named(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    one = two_people(store)
    silent = Measured(video=dataclasses.replace(one.video, url="file:///silent.mp4"), rejected=("watch", "silent", {}))
    moved = (LEFT[0] + 20, LEFT[1], LEFT[2] + 20, LEFT[3])
    classic = {
        one.video.url: [(theirs(RIGHT, range(100)), (0, 1.0, 1.0)), (theirs(moved, range(100)), (0, 1.0, 1.0))],
        silent.video.url: [(theirs(LEFT, range(100)), (0, 1.0, 1.0))],
    }
    found = overlaps(our_tracks([one, silent], store), script_faces(classic))
    assert found["agreement: share of frames with IoU >= 0.9"] == pytest.approx(0.5)
    assert found["agreement: mean IoU"] == pytest.approx((1 + 30 / 70) / 2)
    rejected = unseen([one, silent], script_faces(classic))
    assert rejected == {"agreement: tracks in videos that ours rejects unseen": {"silent.mp4": "1 tracks; silent"}}


def test_the_very_sound_of_a_clip_is_what_both_hear(tmp_path: Path) -> None:
    store, folder = Store(str(tmp_path / "store")), tmp_path / "sound"
    folder.mkdir()
    one = two_people(store)
    assert one.clips is not None
    keys = [clip.key for clip in one.clips.items]
    store.put(one.clips.items[0].audio.path, b"its sound")

    def hear(wavs: list[Path], out: Path) -> None:
        assert [wav.stem for wav in wavs] == keys
        for wav, text in zip(wavs, ("left", "something else"), strict=True):
            assert wav.read_bytes() == b"its sound"
            (out / f"{wav.stem}.json").write_text(json.dumps({"segments": [{"text": f" {text}"}]}))

    found = same_sound([one], store, folder, hear)
    assert found["agreement: clips whose very sound both heard"] == 2
    assert found["agreement: share of equal texts, of the very sound of a clip"] == pytest.approx(0.5)
    assert found["agreement: the others, heard by ours and by the command"] == {keys[1]: ["right", "something else"]}


@pytest.mark.parametrize("first_s", [0.0, 0.6])
def test_tracks_are_numbered_from_the_first_picture_where_sound_begins_before_it(
    tmp_path: Path, first_s: float
) -> None:
    path = tmp_path / "late.mp4"
    sound = media.Sound(samples=media.hum(3.0))
    media.numbered_video(path, media.times_at(Fraction(25), 2.0, first_s), sound=sound)
    even_rate(path, tmp_path / "even.mp4")
    late = late_frames(path)
    assert late == probe(tmp_path / "even.mp4").n_packets - probe(path).n_packets
    track = later(theirs(LEFT, range(10, 30)), late)
    assert track["frame"].tolist() == list(range(max(10 - late, 0), 30 - late))
    assert len(track["bbox"]) == len(track["frame"])


def test_the_script_shows_pictures_of_30_fps_at_their_time(tmp_path: Path) -> None:
    path, even = tmp_path / "thirty.mp4", tmp_path / "even.mp4"
    media.numbered_video(path, media.times_at(Fraction(30), 2.0), width_px=320, height_px=240)
    even_rate(path, even)
    shown = [media.read_number(image) for batch in frames(even) for image in batch.images]
    assert len(shown) == 50
    late_s = [number / 25 - source / 30 for number, source in enumerate(shown)]
    assert max(abs(late) for late in late_s) <= 0.5 / 30 + 1e-6  # `-r 25` made them 0.047 to 0.073 late
