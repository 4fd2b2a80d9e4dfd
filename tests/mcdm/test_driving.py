"""A head that moves like that of a video: what is read of the video, and what it moves."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from mcdm.driving import _same, heads_like, read_driving
from mcdm.faces import CANON
from mcdm.generate import Talker
from mcdm.prior import MotionPrior
from tests.mcdm.shards import draw, mp4, person
from tests.mcdm.test_generate import CPU, generate

PACK = "sample/faces"


@pytest.fixture
def world(seeing):
    return seeing


def swaying(path, n_frames, *, rate_hz=25, reach=0.08, blank=()):
    """A face that goes to the right and back within two seconds; nobody is there in `blank` frames."""
    at = reach * np.sin(np.pi * np.arange(n_frames) / rate_hz)
    drawn = [draw(person(1), 0.0, (float(x), 0.0))[0] for x in at]
    path.write_bytes(mp4([np.full_like(one, 90) if i in blank else one for i, one in enumerate(drawn)], rate_hz))
    return path


def across(landmarks):
    """Where a face is, in shares of its first distance between the eyes."""
    return landmarks.mean(1)[:, 0] / (landmarks[0, 1, 0] - landmarks[0, 0, 0])


def test_landmarks_follow_the_face_on_the_grid_of_25_fps_whatever_the_video_has(tmp_path):
    slow, fast = (read_driving(swaying(tmp_path / f"{hz}.mp4", hz, rate_hz=hz), 25, PACK) for hz in (25, 50))
    assert slow.shape == fast.shape == (25, 5, 2)
    assert 0.25 < np.ptp(across(slow)) < 0.42, "0.08 of the picture, whose eyes are 0.24 apart"
    assert np.abs(across(slow) - across(fast)).max() < 0.05


def test_a_short_video_goes_back_and_forth_and_of_a_long_one_no_more_is_read_than_needed(tmp_path):
    path = swaying(tmp_path / "short.mp4", 12)
    there = read_driving(path, 12, PACK)
    assert np.array_equal(read_driving(path, 40, PACK), there[[*range(12), *range(10, 0, -1)] * 2][:40])
    assert np.abs(read_driving(path, 6, PACK)[:4] - there[:4]).max() < 1e-4


def test_where_no_face_is_found_it_moves_straight_on(tmp_path):
    whole = read_driving(swaying(tmp_path / "whole.mp4", 25), 25, PACK)
    gap = read_driving(swaying(tmp_path / "gap.mp4", 25, blank=range(4, 9)), 25, PACK)
    assert np.abs(across(whole) - across(gap)).max() < 0.12, "a face that stood still would be 0.2 away"


def test_a_face_moves_like_another_by_its_own_size_in_its_own_place():
    own = draw(person(0), 0.0, (0, 0), 100)[1] / 100
    driving = np.stack([draw(person(1), 0.0, (0.3 + 0.1 * i, 0.1), 50)[1] for i in range(3)])
    heads = heads_like(driving, own)
    assert heads.shape == (3, 13) and np.allclose(heads[1, :10].reshape(5, 2) + 0.5, own, atol=1e-5)
    assert np.allclose((heads[2] - heads[1])[0:10:2], 0.1, atol=0.011), "landmarks are whole pixels"
    assert np.allclose(heads[:, 10:], heads[0, 10:], atol=1e-3), "moved, not turned"


def test_a_driving_video_moves_the_head_and_without_one_all_is_as_it_was(world, tmp_path, monkeypatch):
    asked, forward = [], MotionPrior.forward

    def spied(self, *given, **more):
        asked.append((more["landmarks"], more["has_landmarks"]))
        return forward(self, *given, **more)

    monkeypatch.setattr(MotionPrior, "forward", spied)
    more = ["--face-pack", PACK, "--seconds", "0.8"]
    assert generate(world, tmp_path / "plain.mp4", *more) == 0
    assert asked and all(pair == (None, None) for pair in asked), "the prior is asked as it was before"
    for name, reach in (("still", 0.0), ("sway", 0.08)):
        path = swaying(tmp_path / f"driving-{name}.mp4", 12, reach=reach)
        assert generate(world, tmp_path / f"{name}.mp4", *more, "--driving", path) == 0
    made = [(tmp_path / f"{name}.mp4").read_bytes() for name in ("plain", "still", "sway")]
    assert len(set(made)) == 3


def test_tokens_of_the_head_are_those_given_and_remembered_for_the_next_clip(world):
    talker = Talker(world / "run", CPU)
    reference, audio = draw(person(0), 0.3, (0, 0), 32)[0][None], torch.randn(1, 8, 5, 128)
    heads, k = torch.randn(1, 8, 13) * 0.1, talker.recipe.motion.head_tokens
    _, state = talker.clip(talker.begin(reference, [0]), audio, heads)
    given = talker.motion.of_head(heads)[:, -4:]
    assert torch.equal(state.tokens[:, -4:, :k], given)
    _, other = talker.clip(talker.begin(reference, [0]), audio, -heads)
    lips = [one.tokens[:, -4:, k:] for one in (state, other)]
    assert not torch.equal(*lips), "lip and expression hear what the head does"
    faces = torch.randn(1, 8, 32, 32)
    assert torch.allclose(talker.motion.of_head(heads), talker.motion.tokens(faces, heads)[:, :, :k])


def test_a_head_goes_on_from_where_the_clip_before_left_it_and_comes_to_where_the_prior_has_it(world):
    talker, made = Talker(world / "run", CPU), []
    reference, audio = draw(person(0), 0.3, (0, 0), 32)[0][None], torch.randn(1, 8, 5, 128)
    for join in (0.0, 0.5):
        talker.recipe = replace(talker.recipe, prior=replace(talker.recipe.prior, join=join))
        _, state = talker.clip(talker.begin(reference, [0]), audio)
        made += [state.tokens[:, -4:], talker.clip(state, audio)[1].tokens[:, -4:]]
    first, plain, again, joined = made
    k, left = talker.recipe.motion.head_tokens, torch.tensor([0.5, 0.25, 0.125, 0.0625])[:, None, None]
    gap = first[:, -1:, :k] - plain[:, :1, :k]
    assert torch.equal(first, again) and gap.abs().max() > 0.1, "before the first clip there was no head"
    assert torch.allclose(joined[:, :, :k], plain[:, :, :k] + left * gap, atol=1e-6)
    assert torch.equal(joined[:, :, k:], plain[:, :, k:]), "the mouth is the sound's"


@pytest.mark.parametrize(
    ("content", "pack", "line"),
    [
        ("wall", PACK, "sample/faces finds no face in 10 frames"),
        (b"nonsense", PACK, "no video that can be read (not_a_video"),
        (None, PACK, "no video that can be read"),
        ("wall", "none", "--driving needs a --face-pack that finds the face, not none"),
    ],
)
def test_a_driving_video_that_is_none_is_refused_in_one_line(world, tmp_path, capsys, content, pack, line):
    path = tmp_path / "driving.mp4"
    if content == "wall":
        swaying(path, 10, blank=range(10))
    elif content is not None:
        path.write_bytes(content)
    assert generate(world, tmp_path / "o.mp4", "--driving", path, "--face-pack", pack, "--seconds", "1") == 2
    said = capsys.readouterr().err
    assert line in said and said.count("\n") == 1 and not (tmp_path / "o.mp4").exists()


def test_of_several_faces_the_largest_is_followed_also_when_another_is_larger_by_then():
    small, large = 20 * CANON, 60 * CANON + 100
    assert np.array_equal(_same(np.stack([small, large]), None), large)
    assert np.array_equal(_same(np.stack([large, small + 3]), small), small + 3)
