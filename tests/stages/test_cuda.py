"""Errors of GPU libraries: which of them end a worker."""

import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnxruntime
import pytest
from onnxruntime.capi.onnxruntime_pybind11_state import EPFail, Fail, RuntimeException

from pipeline.stage import MemoryFullError, Resources, WorkerSpoiledError
from stages import weights
from stages.cuda import gpu_memory_gb, has_gpu, hold, onnx_errors, spoiled_by, spoils, torch_device
from stages.faces import Faces
from stages.identity import Recognise, open_recogniser
from stages.speech import Transcribe
from stages.sync import ScoreSync
from stages.watch import Watch

PACK = "sample/faces"
FACE = np.zeros((112, 112, 3), np.uint8)


@pytest.mark.parametrize(
    ("said", "spoiled"),
    [
        ("CUDA failed with error an illegal memory access was encountered", True),
        ("CUDA failure 700: an illegal memory access was encountered ; GPU=0", True),
        ("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED", True),
        ("cuBLAS failed with status CUBLAS_STATUS_EXECUTION_FAILED", True),
        ("CUDA error: unknown error", True),
        ("CUDA failed with error unknown error", True),
        ("CUDA failure 999: unknown error ; GPU=0", True),
        ("unknown error", False),
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


@pytest.fixture
def in_name(monkeypatch):
    """A GPU in name: sessions made for it work on the processor, and say that they do not. Gives the names of their
    files, and how the GPU was asked for."""
    on_gpu: list[tuple[str, object]] = []
    make = onnxruntime.InferenceSession._create_inference_session

    def pretend(session, providers, *given):
        make(session, ["CPUExecutionProvider"], *given)
        names = [one if isinstance(one, str) else one[0] for one in providers]
        if "CUDAExecutionProvider" in names:
            session._providers = names
            on_gpu.append((Path(session._model_path or "made of bytes").name, providers[0]))

    monkeypatch.setattr("stages.cuda.has_gpu", lambda: True)
    monkeypatch.setattr("onnxruntime.preload_dlls", lambda: None)
    monkeypatch.setattr("onnxruntime.InferenceSession._create_inference_session", pretend)
    return on_gpu


def test_a_network_that_its_gpu_fails_does_not_go_on_unseen_on_the_processor(in_name):
    detector, recogniser = Faces(pack=PACK).open(gpus=0.05), open_recogniser(weights.path(PACK), 0.05)
    for net, look in ((detector._net, detector.detect), (recogniser, recogniser.get_feat)):
        look([FACE])
        for session in (net.session, *getattr(net, "resolution_sessions", {}).values()):
            session._sess = Failing()
        with pytest.raises(WorkerSpoiledError), onnx_errors():
            look([FACE])


def test_a_gpu_is_given_the_networks_that_work_on_it_and_each_once_without_tf32(in_name):
    Faces(pack=PACK).open(gpus=0.05).detect([FACE])
    open_recogniser(weights.path(PACK), 0.05).get_feat([FACE])
    exact = ("CUDAExecutionProvider", {"use_tf32": "0"})
    assert in_name == [("det_sample.onnx", exact), ("rec_sample.onnx", exact)]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (ValueError, "CUDNN failure 5000: CUDNN_STATUS_EXECUTION_FAILED"),
        (ValueError, "CUDNN_FE failure 8: HEURISTIC_QUERY_FAILED"),  # what a cuDNN that does not fit the card says
        (MemoryFullError, "CUDA failure 2: out of memory"),
    ],
)
def test_a_gpu_that_cannot_convolve_is_met_when_a_worker_opens(in_name, monkeypatch, kind, said):
    def run(*_: object) -> None:
        raise Fail(f"Non-zero status code returned while running Conv node. x.cc:123 {said} ; GPU=0")

    monkeypatch.setattr("onnxruntime.InferenceSession.run", run)
    for stage in (Watch(faces=Faces(pack=PACK)), Recognise(pack=PACK)):
        with pytest.raises(kind, match=f"ONNX Runtime cannot use the GPU: {said}$"):
            replace(stage, resources=Resources(gpus=0.25)).open()
        stage.open()  # on the processor nothing is run before there is a video


@pytest.mark.parametrize(
    "said",
    [
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 22.03 GiB",
        "CUDA failed with error out of memory",
        "cuBLAS failed with status CUBLAS_STATUS_ALLOC_FAILED",
        "CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`",
        "cuDNN error: CUDNN_STATUS_NOT_INITIALIZED",
        "Failed to allocate memory for requested buffer of size 4096",
    ],
)
def test_a_full_gpu_postpones_the_video_and_leaves_the_worker_as_it_is(said):
    with pytest.raises(MemoryFullError, match=re.escape(said)), spoiled_by(RuntimeError):
        raise RuntimeError(said)


class Session:
    """An ONNX session that a GPU does not take."""

    def __init__(self, said: str) -> None:
        self.said = said

    def disable_fallback(self) -> None:
        pass

    def set_providers(self, _: object) -> None:
        raise EPFail(self.said)


def test_a_gpu_that_is_full_when_a_worker_opens_postpones_too(monkeypatch):
    with pytest.raises(MemoryFullError, match=r"ONNX Runtime cannot use the GPU: CUDA failure 2: out of memory$"):
        hold(Session("x.cc:123 CUDA failure 2: out of memory ; GPU=0"), ["CUDAExecutionProvider"], list)
    with pytest.raises(ValueError, match="CUDA failure 35: "):
        hold(Session("CUDA failure 35: CUDA driver version is insufficient"), ["CUDAExecutionProvider"], list)

    def full(*_: object, **__: object) -> None:
        raise RuntimeError("CUDA error: out of memory\nCompile with TORCH_USE_CUDA_DSA")

    monkeypatch.setattr("torch.empty", full)
    with pytest.raises(MemoryFullError, match=r"torch cannot use the GPU: CUDA error: out of memory$"):
        torch_device("cuda", 0.3)


def test_a_gpu_tells_its_memory_and_none_tells_none(monkeypatch):
    def write(value):
        return lambda place, *_: setattr(place._obj, "value", value) or 0

    calls = {"cuInit": lambda _: 0, "cuDeviceGetCount": write(1), "cuDeviceGet": write(7)}
    driver = SimpleNamespace(**calls, cuDeviceTotalMem_v2=write(24_000_000_000))
    monkeypatch.setattr("ctypes.CDLL", lambda _: driver)
    assert gpu_memory_gb() == 24.0
    driver.cuDeviceTotalMem_v2 = lambda *_: 100
    assert gpu_memory_gb() is None
    driver.cuInit = lambda _: 100
    assert gpu_memory_gb() is None


@pytest.mark.skipif(has_gpu(), reason="a GPU is there, and can be used")
class TestGpuThatCannotBeUsed:
    """As where the driver does not fit, or the memory is full: it is there, and no library gets it to work."""

    @pytest.fixture(autouse=True)
    def there(self, monkeypatch):
        monkeypatch.setattr("stages.cuda.has_gpu", lambda: True)

    def test_a_network_says_so_in_one_line_and_does_not_begin_unseen_on_the_processor(self):
        share = Resources(gpus=0.25)
        for stage in (
            Watch(faces=Faces(pack=PACK), resources=share),
            ScoreSync(model="sample/sync", resources=share),
            Transcribe(model="sample/whisper", align=False, resources=share),
            Recognise(pack=PACK, resources=share),
        ):
            with pytest.raises(ValueError, match=r"cannot use the GPU: .*driver") as refused:
                stage.open()
            assert "\n" not in str(refused.value)

    def test_a_stage_that_asks_for_no_gpu_leaves_it_alone(self):
        for session in (Faces(pack=PACK).open()._net.session, open_recogniser(weights.path(PACK)).session):
            assert session.get_providers() == ["CPUExecutionProvider"]
        assert (torch_device("auto", 0.0), torch_device("cpu", 0.25)) == ("cpu", "cpu")
        with pytest.raises(ValueError, match="asks for no GPU"):
            torch_device("cuda", 0.0)


def test_a_stage_that_asks_for_a_gpu_works_on_the_processor_where_there_is_none(monkeypatch):
    monkeypatch.setattr("stages.cuda.has_gpu", lambda: False)
    assert torch_device("auto", 0.25) == "cpu"
    assert Faces(pack=PACK).open(gpus=0.05)._net.session.get_providers() == ["CPUExecutionProvider"]
