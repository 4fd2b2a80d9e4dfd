"""What a GPU library's error means for the worker that met it."""

from collections.abc import Iterator
from contextlib import contextmanager

from pipeline.stage import WorkerSpoiledError

_LIBRARIES = ("CUDA", "CUDNN", "CUBLAS")
_HARMLESS = ("OUT OF MEMORY", "ALLOC_FAILED")


def spoils(error: Exception) -> bool:
    """Whether the CUDA context is of no use after this error: being out of memory alone leaves it sound."""
    said = str(error).upper()
    return any(name in said for name in _LIBRARIES) and not any(said.count(word) for word in _HARMLESS)


@contextmanager
def onnx_errors() -> Iterator[None]:
    """Raise `WorkerSpoiledError` for an error of ONNX Runtime after which the CUDA context is of no use."""
    from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

    try:
        yield
    except (EPFail, Fail, RuntimeException) as error:
        if spoils(error):
            raise WorkerSpoiledError(str(error)) from error
        raise
