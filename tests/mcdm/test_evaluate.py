"""An evaluation of what is short, cut short or in part not there."""

import json
import weakref
from dataclasses import replace

import cv2
import numpy as np
import pytest
import torch

from mcdm import evaluate
from mcdm.cli import main
from mcdm.course import Options, train
from mcdm.encoders import make_audio
from mcdm.evaluate import mean_of
from mcdm.generate import Talker
from mcdm.identity import Face
from mcdm.shards import Shards
from mcdm.truth import read_truth
from stages.tars import write_tar
from tests.mcdm.nano import nano_of
from tests.mcdm.shards import SIDE_PX, draw, members, mp4, npy, person, write_shards
from tests.mcdm.test_frechet import Pictures, Videos

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    shards = write_shards(folder, people=3, clips=1, n_frames=40)
    given = {"workers": 0, "device": "cpu", "held_out": 2, "samples_every": 0}
    train(nano_of(1), Options(shards=str(shards), run=folder / "run", **given))
    return folder


def test_videos_too_short_for_sync_and_fvd_have_none_and_encoders_are_made_once_for_all(world, tmp_path, monkeypatch):
    made, make_audio = [], evaluate.make_audio
    monkeypatch.setattr(evaluate, "make_audio", lambda config: made.append(config) or make_audio(config))
    with (world / "run" / "log.jsonl").open("a") as log:
        log.write('{"stage": 3, "st')  # a run that was killed as it wrote
    given = ["evaluate", "--run", world / "run", "--shards", world / "shards", "--device", "cpu", "--frames", "3"]
    torch.jit.script(Videos()).save(str(tmp_path / "fvd.pt"))
    given += ["--splits", "train,test", "--face-pack", "none", "--sync", "sample/sync", "--fvd", tmp_path / "fvd.pt"]
    assert main([str(word) for word in given]) == 0
    result = json.loads((world / "run" / "eval.json").read_text())
    assert len(result["videos"]) == 3 and len(made) == 1
    assert not any("sync" in one for one in (result["mean"], *result["videos"]))
    assert not any(one.get("faces_lost") is not None for one in (result["mean"], *result["videos"])), "nobody looked"
    assert result["not_measured"]["sync"] == "all videos are too short"
    assert result["not_measured"]["fvd"] == "takes two samples at least, here 0" and result["frechet"]["fvd"] is None
    assert (world / "run" / "eval.html").read_text().count("data:image/png;base64,") == 2, "SSIM, and the losses"


def test_a_network_that_refuses_pictures_is_told_before_any_video_is_made(world, tmp_path, monkeypatch, capsys):
    torch.jit.script(Videos()).save(str(tmp_path / "fvd.pt"))
    monkeypatch.setattr(evaluate, "roll_out", None)
    given = ["evaluate", "--run", world / "run", "--shards", world / "shards", "--device", "cpu", "--face-pack", "none"]
    assert main([str(word) for word in [*given, "--fid", tmp_path / "fvd.pt"]]) == 2
    assert "fvd.pt: the network does not take uint8 (16, 3, 32, 32)" in capsys.readouterr().err


def test_identity_is_looked_at_evenly_and_is_that_of_the_own_first_picture(world, monkeypatch):
    class Pack:
        """Whose people differ by their colours."""

        def __init__(self, name):
            assert name == "colours"

        def of(self, rgb):
            colour = rgb.mean((0, 1)) - 128
            return Face(np.zeros((5, 2), np.float32), colour / np.linalg.norm(colour))

    monkeypatch.setattr(evaluate, "FacePack", Pack)
    monkeypatch.setattr(evaluate, "IDENTITY_EVERY", 5)
    talker, shards = Talker(world / "run", CPU), Shards(str(world / "shards"))
    audio, of = make_audio(talker.recipe.audio), Pack("colours").of
    truths = [read_truth(shards, [clip], talker, audio, 12) for clip in shards.clips]
    options = evaluate.EvaluateOptions(run=world / "run", shards=shards.url, frames=12, face_pack="colours")
    for truth, made in evaluate.roll_out(talker, truths, options):
        wanted = [(n, of(made.shown()[n]).embedding @ of(truth.pictures[0]).embedding) for n in (0, 5, 10)]
        assert np.allclose(made.identity, wanted)


def test_held_out_clips_with_a_gap_between_are_no_single_video(world, tmp_path):
    """The gap is another clip of the video, which is not held out, or not of the splits that are asked for."""
    shards = Shards(str(write_shards(tmp_path, people=2, clips=4, n_frames=20)))
    keys = [f"video0-{n:04d}" for n in (0, 2, 3)]
    (tmp_path / "held_out.json").write_text(json.dumps({"by": "video", "clips": keys}))
    options = evaluate.EvaluateOptions(run=tmp_path, shards=shards.url, frames=100)
    truths = list(evaluate.held_out_truths(shards, Talker(world / "run", CPU), options))
    assert [(truth.key, len(truth.pictures)) for truth in truths] == [(keys[1], 40), (keys[0], 20)]


def test_means_are_over_the_videos_that_have_a_number_whichever_comes_first():
    assert mean_of([{"a": 1}, {"a": 3, "sync": {"made": 4.0}}, {"b": None}]) == {"a": 2.0, "sync": {"made": 4.0}}


@pytest.mark.parametrize("archived", [2, pytest.param(6, marks=pytest.mark.slow)])
def test_an_archive_may_be_shorter_or_longer_than_a_clip(world, tmp_path, archived, monkeypatch):
    monkeypatch.setattr("mcdm.samples._FRAMES", 12)
    recipe = replace(nano_of(1), archive=replace(nano_of(1).archive, frames=archived))
    given = {"shards": str(world / "shards"), "run": tmp_path / "run", "workers": 0, "device": "cpu", "held_out": 2}
    train(recipe, Options(**given, samples_every=1))
    assert "samples" in (tmp_path / "run" / "log.jsonl").read_text()
    asked = ["evaluate", "--run", tmp_path / "run", "--shards", world / "shards", "--device", "cpu"]
    assert main([str(word) for word in [*asked, "--frames", "10", "--face-pack", "none"]]) == 0
    (video,) = json.loads((tmp_path / "run" / "eval.json").read_text())["videos"]
    assert video["frames_with_truth"] == 10 and video["frames_made"] == 12


@pytest.mark.parametrize(("archived", "made"), [(2, [0, 2, 2]), pytest.param(6, [0, 4, 6], marks=pytest.mark.slow)])
def test_only_what_was_made_is_known_and_clean_to_the_prior(world, tmp_path, archived, made):
    recipe = replace(nano_of(1), archive=replace(nano_of(1).archive, frames=archived))
    given = {"workers": 0, "device": "cpu", "held_out": 2, "samples_every": 0}
    train(recipe, Options(shards=str(world / "shards"), run=tmp_path, **given))
    talker, known = Talker(tmp_path, CPU), []
    forward = talker.prior.forward
    talker.prior.forward = lambda *given, **named: known.append(named["known"][0]) or forward(*given, **named)
    state = talker.begin(draw(person(0), 0.3, (0, 0), 32)[0][None], [0])
    for count in made:
        _, state = talker.clip(state, torch.randn(1, archived + 4, 5, 128))
        wanted = [False] * (archived - count) + [True] * count + [False] * 4
        assert known[-1].tolist() == wanted, "the newest of the archived frames, right before the present ones"


def chain(folder, *windows, walk=0.0, scene_px=256):
    """Two clips in a row of one take, seen through a window each: left, top and side in pixels of the scene. In the
    second the head walks off, by this share of the scene a frame."""
    made, folder = [], folder / "-".join(str(left) for left, _, _ in windows)
    places = [0.06 * np.sin(i / 12) + walk * max(i - 30, 0) for i in range(60)]
    drawn = [draw(person(0), 0.5, (place, 0.0), scene_px) for place in places]
    for n, (left, top, side) in enumerate(windows):
        take, zoom = drawn[30 * n : 30 * (n + 1)], SIDE_PX / side
        pictures = [
            cv2.resize(scene[top : top + side, left : left + side], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
            for scene, _ in take
        ]
        points = np.stack([(at - (left, top)) * zoom for _, at in take]).astype(np.float32)
        boxes = np.concatenate([points.min(1), points.max(1), np.ones((30, 1))], 1).astype(np.float32)
        key = f"video0-{n:04d}"
        clip = members(0, 30, n, "test", key, n > 0)
        made.append((key, clip | {"mp4": mp4(pictures), "lmk.npy": npy(points), "box.npy": npy(boxes)}))
    folder.mkdir()
    write_tar(folder / "test-000000.tar", made)
    return Shards(str(folder))


def test_a_video_of_several_clips_is_seen_in_the_frame_of_the_first(world, tmp_path):
    talker, still = Talker(world / "run", CPU), (28, 40, 200)
    audio = make_audio(talker.recipe.audio)

    def truth(*windows):
        shards = chain(tmp_path, *windows)
        return read_truth(shards, shards.clips, talker, audio, 60)

    whole, other = truth(still, still), truth(still, (60, 64, 150))
    assert len(whole.pictures) == len(other.pictures) == 60
    assert np.array_equal(whole.pictures[:30], other.pictures[:30]), "the first is as it lies in the shards"
    assert np.abs(whole.landmarks - other.landmarks).max() < 0.01
    assert np.abs(whole.boxes - other.boxes).max() < 0.01
    middle = slice(30, 60), slice(8, 24), slice(8, 24)
    assert np.abs(whole.pictures[middle].astype(int) - other.pictures[middle]).mean() < 4


def test_the_truth_ends_where_the_face_would_leave_the_frame_of_the_first_clip(world, tmp_path):
    talker = Talker(world / "run", CPU)
    shards = chain(tmp_path, (28, 40, 200), (60, 40, 200), walk=0.02)
    truth = read_truth(shards, shards.clips, talker, make_audio(talker.recipe.audio), 60)
    assert len(truth.pictures) == len(truth.audio) == len(truth.samples) // 640 == 30


def test_what_was_measured_is_dropped_before_the_next_videos_are_read(world, tmp_path, monkeypatch):
    read, shown, held = evaluate.read_truth, evaluate.side_by_side, []

    def reading(*given):
        assert not [one for one in held if one() is not None]
        truth = read(*given)
        held.append(weakref.ref(truth.pictures))
        return truth

    def showing(place, truth, made):
        held.append(weakref.ref(made.shown()))
        return shown(place, truth, made)

    monkeypatch.setattr(evaluate, "read_truth", reading)
    monkeypatch.setattr(evaluate, "side_by_side", showing)
    torch.jit.script(Pictures()).save(str(tmp_path / "fid.pt"))
    given = ["evaluate", "--run", world / "run", "--shards", world / "shards", "--device", "cpu", "--frames", "8"]
    given += ["--splits", "train,test", "--face-pack", "none", "--fid", tmp_path / "fid.pt", "--name", "dropped"]
    assert main([str(word) for word in [*given, "--lanes", "1"]]) == 0
    result = json.loads((world / "run" / "dropped.json").read_text())
    assert len(held) == 6 and result["frechet_samples"] == {"fid": 24}


def test_every_video_hears_the_sound_of_the_next_one_and_the_last_that_of_the_first(world):
    talker, shards = Talker(world / "run", CPU), Shards(str(world / "shards"))
    audio = make_audio(talker.recipe.audio)
    truths = [read_truth(shards, [clip], talker, audio, 8) for clip in shards.clips]
    heard = list(evaluate.shuffled(iter(truths)))
    assert [one.key for one in heard] == [one.key for one in truths]
    assert all(one.audio is truths[(n + 1) % 3].audio for n, one in enumerate(heard))
    with pytest.raises(ValueError, match="--shuffle-sound needs two videos at least"):
        list(evaluate.shuffled(iter(truths[:1])))
