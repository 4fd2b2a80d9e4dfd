"""The two networks of the sample face pack, in the layouts that insightface's SCRFD and ArcFaceONNX read.

Small relatives of SCRFD (Guo et al., 2021: two square anchors per place at strides 8, 16, 32, generalised focal loss)
and MobileFaceNet (Chen et al., 2018: a depthwise convolution over the whole last map instead of pooling).
"""

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDES = (8, 16, 32)
ANCHORS_PX = ((16.0, 32.0), (64.0, 128.0), (256.0, 512.0))
EMBEDDING = 128

_OPSET = 13


class Separable(nn.Sequential):
    """Depthwise 3 x 3, pointwise 1 x 1, each normalised and rectified."""

    def __init__(self, inward: int, outward: int, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inward, inward, 3, stride, 1, groups=inward, bias=False),
            nn.BatchNorm2d(inward),
            nn.ReLU(inplace=True),
            nn.Conv2d(inward, outward, 1, bias=False),
            nn.BatchNorm2d(outward),
            nn.ReLU(inplace=True),
        )


def _stem(channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, channels, 3, 2, 1, bias=False), nn.BatchNorm2d(channels), nn.ReLU(inplace=True))


class Detector(nn.Module):
    """Pictures (n, 3, h, w), RGB - 127.5 over 128, to per-stride maps: scores (n, 2, ...), boxes 8, landmarks 20.

    Scores are logits. Boxes are distances left, top, right, bottom from (column * stride, row * stride), landmarks
    offsets x, y from there, both in strides; the two anchors lie one after the other.
    """

    def __init__(self, width: int = 64) -> None:
        super().__init__()
        self.quarter = nn.Sequential(_stem(16), Separable(16, 32, 2))
        self.eighth = nn.Sequential(Separable(32, 64, 2), Separable(64, 64))
        self.sixteenth = nn.Sequential(Separable(64, 96, 2), Separable(96, 96), Separable(96, 96))
        self.thirty_second = nn.Sequential(Separable(96, 128, 2), Separable(128, 128), Separable(128, 128))
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in (64, 96, 128))
        self.towers = nn.ModuleList(nn.Sequential(Separable(width, width), Separable(width, width)) for _ in STRIDES)
        self.score = nn.ModuleList(nn.Conv2d(width, 2, 1) for _ in STRIDES)
        self.box = nn.ModuleList(nn.Conv2d(width, 8, 1) for _ in STRIDES)
        self.lmk = nn.ModuleList(nn.Conv2d(width, 20, 1) for _ in STRIDES)
        for heads, first in ((self.score, -4.6), (self.box, 2.0)):  # one place in a hundred is a face, to begin with
            for name, parameter in heads.named_parameters():
                if name.endswith("bias"):
                    nn.init.constant_(parameter, first)

    def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """Maps of score logits, boxes and landmarks, at strides 8, 16, 32."""
        c3 = self.eighth(self.quarter(x))
        c4 = self.sixteenth(c3)
        c5 = self.thirty_second(c4)
        p5 = self.lateral[2](c5)
        p4 = self.lateral[1](c4) + F.interpolate(p5, scale_factor=2.0, mode="nearest")
        p3 = self.lateral[0](c3) + F.interpolate(p4, scale_factor=2.0, mode="nearest")
        seen = [tower(p) for tower, p in zip(self.towers, (p3, p4, p5), strict=True)]
        heads = zip(seen, self.score, self.box, self.lmk, strict=True)
        return [(score(s), box(s), lmk(s)) for s, score, box, lmk in heads]


class _Flat(nn.Module):
    """The detector with its outputs as SCRFD's ONNX files have them: three scores, three boxes, three landmarks."""

    def __init__(self, net: Detector) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        maps = self.net(x)
        scores = [m[0].permute(0, 2, 3, 1).reshape(-1, 1).sigmoid() for m in maps]
        boxes = [m[1].permute(0, 2, 3, 1).reshape(-1, 4) for m in maps]
        return (*scores, *boxes, *(m[2].permute(0, 2, 3, 1).reshape(-1, 10) for m in maps))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.inner = Separable(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.inner(x)
        return y


class Embedder(nn.Module):
    """Aligned faces (n, 3, 112, 112), RGB - 127.5 over 127.5, to embeddings (n, 128), not normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _stem(32),
            Separable(32, 64, 2),
            _Residual(64),
            Separable(64, 96, 2),
            _Residual(96),
            _Residual(96),
            Separable(96, 160, 2),
            _Residual(160),
            nn.Conv2d(160, 160, 7, groups=160, bias=False),
            nn.BatchNorm2d(160),
            nn.Flatten(),
            nn.Linear(160, EMBEDDING, bias=False),
            nn.BatchNorm1d(EMBEDDING),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Embeddings whose direction says who it is."""
        y: Tensor = self.body(x)
        return y


def export_detector(net: Detector, path: Path) -> None:
    """Write an SCRFD-type ONNX file for any input size in multiples of 32."""
    names = [f"{kind}_{stride}" for kind in ("score", "bbox", "kps") for stride in STRIDES]
    torch.onnx.export(
        _Flat(net).eval(),
        (torch.zeros(1, 3, 320, 320),),
        str(path),
        input_names=["input.1"],
        output_names=names,
        dynamic_axes={"input.1": {2: "height", 3: "width"}, **{name: {0: "places"} for name in names}},
        opset_version=_OPSET,
        dynamo=False,
    )


def export_embedder(net: Embedder, path: Path) -> None:
    """Write an ArcFace-type ONNX file for any number of faces."""
    torch.onnx.export(
        net.eval(),
        (torch.zeros(1, 3, 112, 112),),
        str(path),
        input_names=["input.1"],
        output_names=["embedding"],
        dynamic_axes={"input.1": {0: "faces"}, "embedding": {0: "faces"}},
        opset_version=_OPSET,
        dynamo=False,
    )
