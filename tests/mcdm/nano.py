"""A recipe whose every step takes milliseconds: `tiny` with all sizes cut."""

import dataclasses

import torch
from torch import Tensor

from mcdm.config import (
    ArchiveConfig,
    CodecConfig,
    MotionConfig,
    OptimizerConfig,
    PriorConfig,
    Recipe,
    StagePlan,
    UNetConfig,
    tiny,
)

SEEING = {"see_motion": True, "see_reference": True, "residual": 0.2, "prediction": "x0"}
"""What `tiny` shows its denoiser besides the noise."""


def nano(**unet: object) -> Recipe:
    """32 px, 4 frames."""
    plan = StagePlan(steps=4, batch=2, rate=1e-3)
    return dataclasses.replace(
        tiny(),
        name="nano",
        frames=4,
        codec=CodecConfig(kind="dct", size_px=32, factor=4, channels=16),
        motion=MotionConfig(
            face_px=32, width=16, heads=2, layers=1, head_tokens=1, lip_tokens=2, expression_tokens=1, token_width=8
        ),
        archive=ArchiveConfig(frames=4, patch=2, queries=4, width=16),
        prior=PriorConfig(layers=2, width=16, heads=2, sampling_steps=2),
        unet=UNetConfig(
            **{
                "channels": (16, 32),
                "attention": (True, True),
                "layers": 1,
                "heads": 2,
                "groups": 4,
                "favor_features": 16,
                "sampling_steps": 2,
                **unet,
            }
        ),
        plans=(plan, plan, plan, plan),
        optimizer=OptimizerConfig(ema_decay=0.9),
    )


def nano_of(steps: int) -> Recipe:
    """`nano` with stages of so many steps."""
    return dataclasses.replace(nano(), plans=(dataclasses.replace(nano().plans[0], steps=steps),) * 4)


def random_batch(recipe: Recipe, rows: int = 2, seed: int = 0) -> dict[str, Tensor]:
    """A batch of random numbers with every member's shape."""
    source = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source)

    codec, f, a = recipe.codec, recipe.frames, recipe.archive.frames
    latent = (codec.channels, codec.latent_px, codec.latent_px)
    return {
        "seed": torch.arange(rows) + 100 * seed,
        "present": normal(rows, f, *latent),
        "archived": normal(rows, a, *latent),
        "reference": normal(rows, 1, *latent),
        "face": normal(rows, a + f, recipe.motion.face_px, recipe.motion.face_px).clamp(-1, 1),
        "points": normal(rows, a + f, 5, 2) * 0.1,
        "head": normal(rows, a + f, 13) * 0.1,
        "reference_head": normal(rows, 13) * 0.1,
        "audio": normal(rows, a + f, recipe.audio.tokens, recipe.audio.width),
        "image": normal(rows, recipe.image.width),
    }
