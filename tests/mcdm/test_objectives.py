"""What the stages are charged, how their noise is drawn, and which conditions are left out."""

import dataclasses

import pytest
import torch

from mcdm import diffusion, objectives
from mcdm.denoiser import Denoiser
from mcdm.faces import MOUTH
from mcdm.motion import Motion, edges, motion_sizes
from mcdm.objectives import LearnArchive, LearnMotion, LearnPresent, LearnPrior
from tests.mcdm.nano import SEEING, nano, random_batch

CPU = torch.device("cpu")
KEPT = {"drop_archived": 0.0, "drop_present": 0.0, "drop_both": 0.0}


def test_each_condition_is_dropped_alone_and_both_together_as_often_as_the_recipe_says():
    objective = LearnArchive(nano(drop_archived=0.1, drop_present=0.2, drop_both=0.3))
    kept = torch.stack(objective.masks(torch.arange(4000), CPU), 1)
    for archived, present, share in ((0, 1, 0.1), (1, 0, 0.2), (0, 0, 0.3), (1, 1, 0.4)):
        found = (kept == torch.tensor([archived, present])).all(1).float().mean()
        assert float(found) == pytest.approx(share, abs=0.03), (archived, present)


def stage_3(**unet):
    """With ways out that are not at zero: what goes there would not be seen."""
    torch.manual_seed(0)
    recipe = nano(**unet)
    objective = LearnPresent(recipe, Motion(recipe.motion), Denoiser(recipe).state_dict())
    for parameter in objective.denoiser.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return objective


def seen(objective, batch, changed):
    """Which of these members, by name and frame, the loss tells from those of the batch."""
    with torch.no_grad():
        plain = objective.loss(batch).total
        return {key for key, other in changed.items() if objective.loss({**batch, key[0]: other}).total != plain}


@pytest.mark.parametrize("shown", [{}, {**SEEING, "see_last": True}], ids=["paper", "tiny"])
@pytest.mark.parametrize(
    ("dropped", "left"),
    [(None, {"archived", "face"}), ("archived", {"face"}), ("present", {"archived"}), ("both", set())],
)
def test_a_condition_that_is_dropped_is_not_seen(dropped, left, shown):
    objective = stage_3(**{**KEPT, f"drop_{dropped}": 1.0} if dropped else KEPT, **shown)
    batch = random_batch(objective.recipe)
    changed = {(name, None): batch[name].flip(-1) for name in ("archived", "face")}
    assert {name for name, _ in seen(objective, batch, changed)} == left


@pytest.mark.parametrize("shown", [{}, {**SEEING, "mouth_weight": 10.0}], ids=["paper", "tiny"])
def test_in_stage_3_motion_is_that_of_the_present_frames(shown):
    objective = stage_3(**KEPT, **shown)
    batch, changed = random_batch(objective.recipe), {}
    for key in [(name, frame) for name in ("face", "head") for frame in range(8)]:
        changed[key] = batch[key[0]].clone()
        changed[key][:, key[1]] = batch[key[0]][:, key[1]].flip(-1)
    assert seen(objective, batch, changed) == {(name, frame) for name in ("face", "head") for frame in range(4, 8)}


def test_stage_0_charges_nothing_for_the_truth_of_its_pairs(monkeypatch):
    """Mouths and what is above them are even here: an encoder reads one pixel, the decoder paints it."""
    recipe = nano()
    recipe = dataclasses.replace(recipe, motion=dataclasses.replace(recipe.motion, token_noise=0.0))
    objective, batch, config = LearnMotion(recipe), random_batch(recipe), recipe.motion
    lips, rest = torch.rand(2, 2, 8, 1, 1)
    batch["face"] = rest.repeat(1, 1, 32, 32)
    batch["face"][:, :, edges(32, MOUTH)[0] :] = lips
    batch["points"] = torch.cat([rest.expand(2, 8, 3, 2), lips.expand(2, 8, 2, 2)], 2)

    def reads(row, count):
        return lambda faces: faces[:, row, 16, None, None].expand(-1, count, config.token_width)

    def painted(*tokens):
        sizes = zip(tokens, motion_sizes(32), strict=True)
        return torch.cat([10 * one[:, 0, :1].expand(-1, size) for one, size in sizes], 1)

    monkeypatch.setattr(objective.motion.lip, "forward", reads(24, config.lip_tokens))
    monkeypatch.setattr(objective.motion.expression, "forward", reads(10, config.expression_tokens))
    monkeypatch.setattr(objective.motion.decoder, "forward", painted)
    parts = objective.loss(batch).parts
    assert all(float(parts[name]) < 1e-5 for name in ("self", "cross", "consistency")), parts


@pytest.mark.parametrize(("prediction", "history"), [("eps", True), ("v", True), ("x0", True), ("eps", False)])
def test_stage_2_charges_nothing_for_the_truth_by_the_schedule_that_video_is_made_with(
    prediction, history, monkeypatch
):
    recipe, given = nano(), {}
    sure = {"landmark_drop": 0.0, "history_drop": 0.0, "history": history}
    config = dataclasses.replace(recipe.prior, prediction=prediction, **sure)
    objective = LearnPrior(dataclasses.replace(recipe, prior=config), Motion(recipe.motion))
    batch, schedule, past = random_batch(recipe, 8), diffusion.make_schedule("cosine"), 4 * history
    x = objective.motion.tokens(batch["face"], batch["head"])[:, 4 - past :]

    def truth(z, t, audio, *_, **more):
        given.update(more, z=z, audio=audio)
        alpha, sigma = schedule.at(t, z)
        return diffusion.target(schedule, prediction, x, (z - alpha * x) / sigma, t)

    monkeypatch.setattr(objective.prior, "forward", truth)
    assert float(objective.loss(batch).total) < 1e-6
    assert torch.equal(given["landmarks"], x[:, :, :1]), "they are clean"
    assert (given["z"] == x).all(3).all(2).all(0).tolist() == [True] * past + [False] * 4, "and so is the clip before"
    assert torch.equal(given["audio"], batch["audio"][:, 4 - past :])


@pytest.mark.parametrize(
    "unet", [{}, {"prediction": "v", "zero_snr": True}, {"prediction": "x0", "schedule": "cosine"}]
)
def test_stage_1_charges_nothing_for_the_truth(unet, monkeypatch):
    objective = LearnArchive(nano(**unet))
    config, batch = objective.recipe.unet, random_batch(objective.recipe, 8)
    schedule = diffusion.make_schedule(config.schedule, zero_snr=config.zero_snr)

    def truth(z, t, *_):
        alpha, sigma = schedule.at(t, z)
        eps = (z - alpha * batch["present"]) / sigma
        return diffusion.target(schedule, config.prediction, batch["present"], eps, t), []

    monkeypatch.setattr(objective.denoiser, "forward", truth)
    assert float(objective.loss(batch).total) < 1e-6


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
