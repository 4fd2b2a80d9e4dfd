"""Which settings of a trained recipe may still be changed from the command line."""

from collections.abc import Sequence
from typing import TypeVar

from pipeline.override import override

T = TypeVar("T")

_IN_USE = (
    *("codec.path", "audio.path", "image.path"),
    *("prior.temperature", "prior.gain", "prior.sampling_steps", "unet.guidance", "unet.sampling_steps"),
)
"""What a trained recipe may be told anew when video is made: where encoders lie, and how it is sampled."""


def in_use(recipe: T, assignments: Sequence[str]) -> T:
    """`override` for a recipe that was trained with; raises `ValueError` for settings that its weights are bound to."""
    changed = override(recipe, *assignments)
    for name in (assignment.partition("=")[0] for assignment in assignments):
        if name not in _IN_USE:
            raise ValueError(f"--set {name}: decided when it was trained; expected one of {', '.join(_IN_USE)}")
    return changed
