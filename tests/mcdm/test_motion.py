"""Stage 0 on drawn faces: tokens that tell an open mouth from a closed one."""

import dataclasses

import pytest
import torch

from mcdm.course import Data
from mcdm.data import collate
from mcdm.held_out import divide
from mcdm.motion import Motion, moments, motion_target
from mcdm.objectives import LearnMotion
from mcdm.shards import Shards
from tests.mcdm.nano import nano
from tests.mcdm.shards import write_shards


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return str(write_shards(tmp_path_factory.mktemp("world"), people=3, clips=1, n_frames=80))


def test_lip_tokens_explain_lip_motion_instead_of_going_constant(shards, tmp_path):
    """They went constant, at a loss that looked low: predicting no motion at all is the median of small motions."""
    recipe = dataclasses.replace(nano(), motion=dataclasses.replace(nano().motion, patch_px=16, width=32))
    found = Shards(shards)
    torch.manual_seed(0)
    objective = LearnMotion(recipe)
    windows = Data(found, divide(found, tmp_path), None).windows(objective, found.clips, 0)
    batch = collate([windows[number] for number in range(8)]).tensors
    optimizer = torch.optim.AdamW(objective.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        objective.loss(batch).total.backward()
        optimizer.step()
    objective.eval()
    true, _ = motion_target(batch["face"], batch["points"])
    lip, _ = objective.motion.decoded(objective.motion.tokens(batch["face"], batch["head"]))
    said = lip.view_as(true)
    left = (said - said.mean(1, keepdim=True) - true).square().mean() / true.square().mean()
    assert left < 0.5


def test_tokens_that_later_stages_learn_from_are_as_exact_in_bfloat16(shards, tmp_path):
    motion = LearnMotion(nano()).motion
    faces, head = torch.rand(2, 3, 32, 32) * 2 - 1, torch.randn(2, 3, 13) * 0.1
    exact = motion.tokens(faces, head)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(motion.tokens(faces, head), exact)


def test_tokens_have_mean_0_and_spread_1_however_they_were_parted_and_are_decoded_as_they_were():
    config = nano().motion
    motion, faces, head = Motion(config), torch.randn(4, 6, 32, 32), torch.randn(4, 6, 13) * 0.1
    with torch.no_grad():
        raw = motion.raw(faces, head).flatten(0, 1)
        motion.observe(torch.stack([moments(part) for part in raw.chunk(3)]), 8, 1.0)
        tokens, spread = motion.tokens(faces, head), raw.std(0)
        assert torch.allclose(tokens.flatten(0, 1).mean(0), torch.zeros(()), atol=1e-4)
        assert torch.allclose(tokens.flatten(0, 1).std(0), spread / spread.clamp(min=0.05), atol=1e-4)
        k, end = config.head_tokens, config.head_tokens + config.lip_tokens
        said = motion.decoder(raw[:, k:end], raw[:, end:])
        assert torch.allclose(torch.cat(motion.decoded(tokens), 1), said, atol=1e-4)
        assert torch.allclose(motion.head_of(tokens).flatten(0, 1), motion.head_decoder(raw[:, :k]), atol=1e-4)
