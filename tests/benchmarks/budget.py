"""The physical budget: multiply-adds per frame of each network, what this core can do of them, and what it does."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import onnx
import onnxruntime
import torch
from torch import nn

from manifests.records import RATE_HZ
from stages import weights
from stages.faces import Faces
from stages.identity import Recognise
from stages.nets.syncnet import FACE_PX, PUBLISHED, WINDOW_COLUMNS, WINDOW_FRAMES, SyncNet, load
from tests.benchmarks.material import face_pack, head_video_1080p, random_syncnet, talking_clips
from tests.benchmarks.record import Findings
from tests.benchmarks.turns import spread

SIDE = 1536
"""Of the square matrices whose product tells what a core can do."""

LIP_WINDOWS = 32
CLIP_S = 10.0
"""A clip's length where a cost per clip is told per frame."""

MADE_S, REAL_S = 6.0, 15.0


@dataclass(frozen=True)
class Transformer:
    """The sizes of a Whisper (OpenAI, `model.dims`)."""

    width: int
    layers: int
    mels: int
    words: int
    heard: int = 1500  # positions of 30 s

    @property
    def encoder(self) -> float:
        """Multiply-adds of 30 s of sound: two convolutions, then attention and a hidden layer of four widths."""
        d, n = self.width, self.heard
        return 2 * n * 3 * self.mels * d + n * 3 * d * d + self.layers * (12 * n * d * d + 2 * n * n * d)

    @property
    def per_token(self) -> float:
        """Multiply-adds of one token of one beam, keys and values of what was heard known."""
        d = self.width
        return self.layers * (14 * d * d + 2 * self.heard * d) + self.words * d


LARGE_V3 = Transformer(width=1280, layers=32, mels=128, words=51_866)
BEAM, TOKENS_PER_S = 5, 4.0


def measure(folder: Path, repeats: int) -> Findings:
    """Everything on one core, one thread."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(folder, repeats)
    finally:
        torch.set_num_threads(before)


def _measure(folder: Path, repeats: int) -> Findings:
    pack, faces = face_pack()
    place = weights.path(pack)
    looking, recognising = Faces(pack=pack), Recognise(pack=pack)
    detector, embedder = (_network(place, outputs) for outputs in (lambda n: n > 1, lambda n: n == 1))
    able = _matmul(repeats)
    net = load(random_syncnet(folder))
    crops = np.random.default_rng(0).integers(0, 255, (LIP_WINDOWS + WINDOW_FRAMES - 1, FACE_PX, FACE_PX, 3), np.uint8)
    heard = torch.randn(LIP_WINDOWS, 13, WINDOW_COLUMNS)
    with torch.inference_mode():
        inputs = net.inputs(crops, torch.device("cpu"))
        networks = {
            "SCRFD, per look (two frames a sheet)": (
                _onnx_macs(detector, looking.det_size_px) / looking.per_sheet,
                _fastest(_session(detector, looking.det_size_px), repeats) / looking.per_sheet,
            ),
            "SyncNet lips, per frame": (
                _torch_macs(lambda: net.lips(inputs), net) / LIP_WINDOWS,
                _fastest(lambda: net.lips(inputs), repeats) / LIP_WINDOWS,
            ),
            "SyncNet voice, per frame": (
                _torch_macs(lambda: net.voices(heard), net) / LIP_WINDOWS,
                _fastest(lambda: net.voices(heard), repeats) / LIP_WINDOWS,
            ),
            f"face embedding, {recognising.faces} per clip of {CLIP_S:g} s, per frame": tuple(
                one * recognising.faces / (CLIP_S * RATE_HZ)
                for one in (_onnx_macs(embedder, 112), _fastest(_session(embedder, 112), repeats))
            ),
        }
    spoken = LARGE_V3.encoder / 30 / RATE_HZ, LARGE_V3.per_token * BEAM * TOKENS_PER_S / RATE_HZ
    numbers: dict[str, Any] = {"one core, fp32 matrix product: G multiply-adds per s": able / 1e9}
    for name, (macs, seconds) in networks.items():
        numbers[f"{name}: M multiply-adds"] = macs / 1e6
        numbers[f"{name}: ms at that rate"] = 1000 * macs / able
        numbers[f"{name}: ms measured"] = 1000 * seconds
    numbers["Whisper large-v3 encoder, per frame heard once: M multiply-adds, by its sizes"] = spoken[0] / 1e6
    numbers[f"Whisper large-v3 decoder, beam {BEAM}, {TOKENS_PER_S:g} tokens/s, per frame: M multiply-adds"] = (
        spoken[1] / 1e6
    )
    numbers["Whisper large-v3, per frame: ms at that rate"] = 1000 * sum(spoken) / able
    real = talking_clips(REAL_S, least_height_px=1080)
    for name, paths in {"made": [head_video_1080p(folder / "head.mp4", MADE_S)], "real": real}.items():
        numbers |= _decode(name, paths, repeats)
    return Findings(
        numbers=numbers,
        notes=(
            f"faces: {faces}; SyncNet: published sizes {PUBLISHED.lip} and {PUBLISHED.audio}",
            f"looks: every {looking.every} frames where faces are steady, every frame where they are not",
        ),
    )


def _matmul(repeats: int) -> float:
    """Multiply-adds per second of the fastest of some products of large matrices."""
    a, b = torch.randn(SIDE, SIDE), torch.randn(SIDE, SIDE)
    return SIDE**3 / _fastest(lambda: a @ b, repeats)


def _fastest(call: Callable[[], Any], repeats: int) -> float:
    """Processor seconds of the best of `repeats`, after one that is not counted."""
    call()
    found = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        found.append(time.process_time() - start)
    return min(found)


def _network(pack: Path, outputs: Callable[[int], bool]) -> Path:
    """The file of a pack by how many outputs it has: SCRFD has nine, an embedder one."""
    return next(file for file in sorted(pack.glob("*.onnx")) if outputs(len(onnx.load(file).graph.output)))


def _session(file: Path, side_px: int) -> Callable[[], Any]:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(0).random((1, 3, side_px, side_px), np.float32)
    return lambda: session.run(None, {session.get_inputs()[0].name: image})


def _onnx_macs(file: Path, side_px: int) -> float:
    """Multiply-adds of the convolutions and products of a network on one square picture."""
    model = onnx.load(file)
    for dim, size in zip(model.graph.input[0].type.tensor_type.shape.dim, (1, 3, side_px, side_px), strict=True):
        dim.ClearField("dim_param")
        dim.dim_value = size
    graph = onnx.shape_inference.infer_shapes(model).graph
    sizes = {one.name: tuple(one.dims) for one in graph.initializer}
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in (*graph.value_info, *graph.output)}
    total = 0.0
    for node in graph.node:
        if node.op_type == "Conv":
            total += float(np.prod(shapes[node.output[0]])) * float(np.prod(sizes[node.input[1]][1:]))
        elif node.op_type in ("Gemm", "MatMul"):
            total += float(np.prod(sizes[node.input[1]]))  # one row
    return total


def _torch_macs(call: Callable[[], Any], network: SyncNet) -> float:
    """Multiply-adds of the convolutions and linear layers that a call runs through."""
    total = 0.0

    def add(module: nn.Module, _: Any, output: torch.Tensor) -> None:
        nonlocal total
        weight = module.weight
        assert isinstance(weight, torch.Tensor)
        total += output.numel() * weight[0].numel()

    kinds = (nn.Conv2d, nn.Conv3d, nn.Linear)
    hooks = [module.register_forward_hook(add) for module in network.modules() if isinstance(module, kinds)]
    call()
    for hook in hooks:
        hook.remove()
    return total


def _decode(name: str, paths: list[Path], repeats: int) -> dict[str, Any]:
    """Bytes and milliseconds of a picture of 1080 rows, one thread, no conversion; nothing without footage."""
    if not paths:
        return {}
    sizes: list[int] = []
    for path in paths:
        with av.open(str(path)) as container:
            sizes += [packet.size for packet in container.demux(video=0) if packet.size]

    def decode() -> None:
        for path in paths:
            with av.open(str(path)) as container:
                container.streams.video[0].codec_context.thread_count = 1
                for _ in container.decode(video=0):
                    pass

    took = [_fastest(decode, 1) for _ in range(repeats)]
    return {
        f"decode of 1080p, {name}: bytes per picture": float(np.mean(sizes)),
        f"decode of 1080p, {name}: ms per picture": spread([1000 * one / len(sizes) for one in took]),
    }
