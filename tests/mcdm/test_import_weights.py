"""SD 1.5 and AnimateDiff by their published names and shapes, at full size on the meta device."""

import pytest
import torch

from mcdm.config import paper
from mcdm.denoiser import Denoiser
from mcdm.import_weights import load_motion, load_sd, motion_name, sd_name
from mcdm.unet import UNet
from tests.mcdm.nano import nano

diffusers = pytest.importorskip("diffusers")

ATTENTION = (True, True, True, False)


@pytest.fixture(scope="module")
def sd():
    with torch.device("meta"):
        model = diffusers.UNet2DConditionModel(cross_attention_dim=768)
        return {name: tuple(value.shape) for name, value in model.state_dict().items()}


@pytest.fixture(scope="module")
def ours():
    recipe = paper()
    with torch.device("meta"):
        unet = UNet(recipe.unet, latent=4, frames=16, archived=768, present=768)
    return {name: tuple(value.shape) for name, value in unet.state_dict().items()}


def test_the_table_covers_every_name_and_shape_of_sd_15(sd, ours):
    renamed = {sd_name(name): shape for name, shape in sd.items()}
    assert len(renamed) == len(sd)
    assert all(ours[name] == shape for name, shape in renamed.items())
    new = {name for name in ours if name not in renamed}
    assert all(any(part in name for part in (".norm_present.", ".attend_present.", ".memory.")) for name in new)


def size(shapes):
    return sum(int(torch.tensor(shape).prod()) for shape in shapes)


def test_sd_15_has_its_859_5_million_parameters_here_too(sd, ours):
    assert size(sd.values()) == 859_520_964
    renamed = {sd_name(name) for name in sd}
    assert size(shape for name, shape in ours.items() if name in renamed) == 859_520_964
    added = size(s for n, s in ours.items() if n not in renamed and not n.endswith("projection"))
    assert 953.0e6 < 859_520_964 + added < 953.5e6, "the count of the design: 953.1 M"


def motion_module(levels=4, layers=2):
    """The names of mm_sd_v15_v2, as AnimateDiff's own code makes them: 21 modules; or of a smaller one."""
    parts = ["norm.weight", "norm.bias", "proj_in.weight", "proj_in.bias", "proj_out.weight", "proj_out.bias"]
    block = "transformer_blocks.0."
    for i in range(2):
        parts += [f"{block}attention_blocks.{i}.{p}.weight" for p in ("to_q", "to_k", "to_v", "to_out.0")]
        parts += [f"{block}attention_blocks.{i}.to_out.0.bias", f"{block}attention_blocks.{i}.pos_encoder.pe"]
        parts += [f"{block}norms.{i}.weight", f"{block}norms.{i}.bias"]
    parts += [f"{block}{p}.{k}" for p in ("ff_norm", "ff.net.0.proj", "ff.net.2") for k in ("weight", "bias")]
    places = [f"down_blocks.{i}.motion_modules.{j}" for i in range(levels) for j in range(layers)]
    places += [f"up_blocks.{i}.motion_modules.{j}" for i in range(levels) for j in range(layers + 1)]
    places += ["mid_block.motion_modules.0"]
    return [f"{place}.temporal_transformer.{part}" for place in places for part in parts]


def test_every_name_of_animatediff_is_taken_or_left_out_and_every_memory_is_filled(ours):
    taken = [motion_name(name, ATTENTION) for name in motion_module()]
    filled = [name for name in taken if name is not None]
    wanted = [name for name in ours if ".memory." in name and not name.endswith("projection")]
    assert sorted(filled) == sorted(wanted) and len(set(filled)) == len(filled)
    with pytest.raises(ValueError, match="no name of AnimateDiff"):
        motion_name("down_blocks.0.motion_modules.0.temporal_transformer.wings", ATTENTION)


@pytest.mark.parametrize("zero", [True, False])
def test_the_motion_module_arrives_in_the_memory_at_its_place_and_adds_nothing_where_that_begins_at_zero(zero):
    denoiser = Denoiser(nano(memory_zero_init=zero))
    before = {name: value.clone() for name, value in denoiser.unet.state_dict().items()}
    places = {name: motion_name(name, (True, True)) for name in motion_module(levels=2, layers=1)}
    weights = {name: torch.randn_like(before[place]) if place else torch.zeros(1) for name, place in places.items()}
    load_motion(denoiser, {f"module.{name}": value for name, value in weights.items()})
    after = denoiser.unet.state_dict()
    taken = {place: weights[name] for name, place in places.items() if place}
    assert len(taken) == 7 * len([name for name in after if name.endswith("memory.to_q.weight")])
    if zero:
        taken = {place: value for place, value in taken.items() if ".memory.to_out." not in place}
    assert all(torch.equal(after[name], taken.get(name, before[name])) for name in after)
    narrow = next(name for name, place in places.items() if place)
    with pytest.raises(ValueError, match="has shape"):
        load_motion(denoiser, weights | {narrow: torch.zeros(1)})


def test_weights_arrive_and_foreign_ones_are_refused():
    denoiser = Denoiser(nano())
    back = {sd_name(name): name for name in sd_like(denoiser, 16)}
    weights = {
        back[name]: torch.randn_like(value) for name, value in denoiser.unet.state_dict().items() if name in back
    }
    load_sd(denoiser, weights)
    state = denoiser.unet.state_dict()
    assert all(torch.equal(state[sd_name(name)], value) for name, value in weights.items())
    with pytest.raises(ValueError, match=r"not the UNet of SD 1\.5"):
        load_sd(denoiser, {**weights, "wings.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"not AnimateDiff's|no name of"):
        load_motion(denoiser, {})


def test_with_its_weights_the_denoiser_answers_as_sd_15_does():
    """Frame by frame, the archived tokens in the text's place."""
    denoiser = Denoiser(nano())
    sd = sd_unet(denoiser, 16)
    load_sd(denoiser, sd.state_dict())
    z, text, t = torch.randn(2, 4, 16, 8, 8), torch.randn(2, 1, 5, 16), torch.tensor([10, 700])
    with torch.no_grad():
        said = sd(z.flatten(0, 1), t.repeat_interleave(4), text[:, 0].repeat_interleave(4, 0)).sample
        assert torch.allclose(denoiser.unet(z, t, text, None)[0].flatten(0, 1), said, atol=1e-5)


def sd_like(denoiser, latent):
    """Names of diffusers' UNet of the same shape."""
    with torch.device("meta"):
        return sd_unet(denoiser, latent).state_dict()


def sd_unet(denoiser, latent):
    """Diffusers' UNet of the same shape."""
    config = denoiser.unet.config
    return diffusers.UNet2DConditionModel(
        in_channels=latent,
        out_channels=latent,
        block_out_channels=config.channels,
        layers_per_block=1,
        cross_attention_dim=16,
        attention_head_dim=config.heads,  # their number, as the published configuration has it
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        norm_num_groups=4,
    )
