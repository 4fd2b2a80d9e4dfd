"""Published weights into the denoiser: SD 1.5's UNet and AnimateDiff's motion module, by a total table of names.

Total: every name of the source is either taken over or listed as left out, and nothing is guessed; a name that the
table does not know, or a shape that does not fit, is an error. Archived cross-attention starts from SD's text
cross-attention (the widths fit), memory attention from the first attention of AnimateDiff's module at the same place.
That attention learned between projections which memory attention does not have, with a normalisation in the way of
folding them in: it is a start that has to adapt, not AnimateDiff's motion.
"""

import re
import zipfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mcdm.config import Recipe
from mcdm.denoiser import Denoiser
from mcdm.local_weights import NONE, OF_DIFFUSERS, first_in
from stages.weights import UNREADABLE

SD_TABLE: tuple[tuple[str, str], ...] = (
    (r"^conv_in\.", "conv_in."),
    (r"^time_embedding\.linear_1\.", "time_in."),
    (r"^time_embedding\.linear_2\.", "time_out."),
    (r"^conv_norm_out\.", "norm_out."),
    (r"^conv_out\.", "conv_out."),
    (r"^(down|up)_blocks\.(\d+)\.(?:down|up)samplers\.0\.conv\.", r"\1.\2.resample."),
    (r"^(down|up)_blocks\.(\d+)\.resnets\.", r"\1.\2.res."),
    (r"^(down|up)_blocks\.(\d+)\.attentions\.", r"\1.\2.attn."),
    (r"^mid_block\.resnets\.", "middle.res."),
    (r"^mid_block\.attentions\.", "middle.attn."),
    (r"\.time_emb_proj\.", ".time."),
    (r"\.conv_shortcut\.", ".shortcut."),
    (r"\.transformer_blocks\.0\.attn1\.", ".block.attend_self."),
    (r"\.transformer_blocks\.0\.attn2\.", ".block.attend_archived."),
    (r"\.transformer_blocks\.0\.norm1\.", ".block.norm_self."),
    (r"\.transformer_blocks\.0\.norm2\.", ".block.norm_archived."),
    (r"\.transformer_blocks\.0\.norm3\.", ".block.norm_ff."),
    (r"\.transformer_blocks\.0\.ff\.net\.0\.proj\.", ".block.ff.widen."),
    (r"\.transformer_blocks\.0\.ff\.net\.2\.", ".block.ff.narrow."),
    (r"\.to_out\.0\.", ".to_out."),
)
"""Names of diffusers' `UNet2DConditionModel` to names of `mcdm.unet.UNet`: every rule that fits is applied in turn."""

NEW = (".norm_present.", ".attend_present.", ".memory.")
"""What MCDM adds to SD's UNet: no name of SD's leads there."""

_MOTION = re.compile(
    r"^(?:(down|up)_blocks\.(\d+)|(mid)_block)\.motion_modules\.(\d+)\.temporal_transformer\."
    r"(?:transformer_blocks\.0\.(attention_blocks\.0\.(?:to_q|to_k|to_v|to_out\.0)|norms\.0)\.(weight|bias)|(.+))$"
)

_MOTION_LEFT_OUT = re.compile(
    r"^(?:norm|proj_in|proj_out)\.(?:weight|bias)$"
    r"|^transformer_blocks\.0\.(?:attention_blocks\.\d\.(?:pos_encoder\.pe|to_\w+(?:\.0)?\.(?:weight|bias))"
    r"|norms\.\d\.(?:weight|bias)|ff_norm\.(?:weight|bias)|ff\.net\.(?:0\.proj|2)\.(?:weight|bias))$"
)


def sd_name(name: str) -> str:
    """The UNet's name for one of SD 1.5's (diffusers' layout)."""
    for pattern, replacement in SD_TABLE:
        name = re.sub(pattern, replacement, name)
    return name


def motion_name(name: str, attention: tuple[bool, ...]) -> str | None:
    """The UNet's name for one of AnimateDiff's, None if it is left out; raises `ValueError` for an unknown one.

    Left out: the modules' second attention, feed-forward, projections and positions, and the modules of levels that
    have no attention here (`attention` says which have, from the top).
    """
    match = _MOTION.match(name)
    if match is None or (match[7] is not None and not _MOTION_LEFT_OUT.match(match[7])):
        raise ValueError(f"{name} is no name of AnimateDiff's motion module")
    if match[7] is not None:
        return None
    side, number = match[1], int(match[2] or 0)
    level = number if side == "down" else len(attention) - 1 - number
    if side is not None and not attention[level]:
        return None
    place = f"{side}.{number}.attn.{match[4]}" if side is not None else "middle.attn.0"
    part = match[5].removeprefix("attention_blocks.0.").replace("to_out.0", "to_out").replace("norms.0", "norm")
    return f"{place}.block.memory.{part}.{match[6]}"


def load_sd(denoiser: Denoiser, weights: dict[str, Tensor]) -> None:
    """SD 1.5's UNet into the denoiser; raises `ValueError` for any name or shape that does not fit."""
    own = denoiser.unet.state_dict()
    renamed = {sd_name(name): value for name, value in weights.items()}
    unknown = sorted(set(renamed) - set(own))
    missing = sorted(name for name in set(own) - set(renamed) if not any(part in name for part in NEW))
    if unknown or missing:
        raise ValueError(f"not the UNet of SD 1.5 as diffusers has it: unknown {unknown[:2]}, missing {missing[:2]}")
    _copy(own, renamed)


def load_motion(denoiser: Denoiser, weights: dict[str, Tensor]) -> None:
    """AnimateDiff's motion module into the memory attentions; raises `ValueError` for what does not fit.

    With `memory_zero_init` their output layers stay at zero: these wrote for a projection that is not here, and stage 1
    would have to live with what they add, as it does not train them.
    """
    own = denoiser.unet.state_dict()
    attention = denoiser.unet.config.attention
    named = {motion_name(name.removeprefix("module."), attention): value for name, value in weights.items()}
    renamed = {name: value for name, value in named.items() if name is not None}
    wanted = {name for name in own if ".memory." in name and not name.endswith("projection")}
    if set(renamed) != wanted:
        different = sorted(set(renamed) ^ wanted)
        raise ValueError(f"not AnimateDiff's motion module for SD 1.5: {different[0]} ({len(different)} names differ)")
    if denoiser.unet.config.memory_zero_init:
        renamed = {name: torch.zeros_like(one) if ".to_out." in name else one for name, one in renamed.items()}
    _copy(own, renamed)


def load_pretrained(denoiser: Denoiser, recipe: Recipe, *, shapes: bool = False) -> None:
    """What the recipe names: `sd_weights`, `motion_weights`. Raises `ValueError` by setting for what does not fit;
    `shapes`: into a denoiser on `meta`, of which nothing but names and shapes is read."""
    for setting, load in (("sd_weights", load_sd), ("motion_weights", load_motion)):
        path: str = getattr(recipe, setting)
        if path in ("", NONE):
            continue
        weights = read_weights(path, shapes=shapes)
        try:
            load(denoiser, weights)
        except ValueError as error:
            raise ValueError(f"{setting}={path}: {error}") from error


def check_pretrained(recipe: Recipe) -> None:
    """Raise `ValueError` where weights that the recipe names are not there, or do not fit by name and shape."""
    if {recipe.sd_weights, recipe.motion_weights} <= {"", NONE}:
        return
    with torch.device("meta"):
        load_pretrained(Denoiser(recipe), recipe, shapes=True)


def weights_file(path: str) -> Path:
    """The file of weights that a path is or, being a diffusers directory, holds; raises `ValueError` for none."""
    file = Path(path)
    if file.is_dir():
        file = first_in(file, OF_DIFFUSERS) or file / OF_DIFFUSERS[0]
    if not file.exists():
        raise ValueError(f"{file}: no such weights")
    return file


def read_weights(path: str, *, shapes: bool = False) -> dict[str, Tensor]:
    """Tensors by name, of a `.safetensors`, a torch file, or a diffusers directory that holds one; `shapes`: on `meta`.
    Raises `ValueError` for one that cannot be read."""
    file = weights_file(path)
    if file.suffix == ".safetensors":
        from safetensors import SafetensorError, safe_open
        from safetensors.torch import load_file

        try:
            if not shapes:
                return load_file(file)
            with safe_open(file, framework="pt") as opened:
                sizes = {name: opened.get_slice(name).get_shape() for name in opened.offset_keys()}
            return {name: torch.empty(size, device="meta") for name, size in sizes.items()}
        except SafetensorError as error:
            raise ValueError(f"{file} cannot be read: {error}") from error
    try:
        mapped = shapes and zipfile.is_zipfile(file)  # torch maps no file from before 2020
        loaded: Any = torch.load(file, map_location="meta" if shapes else "cpu", weights_only=True, mmap=mapped)
    except UNREADABLE as error:
        raise ValueError(f"{file} cannot be read: cut short, or no weights ({type(error).__name__})") from error
    weights = loaded.get("state_dict", loaded) if isinstance(loaded, dict) else None
    if not isinstance(weights, dict) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{file} holds no weights: expected tensors by name")
    return weights


@torch.no_grad()
def _copy(own: dict[str, Tensor], given: dict[str, Tensor]) -> None:
    for name, value in given.items():
        if own[name].shape != value.shape:
            raise ValueError(f"{name} has shape {tuple(own[name].shape)} here and {tuple(value.shape)} in the weights")
        own[name].copy_(value)
