"""What of a crop is shown, and where errors count most."""

import dataclasses

import numpy as np
import pytest
import torch

from mcdm.data import Source, Window
from mcdm.denoiser import Denoiser
from mcdm.encode import Encoded, encode, face_parts
from mcdm.faces import view_of
from mcdm.objectives import LearnArchive
from mcdm.shards import Shards
from mcdm.sketch import mouth_map
from tests.mcdm.nano import nano, random_batch
from tests.mcdm.shards import write_shards


def test_a_view_is_a_square_around_the_face_inside_the_crop():
    landmarks = np.full((3, 5, 2), 50, np.float32)
    view = view_of(landmarks, 100, 0.6)
    assert (view.left, view.top, view.side) == (20, 20, 60)
    corner = view_of(landmarks * 0, 100, 0.6)
    assert (corner.left, corner.top) == (0, 0)
    assert view_of(landmarks * 2, 100, 0.6).left == 40
    assert view.cut(np.zeros((2, 100, 100, 3), np.uint8)).shape == (2, 60, 60, 3)
    assert np.array_equal(view.move(landmarks), landmarks - 20)
    whole = view_of(landmarks, 100, 1.0)
    assert (whole.left, whole.top, whole.side) == (0, 0, 100)


def test_cached_and_fresh_windows_agree_on_a_view_too(tmp_path):
    shards = Shards(str(write_shards(tmp_path, people=2, clips=1, n_frames=40)))
    recipe = dataclasses.replace(nano(), codec=dataclasses.replace(nano().codec, view=0.7))
    assert recipe.encoding != nano().encoding and recipe.digest != nano().digest
    url = str(tmp_path / "cache")
    encode(shards, recipe, url, device=torch.device("cpu"))
    needs = ("present", "face", "points", "head")
    window = Window(shards.clips[0], 8, 0, cold=False)
    fresh = Source(shards, recipe, None, needs).load(window)
    stored = Source(shards, recipe, Encoded(url, recipe.encoding), needs).load(window)
    for name in ("face", "points", "head"):
        assert torch.allclose(fresh[name], stored[name], atol=2e-2), name
    landmarks, _ = face_parts(shards.clips[0], shards)
    wide = Source(shards, nano(), None, needs).load(window)
    spread = [one["head"][0, :10].view(5, 2).std(0) for one in (fresh, wide)]
    assert torch.allclose(spread[0], spread[1] / 0.7, atol=0.02), "the face is larger in a smaller view"
    assert landmarks.shape == (40, 5, 2)


def test_a_view_must_be_a_share():
    with pytest.raises(ValueError, match="expected a share above 0"):
        dataclasses.replace(nano(), codec=dataclasses.replace(nano().codec, view=1.5))


def test_the_mouth_counts_most_at_the_mouth():
    head = torch.zeros(1, 2, 13)
    head[..., 6], head[..., 8] = 0.1, 0.3  # corners to the right of the middle, at half height
    places = mouth_map(head, 20)
    assert places.shape == (1, 2, 1, 20, 20)
    top = places[0, 0, 0].flatten().argmax().item()
    assert divmod(top, 20)[0] in (9, 10) and divmod(top, 20)[1] in (13, 14)
    assert places.max() > 0.9 and places[..., 0, 0].max() < 1e-3


def test_a_mouth_weight_asks_for_heads_and_changes_the_loss():
    plain, weighted = LearnArchive(nano()), LearnArchive(nano(mouth_weight=20.0))
    assert "head" in weighted.needs and "head" not in plain.needs
    weighted.load_state_dict(plain.state_dict())
    batch = random_batch(nano())
    assert plain.loss(batch).total != weighted.loss(batch).total
    assert nano().digest == nano(mouth_weight=20.0).digest, "how it is trained, not what it is"


def test_a_denoiser_that_sees_reference_and_last_frame_answers_to_them():
    recipe = nano(see_reference=True, see_last=True)
    model, batch = Denoiser(recipe), random_batch(recipe)
    t = torch.tensor([10, 700])
    past = model.archive(batch["reference"], batch["archived"])
    pictures = (batch["reference"], batch["archived"])
    answers = []
    for reference, archived in (pictures, (pictures[0] + 1, pictures[1]), (pictures[0], pictures[1] + 1)):
        answers.append(
            model(batch["present"], t, past, None, beside=model.beside(reference, archived, reference, 4))[0]
        )
    assert answers[0].shape == batch["present"].shape
    assert not any(torch.allclose(answers[i], answers[j]) for i, j in ((0, 1), (0, 2), (1, 2)))
    assert Denoiser(nano()).beside(*pictures, pictures[0], 4) is None


def test_what_differs_from_the_reference_can_be_noised_instead():
    model, batch = Denoiser(nano(residual=0.5, prediction="x0")), random_batch(nano())
    wrapped = model.wrap(batch["present"], batch["reference"])
    assert torch.allclose(wrapped, (batch["present"] - batch["reference"]) / 0.5)
    assert torch.allclose(model.unwrap(wrapped, batch["reference"]), batch["present"], atol=1e-5)
    assert Denoiser(nano()).wrap(batch["present"], batch["reference"]) is batch["present"]
    past = model.archive(batch["reference"], batch["archived"])
    answer, _ = model(wrapped, torch.tensor([10, 700]), past, None)
    assert not answer.any(), "the first answer is the reference itself"
    model = Denoiser(nano(residual=0.5, prediction="x0", see_reference=True, see_last=True))
    answer, _ = model(
        wrapped,
        torch.tensor([10, 700]),
        past,
        None,
        beside=model.beside(batch["reference"], batch["archived"], batch["reference"], 4),
    )
    last = model.wrap(batch["archived"][:, -1:], batch["reference"])
    assert torch.allclose(answer, 0.9 * last.expand_as(answer), atol=1e-5), (
        "or nine tenths of the way to the last frame"
    )
    with pytest.raises(ValueError, match="residual goes with prediction x0, not eps"):
        nano(residual=0.5, prediction="eps")
