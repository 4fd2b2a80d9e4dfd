"""Limits of a recipe's settings. Each raises `ValueError` with the setting's name, as `--set` has it, and its value."""

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcdm.config import Recipe, UNetConfig


def at_least(group: object, prefix: str, least: int, *names: str) -> None:
    """These numbers of a group are finite, and `least` or more."""
    for name in names:
        value = getattr(group, name)
        if not least <= value < float("inf"):
            raise ValueError(f"{prefix}{name}={value}: expected at least {least}")


def above_zero(group: object, prefix: str, *names: str) -> None:
    """These numbers of a group are finite and above 0."""
    for name in names:
        value = getattr(group, name)
        if not 0 < value < float("inf"):
            raise ValueError(f"{prefix}{name}={value}: expected a number above 0")


def share(group: object, prefix: str, *names: str) -> None:
    """These numbers of a group lie from 0 to 1."""
    for name in names:
        value = getattr(group, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{prefix}{name}={value}: expected a share from 0 to 1")


def divides(name: str, part: int, of: str, *wholes: int) -> None:
    """`part` divides every one of `wholes`."""
    for whole in wholes:
        if whole % part:
            raise ValueError(f"{name}={part}: does not divide {of}={whole}")


def between(group: object, prefix: str, low: int, high: int, *names: str) -> None:
    """These whole numbers of a group lie from `low` to `high`."""
    for name in names:
        value = getattr(group, name)
        if not low <= value <= high:
            raise ValueError(f"{prefix}{name}={value}: expected {low} to {high}")


def even(name: str, *values: int) -> None:
    """Widths that sines and cosines share; sides of pictures that become video."""
    for value in values:
        if value < 2 or value % 2:
            raise ValueError(f"{name}={value}: expected an even number above 0")


def check_unet(unet: "UNetConfig") -> None:
    """The UNet's settings fit each other."""
    _widths(unet)
    _noise(unet)
    if (dropped := unet.drop_archived + unet.drop_present + unet.drop_both) > 1 + 1e-9:
        raise ValueError(f"unet.drop_archived, drop_present and drop_both are shares of all clips: {dropped:g} in sum")
    if not math.isfinite(unet.guidance):
        raise ValueError(f"unet.guidance={unet.guidance}: expected a number")


def _widths(unet: "UNetConfig") -> None:
    """The UNet's widths fit its levels, groups and heads; the middle has attention too."""
    channels = unet.channels
    if not channels or len(channels) != len(unet.attention):
        said = ",".join(map(str, channels))
        raise ValueError(f"unet.channels={said}: expected as many values as unet.attention has, {len(unet.attention)}")
    even("unet.channels", *channels)
    divides("unet.groups", unet.groups, "unet.channels", *channels)
    attended = [width for width, on in zip(channels, unet.attention, strict=True) if on]
    divides("unet.heads", unet.heads, "unet.channels", *attended, channels[-1])


def _noise(unet: "UNetConfig") -> None:
    """What is asked of the last timestep, where sampling starts, can be answered and is learned."""
    if unet.zero_snr and unet.prediction == "eps":
        raise ValueError("unet.zero_snr=true: unet.prediction=eps finds no picture in a last step of pure noise")
    if unet.zero_snr and unet.min_snr:
        raise ValueError(f"unet.zero_snr=true: with unet.min_snr={unet.min_snr:g} the last step would weigh nothing")


def check_together(recipe: "Recipe") -> None:
    """Settings of different groups fit each other."""
    if recipe.unet.strict and (recipe.unet.memory_zero_init or not recipe.unet.use_memory):
        why = "with memory_zero_init" if recipe.unet.memory_zero_init else "without use_memory"
        raise ValueError(f"strict {why}: no gradient would reach the archived clip in stage 1")
    if recipe.unet.archived_reads == "aligned" and recipe.archive.frames != recipe.frames:
        raise ValueError(f"aligned needs as many archived as present frames: {recipe.archive.frames}, {recipe.frames}")
    if recipe.unet.residual and recipe.unet.prediction != "x0":
        raise ValueError(f"unet.residual goes with prediction x0, not {recipe.unet.prediction}")
    if recipe.unet.see_motion and (recipe.codec.kind != "dct" or not recipe.unet.residual):
        raise ValueError("unet.see_motion moves pictures of the dct codec, and goes with unet.residual")
    if recipe.unet.repaint < 1 and not recipe.unet.see_motion:
        raise ValueError("unet.repaint below 1 needs unet.see_motion: it says where mouth and eyes are")
    if recipe.unet.pixel_error and (recipe.codec.kind != "dct" or not recipe.unet.residual):
        raise ValueError("unet.pixel_error looks at pictures of the dct codec, and goes with unet.residual")
    side = recipe.codec.latent_px
    if side % recipe.archive.patch or side % 2 ** (len(recipe.unet.channels) - 1):
        raise ValueError(f"latents of {side} px fit neither the patches nor the UNet's levels")
