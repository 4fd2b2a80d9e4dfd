"""Where bfloat16 is too coarse: places in pictures, exponentials, the targets of a loss."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Literal, TypeAlias

import torch
from torch.amp.autocast_mode import is_autocast_available

Precision: TypeAlias = Literal["auto", "bf16", "fp32"]
"""Of what networks compute in; auto: bf16 on a GPU that has it, else fp32."""


@contextmanager
def full_precision(device: torch.device) -> Iterator[None]:
    """Inside, autocast is off, and convolutions of a GPU keep the 24 bits of float32 (TF32 has 11, and is cuDNN's
    default; matrix products have a setting of their own). Tensors that come in narrower are the caller's to widen.

    cuDNN's settings are the process's: of threads only one at a time may be inside with tensors of a GPU.
    """
    kind = device.type if is_autocast_available(device.type) else "cpu"  # shapes alone have none
    cudnn = torch.backends.cudnn
    kept = {"enabled": cudnn.enabled, "benchmark": cudnn.benchmark, "deterministic": cudnn.deterministic}
    exact = cudnn.flags(**kept, allow_tf32=False) if device.type == "cuda" else nullcontext()
    with torch.autocast(kind, enabled=False), exact:
        yield


def autocast(device: torch.device, *, bf16: bool) -> AbstractContextManager[object]:
    """Inside, networks compute in bfloat16 where it is asked for; what they answer may be bfloat16 too."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if bf16 else nullcontext()


def takes_bf16(precision: Precision, device: torch.device) -> bool:
    """What a precision means on a device."""
    return precision == "bf16" or (precision == "auto" and bf16_is_native(device))


def bf16_is_native(device: torch.device) -> bool:
    """Whether it is a GPU that computes in bfloat16 itself: before Ampere it is emulated, slower than float32."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
