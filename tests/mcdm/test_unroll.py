"""Stage 3 over clips in a row: the memory of one clip is where the next one starts."""

import dataclasses

import pytest
import torch

from mcdm import checkpoint, diffusion
from mcdm.course import Options, make_objective, train
from mcdm.denoiser import Denoiser
from mcdm.motion import Motion
from mcdm.objectives import LearnPresent, _of_row
from pipeline.override import override
from tests.mcdm.nano import SEEING, nano, random_batch
from tests.mcdm.shards import write_shards
from tests.proofs.ablations import NO_ARCHIVE, SCALE, VARIANTS


def stage_3(**unet):
    torch.manual_seed(0)
    recipe = nano(memory_zero_init=False, **unet)
    return LearnPresent(recipe, Motion(recipe.motion), Denoiser(recipe).state_dict())


def row_of(objective, clips):
    """A batch of one row that holds `clips` present clips."""
    recipe = objective.recipe
    longer = dataclasses.replace(recipe, frames=recipe.frames * clips)
    return random_batch(longer, 1)


def clip_losses(objective, batch, monkeypatch):
    """What every clip of a row is charged, in order."""
    charged, plain = [], objective.denoising

    def noted(*given):
        charged.append(plain(*given))
        return charged[-1]

    monkeypatch.setattr(objective, "denoising", noted)
    total = objective.loss(batch).total
    return total, [loss.total for loss, _ in charged]


@pytest.mark.parametrize("seen", [{}, SEEING], ids=["paper", "tiny"])
def test_the_first_clip_of_a_row_costs_what_it_costs_alone(seen, monkeypatch):
    several, alone = stage_3(unroll=3, **seen), stage_3(**seen)
    batch = row_of(several, 3)
    total, losses = clip_losses(several, batch, monkeypatch)
    first = {**batch, "present": batch["present"][:, :4]}
    first |= {name: batch[name][:, :8] for name in ("face", "head")}
    assert len(losses) == 3
    assert torch.equal(losses[0], alone.loss(first).total)
    assert torch.allclose(total, torch.stack(losses).mean())


@pytest.mark.parametrize("archived", [2, 6])
def test_every_clip_of_a_row_is_seen_with_the_frames_right_before_it(archived):
    recipe = nano()
    recipe = dataclasses.replace(recipe, archive=dataclasses.replace(recipe.archive, frames=archived))
    batch = random_batch(dataclasses.replace(recipe, frames=12), 1)
    pictures = torch.cat([batch["archived"], batch["present"]], 1)
    for number in range(3):
        row, at = _of_row(batch, number, recipe), archived + 4 * number
        assert torch.equal(row["archived"], pictures[:, at - archived : at])
        assert torch.equal(row["present"], pictures[:, at : at + 4])
        assert torch.equal(row["head"], batch["head"][:, at - archived : at + 4])


def test_the_ablation_without_an_archive_learns_from_no_archived_frame():
    rows = [one for one in SCALE if one.startswith("unet.unroll")]
    recipe, seen = override(nano(), *rows, *VARIANTS[NO_ARCHIVE]), []
    objective = LearnPresent(recipe, Motion(recipe.motion), Denoiser(recipe).state_dict())
    batch = row_of(objective, objective.clips)
    assert recipe.archive.start_share == 1
    batch["archived"] = batch["reference"].expand_as(batch["archived"])
    objective.denoiser.archive.register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    objective.loss(batch)
    assert seen and all(torch.equal(one, batch["archived"]) for one in seen)


@pytest.mark.parametrize("memory", [True, False])
def test_what_is_past_the_archived_clip_reaches_the_next_clip_through_the_memory_alone(memory, monkeypatch):
    objective = stage_3(unroll=2, use_memory=memory)
    for name, parameter in objective.denoiser.named_parameters():
        if "to_out.weight" in name or "proj_out.weight" in name or name == "unet.conv_out.weight":
            torch.nn.init.normal_(parameter, std=0.3)
    batch = row_of(objective, 2)
    oldest = batch["archived"].requires_grad_()  # a = f: the second clip's archived frames are the first's present ones
    _, losses = clip_losses(objective, batch, monkeypatch)
    (reached,) = torch.autograd.grad(losses[1], oldest, allow_unused=True)
    assert (reached is not None and float(reached.abs().sum()) > 0) == memory


def test_the_clips_of_a_row_have_one_timestep_and_noise_of_their_own(monkeypatch):
    objective, add, drawn = stage_3(unroll=2), diffusion.add_noise, []
    monkeypatch.setattr(diffusion, "add_noise", lambda s, x, eps, t: drawn.append((eps, t)) or add(s, x, eps, t))
    with torch.no_grad():
        objective.loss(row_of(objective, 2))
    (first, t), (second, t_of_second) = drawn
    assert torch.equal(t, t_of_second) and not torch.allclose(first, second)


@pytest.mark.slow
def test_a_row_that_is_cut_in_the_middle_of_training_goes_on_bit_by_bit(tmp_path):
    shards = str(write_shards(tmp_path / "world", people=3, clips=1, n_frames=40))
    recipe = nano(unroll=2)
    plain = Options(shards=shards, run=tmp_path / "whole", workers=0, device="cpu")
    train(recipe, plain)
    halves = dataclasses.replace(plain, run=tmp_path / "halves")
    train(recipe, dataclasses.replace(halves, stages=(0, 1, 2)))
    train(recipe, dataclasses.replace(halves, stages=(3,), stop_after=2))
    train(recipe, dataclasses.replace(halves, stages=(3,)))
    whole, cut = (torch.load(checkpoint.newest(run, 3), weights_only=True) for run in (plain.run, halves.run))
    assert all(torch.equal(value, cut["model"][name]) for name, value in whole["model"].items())
    assert make_objective(3, recipe, plain.run).clips == 2


def test_none_in_a_row_is_refused():
    with pytest.raises(ValueError, match=r"unet\.unroll=0: expected 1 or more"):
        override(nano(), "unet.unroll=0")
