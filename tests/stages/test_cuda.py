"""Errors of GPU libraries: which of them end a worker."""

import numpy as np
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

from pipeline.stage import WorkerSpoiledError
from stages import weights
from stages.cuda import onnx_errors, spoils
from stages.faces import Faces
from stages.identity import open_recogniser


@pytest.mark.parametrize(
    ("said", "spoiled"),
    [
        ("CUDA failed with error an illegal memory access was encountered", True),
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", True),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", True),
        ("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED", True),
        ("CUDA failed with error out of memory", False),
        ("CUDA error: device-side assert triggered", True),
        ("cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED", False),
        ("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED", False),
        ("CUDA failure 209: no kernel image is available for execution on the device", False),
        ("CUDA driver version is insufficient for CUDA runtime version", False),
        ("Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu!", False),
        ("Got invalid dimensions for input: input.1", False),
    ],
)
def test_what_a_new_worker_would_not_meet_again_spoils_a_context(said, spoiled):
    assert spoils(RuntimeError(said)) is spoiled


@pytest.mark.parametrize("kind", [Fail, RuntimeException])
def test_a_worker_whose_context_is_spoiled_says_so_and_one_that_met_a_bad_input_does_not(kind):
    with pytest.raises(WorkerSpoiledError, match="700"), onnx_errors():
        raise kind("CUDA failure 700: an illegal memory access was encountered")
    with pytest.raises(kind, match="dimensions"), onnx_errors():
        raise kind("Got invalid dimensions for input")


class Failing:
    """In place of the native session: a GPU that cannot run a kernel."""

    def run(self, *_: object) -> None:
        raise EPFail("CUDA failure 700: an illegal memory access was encountered")


def test_a_network_that_its_gpu_fails_does_not_go_on_unseen_on_the_processor():
    pack = weights.path("sample/faces")
    recogniser, detector = open_recogniser(pack), Faces(pack="sample/faces").open()
    for session in (recogniser.session, detector._net.session):
        (wanted,) = session.get_inputs()
        session._sess = Failing()
        with pytest.raises(WorkerSpoiledError), onnx_errors():
            session.run(None, {wanted.name: np.zeros((1, 3, 112, 112), np.float32)})
