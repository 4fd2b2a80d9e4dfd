"""The paper's modules against their equations: archive, UNet, prior."""

import dataclasses

import pytest
import torch

from mcdm.archive import ArchivedClip, FrameAlignedAttention
from mcdm.config import ArchiveConfig, tiny
from mcdm.denoiser import Denoiser
from mcdm.diffusion import N_TIMESTEPS
from mcdm.motion import Motion
from mcdm.objectives import LearnArchive, LearnMotion, LearnPresent, LearnPrior, _timesteps
from mcdm.prior import CausalBlock, MotionPrior, TemporalBlock
from mcdm.sketch import landmarks_of, sketch_channels
from tests.mcdm.nano import SEEING, nano, random_batch


def test_frame_aligned_attention_is_the_loop_over_frames():
    layer = FrameAlignedAttention(3, 8)
    reference, archived = torch.randn(2, 1, 6, 8), torch.randn(2, 5, 6, 8)
    frames = []
    for i in range(5):
        k, v = layer.to_k(reference[:, 0]), layer.to_v(archived[:, i])
        frames.append(torch.softmax(layer.queries @ k.transpose(1, 2) / 8**0.5, -1) @ v)
    assert torch.allclose(layer(reference, archived), torch.stack(frames, 1), atol=1e-5)


def test_there_is_one_softmax_map_per_sample_whatever_the_archived_frames(monkeypatch):
    maps = []
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda x, d: maps.append(x.shape) or softmax(x, d))
    FrameAlignedAttention(3, 8)(torch.randn(2, 1, 6, 8), torch.randn(2, 5, 6, 8))
    assert maps == [(2, 3, 6)]


def test_the_anchor_keeps_the_reference_in_the_archive():
    clip = ArchivedClip(ArchiveConfig(frames=3, patch=2, queries=2, width=8, anchor=True), 4, 4)
    reference, archived = torch.randn(1, 1, 4, 4, 4), torch.randn(1, 3, 4, 4, 4)
    one, other = clip(reference, archived), clip(reference, torch.cat([archived[:, :1] * 2, archived[:, 1:]], 1))
    assert torch.equal(one, other)


def inputs(recipe, rows=2):
    batch = random_batch(recipe, rows)
    tokens = torch.randn(rows, recipe.frames, recipe.motion.tokens, recipe.motion.token_width)
    return batch, torch.tensor([10, 700])[:rows], tokens


def denoise(model, batch, t, tokens, carry=None):
    past = model.archive(batch["reference"], batch["archived"])
    return model(batch["present"], t, past, model.context(tokens) if tokens is not None else None, carry)


def test_a_fresh_denoiser_with_present_and_memory_equals_the_one_without():
    recipe = nano()
    model, (batch, t, tokens) = Denoiser(recipe), inputs(recipe)
    whole, carries = denoise(model, batch, t, tokens)
    short, none = denoise(model, batch, t, None)
    assert torch.allclose(whole, short, atol=1e-5)
    assert whole.shape == batch["present"].shape
    assert len(carries) == 7 and none == []


def test_the_memory_of_the_clip_before_changes_the_clip():
    recipe = nano(memory_zero_init=False)
    model, (batch, t, tokens) = Denoiser(recipe), inputs(recipe)
    first, carries = denoise(model, batch, t, tokens)
    second, _ = denoise(model, batch, t, tokens, [carry + 1 for carry in carries])
    assert not torch.allclose(first, second)


def test_an_archived_token_reaches_every_present_frame_globally_and_one_when_aligned():
    for reads, reached in (("global", [0, 1, 2, 3]), ("aligned", [2])):
        recipe = nano(archived_reads=reads)
        model, (batch, t, _) = Denoiser(recipe), inputs(recipe)
        past = model.archive(batch["reference"], batch["archived"])
        one, _ = model(batch["present"], t, past, None)
        past = past.clone()
        past[:, 2] += 1
        other, _ = model(batch["present"], t, past, None)
        changed = (one - other).abs().flatten(2).amax(2)[0] > 1e-6
        assert changed.nonzero().flatten().tolist() == reached


def archive_gradient(recipe):
    model, (batch, t, tokens) = Denoiser(recipe), inputs(recipe)
    answer, _ = denoise(model, batch, t, tokens)
    answer.square().mean().backward()
    return sum(float(p.grad.abs().sum()) for p in model.archive.parameters() if p.grad is not None)


def test_the_archived_clip_learns_in_stage_1_also_in_the_strict_reading():
    assert archive_gradient(nano()) > 0
    assert archive_gradient(nano(strict=True, memory_zero_init=False)) > 0


def test_strict_with_an_inert_memory_has_no_path_and_is_refused():
    with pytest.raises(ValueError, match="no gradient would reach the archived clip"):
        nano(strict=True)


def test_a_later_token_leaves_earlier_ones_alone():
    block, x = CausalBlock(16, 2), torch.randn(3, 6, 16)
    changed = x.clone()
    changed[:, 4] += 1
    difference = (block(x) - block(changed)).abs().amax((0, 2))
    assert (difference[:4] == 0).all() and (difference[4:] > 0).all()


def test_the_temporal_block_mixes_frames_and_nothing_else():
    block, x = TemporalBlock(16, 2, 5), torch.randn(3, 5, 16)
    torch.nn.init.normal_(block.way_out.weight)
    changed = x.clone()
    changed[1, 2] += 1
    difference = (block(x) - block(changed)).abs().amax(2)
    assert (difference[1] > 0).all() and (difference[[0, 2]] == 0).all()


def test_dropped_landmarks_equal_the_path_without():
    recipe = nano()
    prior, batch = MotionPrior(recipe), random_batch(recipe)
    noised, t = torch.randn(2, 8, recipe.motion.tokens, 8), torch.tensor([3, 500])
    landmarks = torch.randn(2, 8, recipe.motion.head_tokens, 8)
    without = prior(noised, t, batch["audio"], batch["image"])
    dropped = prior(
        *(noised, t, batch["audio"], batch["image"]), landmarks=landmarks, has_landmarks=torch.tensor([False, True])
    )
    assert torch.equal(dropped[0], without[0])
    assert not torch.equal(dropped[1], without[1])


def objectives(recipe):
    motion = Motion(recipe.motion)
    return {
        0: LearnMotion(recipe),
        1: LearnArchive(recipe),
        2: LearnPrior(recipe, motion),
        3: LearnPresent(recipe, motion, Denoiser(recipe).state_dict()),
    }


def test_gradients_arrive_at_the_stages_own_parameters_and_nowhere_else():
    recipe = nano(memory_zero_init=False)
    for stage, objective in objectives(recipe).items():
        # way-out weights at zero block what lies before them at the very first step; a second step is past that
        optimizer = torch.optim.SGD([p for p in objective.parameters() if p.requires_grad], lr=0.1)
        for seed in range(3):
            optimizer.zero_grad()
            objective.loss(random_batch(recipe, seed=seed)).total.backward()
            optimizer.step()
        for name, parameter in objective.named_parameters():
            # the first present features in the memory's key are subject to softmax, where a bias-free shift is lost
            arrived = parameter.grad is not None and bool(parameter.grad.abs().sum() > 0)
            assert arrived == parameter.requires_grad, (stage, name)


def test_stage_3_trains_present_and_memory_attention_only():
    recipe = nano()
    names = {n for n, p in objectives(recipe)[3].denoiser.named_parameters() if p.requires_grad}
    assert names and all("present" in n or ".memory." in n for n in names)
    frozen = {n for n, p in objectives(recipe)[1].denoiser.named_parameters() if not p.requires_grad}
    assert names == frozen


def test_stage_3_trains_all_weights_on_where_it_is_asked_to():
    denoiser = objectives(nano(tune_spatial=True))[3].denoiser
    assert all(p.requires_grad for p in denoiser.parameters())


def test_a_sketch_adds_nothing_at_first_and_all_that_sees_it_learns_in_stage_3():
    recipe = nano(**SEEING)
    objective, batch = objectives(recipe)[3], random_batch(recipe)
    unet, k = objective.denoiser.unet, recipe.codec.channels
    drawn = torch.randn(2, 4, sketch_channels(recipe.codec), 8, 8)
    given = (
        batch["present"],
        torch.tensor([10, 500]),
        torch.zeros(2, 1, 16, 16),
        None,
        None,
        torch.randn(2, 4, 2 * k, 8, 8),
    )
    assert torch.equal(unet(*given)[0], unet(*given, drawn)[0])
    learning = {name for name, p in objective.denoiser.named_parameters() if p.requires_grad and "unet.draw_" in name}
    assert learning == {f"unet.draw_{way}.{kind}" for way in ("in", "out") for kind in ("weight", "bias")}
    objective.loss(batch).total.backward()
    assert float(unet.draw_out.weight.grad.abs().sum()) > 0


@pytest.mark.parametrize("stage", [1, 3])
def test_what_is_noised_differs_from_the_reference_with_its_head_in_place(stage):
    """A clip that is the placed reference has nothing left to learn: the first answer, nothing, is right."""
    recipe = nano(**SEEING, mouth_weight=0.0)
    objective, batch = objectives(recipe)[stage], random_batch(recipe)
    tokens = objective.motion.tokens(batch["face"][:, -4:], batch["head"][:, -4:]) if stage == 3 else None
    base, _ = objective.base(batch, None if tokens is None else landmarks_of(objective.motion, tokens))
    assert float(objective.loss({**batch, "present": base}).total) == pytest.approx(0.0, abs=1e-9)
    assert float(objective.loss(batch).total) > 1.0


def test_a_sketch_is_refused_where_pictures_cannot_be_moved():
    with pytest.raises(ValueError, match="see_motion moves pictures of the dct codec"):
        nano(see_motion=True)


@pytest.mark.parametrize("stage", [1, 3])
def test_what_is_not_repainted_stays_as_it_was_placed(stage):
    recipe = nano(**SEEING, repaint=0.0, pixel_error=True)
    objective, batch = objectives(recipe)[stage], random_batch(recipe)
    base, gate = objective.base(batch)
    assert gate.shape == (2, 4, 1, 8, 8) and float(gate.min()) >= 0 and float(gate.max()) <= 1
    denoiser = objective.denoiser
    torch.nn.init.normal_(denoiser.unet.conv_out.weight)
    past = denoiser.archive(batch["reference"], batch["archived"])
    given = (batch["present"], torch.tensor([10, 500]), past, None)
    seen = denoiser.beside(batch["reference"], batch["archived"], base, 4)
    free, _ = denoiser(*given, beside=seen)
    held, _ = denoiser(*given, beside=seen, gate=gate)
    assert torch.allclose(held, free * gate) and not torch.allclose(held, free)
    loss = objective.loss(batch)
    assert loss.rows.shape == (2,) and float(loss.total) == pytest.approx(float(loss.rows.mean()))


@pytest.mark.parametrize("stage", [1, 2])
def test_timesteps_can_be_drawn_late(stage):
    drawn = []
    for power in (1.0, 4.0):
        recipe = nano(late=power)
        recipe = dataclasses.replace(recipe, prior=dataclasses.replace(recipe.prior, late=power))
        drawn.append(objectives(recipe)[stage].loss(random_batch(recipe, 64)).t.float())
    assert abs(float(drawn[0].mean()) - 500) < 120 and abs(float(drawn[1].mean()) - 800) < 80


def test_a_timestep_is_never_past_the_last():
    seed = torch.tensor([2849990229])  # draws a number whose fourth root is 1 in float32
    assert int(_timesteps(seed, 4.0, torch.device("cpu"))) == N_TIMESTEPS - 1


@pytest.mark.parametrize(("given", "line"), [({"repaint": 0.5}, "repaint"), ({"pixel_error": True}, "pixel_error")])
def test_what_needs_pictures_is_refused_without_them(given, line):
    with pytest.raises(ValueError, match=rf"unet\.{line}"):
        nano(**given)


def test_stage_1_can_leave_the_spatial_weights_alone():
    trained = {n for n, p in LearnArchive(nano(train_spatial=False)).denoiser.named_parameters() if p.requires_grad}
    assert trained and all("archive" in n for n in trained)


def test_a_loss_does_not_depend_on_its_neighbours_in_the_batch():
    recipe = nano()
    for objective in objectives(recipe).values():
        objective.eval()
        batch = random_batch(recipe, 2)
        alone = [objective.loss({k: v[i : i + 1] for k, v in batch.items()}).total for i in range(2)]
        assert torch.allclose(objective.loss(batch).total, sum(alone) / 2, rtol=1e-4)


def test_known_frames_and_landmarks_are_not_answered_for(monkeypatch):
    recipe = nano()
    sure = dataclasses.replace(recipe, prior=dataclasses.replace(recipe.prior, landmark_drop=0.0, history_drop=0.0))
    objective, batch = LearnPrior(sure, Motion(sure.motion)), random_batch(sure)
    answer = torch.randn(2, 8, sure.motion.tokens, 8, requires_grad=True)
    monkeypatch.setattr(objective.prior, "forward", lambda *_, **__: answer)
    objective.loss(batch).total.backward()
    asked = answer.grad.abs().sum((0, 3)) > 0
    assert not asked[:4].any() and not asked[:, :1].any() and asked[4:, 1:].all()


def test_recipes_differ_by_digest_where_their_weights_would_not_fit():
    base = tiny()
    assert base.digest == dataclasses.replace(base, name="mine").digest
    assert base.digest != dataclasses.replace(base, frames=4).digest
