"""What the denoiser's stages are charged, how their noise is drawn, and which conditions are left out."""

import dataclasses

import pytest
import torch

from mcdm import diffusion, objectives
from mcdm.motion import Motion
from mcdm.objectives import LearnArchive, LearnPresent
from tests.mcdm.nano import SEEING, nano, random_batch

CPU = torch.device("cpu")


def test_each_condition_is_dropped_alone_and_both_together_as_often_as_the_recipe_says():
    objective = LearnArchive(nano(drop_archived=0.1, drop_present=0.2, drop_both=0.3))
    kept = torch.stack(objective.masks(torch.arange(4000), CPU), 1)
    for archived, present, share in ((0, 1, 0.1), (1, 0, 0.2), (0, 0, 0.3), (1, 1, 0.4)):
        found = (kept == torch.tensor([archived, present])).all(1).float().mean()
        assert float(found) == pytest.approx(share, abs=0.03), (archived, present)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_a_row_counts_by_the_min_snr_weight_of_what_is_predicted(prediction):
    objective = LearnArchive(nano(prediction=prediction, min_snr=5.0))
    with torch.no_grad():
        loss = objective.loss(random_batch(objective.recipe, 8))
    weight = diffusion.loss_weight(objective.denoiser.schedule, prediction, loss.t, 5.0)
    assert float(loss.total) == pytest.approx(float((loss.rows * weight).mean()), rel=1e-5)


def test_archived_latents_are_noised_by_up_to_the_share_that_the_recipe_says():
    recipe = nano()
    recipe = dataclasses.replace(recipe, archive=dataclasses.replace(recipe.archive, noise=0.2))
    objective, batch, seen = LearnArchive(recipe), random_batch(recipe, 32), []
    objective.denoiser.archive.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    with torch.no_grad():
        objective.loss(batch)
    spread = (seen[0] - batch["archived"]).flatten(1).std(1)
    assert float(spread.max()) < 0.21 and float(spread.mean()) == pytest.approx(0.1, abs=0.03)


def test_offset_noise_is_one_number_for_each_channel_of_a_clip_drawn_apart_from_the_noise(monkeypatch):
    add, drawn = diffusion.add_noise, []
    monkeypatch.setattr(diffusion, "add_noise", lambda s, x, eps, t: drawn.append(eps) or add(s, x, eps, t))
    for share in (0.0, 0.5):
        objective = LearnArchive(nano(noise_offset=share))
        with torch.no_grad():
            objective.loss(random_batch(objective.recipe, 16))
    plain, offset = drawn[0], (drawn[1] - drawn[0]) / 0.5
    numbers = offset[:, :1, :, :1, :1]
    assert torch.allclose(offset, numbers.expand_as(offset), atol=1e-5)
    assert float(numbers.std()) == pytest.approx(1.0, abs=0.2)
    assert not torch.allclose(numbers.flatten(1), plain.flatten(1)[:, : numbers.shape[2]], atol=1e-3)


def test_in_stage_1_the_base_knows_the_last_archived_head_and_that_of_no_present_frame():
    objective = LearnArchive(nano(**SEEING))
    batch = random_batch(objective.recipe)
    base, _ = objective.base(batch)
    for frames, known in ((slice(3, 4), True), (slice(4, 8), False)):
        head = batch["head"].clone()
        head[:, frames] += 0.1
        assert torch.equal(objective.base({**batch, "head": head})[0], base) != known


@pytest.mark.parametrize("stage", [1, 3])
def test_a_picture_becomes_latents_once_a_step_however_often_it_is_seen(stage, monkeypatch):
    encode, encoded = objectives.encode_pictures, []
    monkeypatch.setattr(
        objectives, "encode_pictures", lambda codec, some: (encoded.append(some), encode(codec, some))[1]
    )
    recipe = nano(**SEEING, unroll=2 if stage == 3 else 1)
    objective = LearnArchive(recipe)
    if stage == 3:
        objective = LearnPresent(recipe, Motion(recipe.motion), objective.denoiser.state_dict())
    frames = recipe.frames * recipe.unet.unroll
    side, batch = recipe.codec.size_px, random_batch(dataclasses.replace(recipe, frames=frames))
    names = ("present", "archived", "reference")
    batch |= {name: torch.zeros(*batch[name].shape[:2], side, side, 3, dtype=torch.uint8) for name in names}
    with torch.no_grad():
        objective.loss(batch)
    assert [some.shape[:2] for some in encoded] == [batch[name].shape[:2] for name in names]
