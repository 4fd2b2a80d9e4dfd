"""Errors of GPU libraries: which of them end a worker."""

import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, RuntimeException

from pipeline.stage import WorkerSpoiledError
from stages.cuda import onnx_errors, spoils


@pytest.mark.parametrize(
    ("said", "spoiled"),
    [
        ("CUDA failed with error an illegal memory access was encountered", True),
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", True),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", True),
        ("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED", True),
        ("CUDA failed with error out of memory", False),
        ("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED", False),
        ("Got invalid dimensions for input: input.1", False),
    ],
)
def test_all_but_being_out_of_memory_spoils_a_context(said, spoiled):
    assert spoils(RuntimeError(said)) is spoiled


@pytest.mark.parametrize("kind", [Fail, RuntimeException])
def test_a_worker_whose_context_is_spoiled_says_so_and_one_that_met_a_bad_input_does_not(kind):
    with pytest.raises(WorkerSpoiledError, match="700"), onnx_errors():
        raise kind("CUDA failure 700: an illegal memory access was encountered")
    with pytest.raises(kind, match="dimensions"), onnx_errors():
        raise kind("Got invalid dimensions for input")
