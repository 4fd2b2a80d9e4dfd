"""What a GPU library's error means for the worker that met it."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager

from pipeline.stage import WorkerSpoiledError

_LASTING = (
    *("illegal memory access", "illegal address", "illegal instruction", "misaligned address"),
    *("invalid program counter", "hardware stack error", "unspecified launch failure", "launch timed out"),
    *("shared address space", "peer gpu memory", "cuda error: unknown error"),
    *("device-side assert", "uncorrectable", "mapping_error", "execution_failed", "internal_error"),
)
_HARMLESS = ("out of memory", "allocation_failed")


def spoils(error: Exception) -> bool:
    """Whether the CUDA context is of no use after this error of torch, ONNX Runtime or CTranslate2.

    Being out of memory leaves it sound. What a new worker would meet as well (a driver or a kernel that does not fit
    the GPU, a mistake of ours) is a failure like others, of which the run says the cause.
    """
    said = str(error).lower()
    return any(word in said for word in _LASTING) and not any(word in said for word in _HARMLESS)


@contextmanager
def spoiled_by(*kinds: type[Exception]) -> Iterator[None]:
    """Raise `WorkerSpoiledError` for an error of these kinds after which the CUDA context is of no use."""
    try:
        yield
    except kinds as error:
        if spoils(error):
            raise WorkerSpoiledError(str(error)) from error
        raise


def onnx_errors() -> AbstractContextManager[None]:
    """`spoiled_by` the errors of ONNX Runtime, which are no `RuntimeError`."""
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

    return spoiled_by(EPFail, Fail, RuntimeException)
