"""Whether a stage may use a GPU and does, and what a GPU library's error means for the worker that met it."""

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

from pipeline.stage import MemoryFullError, WorkerSpoiledError

_LASTING = (
    *("illegal memory access", "illegal address", "illegal instruction", "misaligned address"),
    *("invalid program counter", "hardware stack error", "unspecified launch failure", "launch timed out"),
    *("shared address space", "peer gpu memory"),
    # 999, as torch, CTranslate2 and ONNX Runtime have it
    *("cuda error: unknown error", "cuda failed with error unknown error", "cuda failure 999: unknown error"),
    *("device-side assert", "uncorrectable", "mapping_error", "execution_failed", "internal_error"),
)
_FULL = (
    *("out of memory", "allocation_failed", "alloc_failed", "failed to allocate memory"),
    # No room for a handle of cuBLAS or cuDNN, which are made at the first product and the first convolution. What else
    # they say so of, such as a cuDNN that does not fit, lasts: after 20 videos in a row it ends the run.
    *("cublas_status_not_initialized", "cudnn_status_not_initialized"),
)

Provider: TypeAlias = str | tuple[str, dict[str, str]]
"""One of ONNX Runtime's, by name, or by name and options."""

_ON_GPU = "CUDAExecutionProvider"
ON_PROCESSOR: list[Provider] = ["CPUExecutionProvider"]


def has_gpu() -> bool:
    """Whether this process may use a CUDA device: asks the driver, which heeds CUDA_VISIBLE_DEVICES.

    What there is to be used and cannot be is an error, told by those below: the libraries themselves go on without a
    word on the processor, at the price of the GPU. ONNX Runtime lists its CUDA provider on machines without a device.
    """
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    count = ctypes.c_int()
    return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0


def gpu_memory_gb() -> float | None:
    """Memory of the first GPU that this process may use, None where there is none."""
    if not has_gpu():
        return None
    driver, device, size = ctypes.CDLL("libcuda.so.1"), ctypes.c_int(), ctypes.c_size_t()
    failed = driver.cuDeviceGet(ctypes.byref(device), 0) or driver.cuDeviceTotalMem_v2(ctypes.byref(size), device)
    return None if failed else size.value / 1e9


def torch_device(wanted: str, gpus: float) -> str:
    """Where a stage's torch and CTranslate2 networks run; "auto": on a GPU if it asks for `gpus` and one is there.

    Raises `ValueError` for a GPU that is not to be had, and `MemoryFullError` for one that others fill.
    """
    if wanted == "auto":
        wanted = "cuda" if gpus and has_gpu() else "cpu"
    if wanted.startswith("cuda"):
        import torch

        if not gpus:
            raise ValueError(f"device {wanted}: the stage asks for no GPU: --set STAGE.resources.gpus=0.25")
        try:
            torch.empty(0, device=wanted)
        except (RuntimeError, AssertionError) as error:  # what torch says of a driver, or of a build without CUDA
            raise _refused(error)(f"torch cannot use the GPU: {str(error).splitlines()[0]}") from error
    return wanted


def onnx_providers(gpus: float) -> list[Provider]:
    """Where a stage that asks for `gpus` has its ONNX sessions work; see `hold`. On a GPU without TF32, the provider's
    default: what is found there is told from what a processor finds by rounding alone."""
    return [(_ON_GPU, {"use_tf32": "0"}), *ON_PROCESSOR] if gpus and has_gpu() else ON_PROCESSOR


def hold(session: Any, providers: list[Provider], work: Callable[[], object]) -> None:
    """Move an ONNX session that was made `ON_PROCESSOR` to where it is wanted, and keep it there.

    On a GPU it does `work` once, of the size that it will have: convolutions are planned at their first run, which is
    where a cuDNN that cannot convolve is met. Raises `ValueError` for a GPU that cannot be used, and `MemoryFullError`
    for one that others fill. ONNX Runtime itself falls back to the processor for good, unseen, when it makes a session
    for a GPU as when it runs one.
    """
    import onnxruntime

    session.disable_fallback()
    if providers == ON_PROCESSOR:
        return
    refusals: tuple[type[Exception], ...] = (RuntimeError, *_onnx_kinds())
    onnxruntime.preload_dlls()  # CUDA and cuDNN of the packages lie on no path of the loader
    try:
        session.set_providers(providers)
        if _ON_GPU not in session.get_providers():
            raise ValueError("ONNX Runtime cannot load its CUDA provider: are the packages those of requirements.txt?")
        work()
    except refusals as error:
        said = re.search(r"\w+ failure \d+: [^;\n]*", str(error))
        why = said[0].strip() if said else str(error).splitlines()[0]
        raise _refused(error)(f"ONNX Runtime cannot use the GPU: {why}") from error


def try_whisper(work: Callable[[], object]) -> None:
    """Do a first piece of CTranslate2's work on a GPU. Raises `ValueError` where the GPU cannot be used, and
    `MemoryFullError` where others fill it.

    Loading runs no kernel of its own. For GPUs that are newer than its kernels (Hopper and later) the driver translates
    them at their first call, and one that is older than the CUDA 12.8 they were made with cannot.
    """
    try:
        work()
    except RuntimeError as error:
        why = str(error).splitlines()[0]
        if "unsupported toolchain" in why or "UnsupportedPtxVersion" in why:
            why = f"its driver is too old, Hopper (H100) and newer GPUs want one of 570 or later here ({why})"
        raise _refused(error)(f"CTranslate2 cannot use the GPU: {why}") from error


@contextmanager
def exactly() -> Iterator[None]:
    """Without TF32, cuDNN's default and what a trainer sets: it costs the third digit of SyncNet's distances, and
    cuDNN 9.10 gets convolutions over time wrong with it (pytorch/pytorch#167024)."""
    import torch

    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            yield
    finally:
        torch.set_float32_matmul_precision(before)


def _refused(error: Exception) -> type[ValueError | MemoryFullError]:
    return MemoryFullError if full(error) else ValueError


def spoils(error: Exception) -> bool:
    """Whether the CUDA context is of no use after this error of torch, ONNX Runtime or CTranslate2.

    Being out of memory leaves it sound. What a new worker would meet as well (a driver or a kernel that does not fit
    the GPU, a mistake of ours) is a failure like others, of which the run says the cause.
    """
    said = str(error).lower()
    return any(word in said for word in _LASTING) and not full(error)


def full(error: Exception) -> bool:
    """Whether a library found no memory: not for a video's sake, since what goes to a GPU at once is of one size."""
    return any(word in str(error).lower() for word in _FULL)


@contextmanager
def spoiled_by(*kinds: type[Exception]) -> Iterator[None]:
    """Raise `WorkerSpoiledError` for an error of these kinds after which the CUDA context is of no use, and
    `MemoryFullError` for one of memory."""
    try:
        yield
    except kinds as error:
        if spoils(error):
            raise WorkerSpoiledError(str(error)) from error
        if full(error):
            raise MemoryFullError(str(error).splitlines()[0]) from error
        raise


def onnx_errors() -> AbstractContextManager[None]:
    """`spoiled_by` the errors of ONNX Runtime, which are no `RuntimeError`."""
    return spoiled_by(*_onnx_kinds())


def _onnx_kinds() -> tuple[type[Exception], ...]:
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

    return EPFail, Fail, RuntimeException
