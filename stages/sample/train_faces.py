"""Make the sample face pack: an SCRFD-type detector and an ArcFace-type embedder for rendered people.

    python -m stages.sample.train_faces --seed 0

Both learn from people rendered here with other seeds than the corpus's, and from nothing else: they know rendered
faces, and real ones only as far as those resemble them. About 45 minutes on one core. Deterministic for one seed, one
thread count and one build of torch on one kind of processor.
"""

import argparse
import logging
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from stages.sample.face_canvas import CANVAS_PX, Canvas, aligned, canvas
from stages.sample.face_pictures import Pictures, pictures

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from stages.sample.face_nets import Detector

log = logging.getLogger(__name__)

FOLDER = Path(__file__).parent / "faces"
_PEOPLE = 500
_UNSEEN = 40  # people at the end of the list, kept out of training
_DETECTOR_STEPS, _DETECTOR_BATCH, _DETECTOR_RATE = 3000, 16, 3e-3
_EMBEDDER_STEPS, _EMBEDDER_BATCH, _EMBEDDER_RATE = 2000, 48, 3e-3
_MARGIN, _SCALE = 0.3, 24.0  # of ArcFace (Deng et al., 2019)
_SHOW_EVERY = 50


def train_detector(source: Pictures, known: int, seed: int, steps: int) -> "Detector":
    """Learn to find faces in the first `known` pictures."""
    import torch

    from stages.sample.face_nets import Detector

    torch.manual_seed(seed)
    net = Detector()
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    rng = np.random.default_rng([seed, 1])
    for step, rate in _steps(net, steps, _DETECTOR_RATE):
        batch = [canvas(rng, source, known) for _ in range(_DETECTOR_BATCH)]
        images = _tensor([c.image for c in batch], 128.0)
        losses = _detection_loss(net(images.to(memory_format=torch.channels_last)), batch)
        rate(sum(losses))
        if step % _SHOW_EVERY == 0:
            shown = (step, steps, *(float(x.detach()) for x in losses))
            log.info("detector %d/%d: score %.3f box %.3f landmarks %.3f", *shown)
    net.eval()
    return net


def train_embedder(source: Pictures, known: int, people: int, seed: int, steps: int) -> Any:
    """Learn to tell the first `people` apart (ArcFace: additive angular margin)."""
    import torch
    from torch.nn import functional as F

    from stages.sample.face_nets import EMBEDDING, Embedder

    torch.manual_seed(seed)
    net = Embedder().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    centres = torch.nn.Parameter(torch.randn(people, EMBEDDING) * 0.05)
    net.register_parameter("centres", centres)
    rng = np.random.default_rng([seed, 2])
    faces = np.argwhere((source.person[:known] >= 0) & (source.person[:known] < people))
    for step, rate in _steps(net, steps, _EMBEDDER_RATE):
        chosen = faces[rng.integers(len(faces), size=_EMBEDDER_BATCH)]
        images = _tensor([aligned(rng, source, int(i), int(j)) for i, j in chosen], 127.5)
        who = torch.from_numpy(source.person[chosen[:, 0], chosen[:, 1]].astype(np.int64))
        cosine = F.linear(F.normalize(net(images.to(memory_format=torch.channels_last))), F.normalize(centres))
        margin = _MARGIN * min(1.0, 3 * step / steps)
        angle = torch.acos(cosine.gather(1, who[:, None]).clamp(-1 + 1e-6, 1 - 1e-6))
        loss = F.cross_entropy(_SCALE * cosine.scatter(1, who[:, None], torch.cos(angle + margin)), who)
        rate(loss)
        if step % _SHOW_EVERY == 0:
            right = float((cosine.argmax(1) == who).float().mean())
            log.info("embedder %d/%d: loss %.3f, right %.2f", step, steps, float(loss.detach()), right)
    del net.centres
    return net.eval()


def _steps(net: "torch.nn.Module", steps: int, peak: float) -> Iterator[tuple[int, Any]]:
    """Step numbers, each with the function that takes the loss and moves the weights (AdamW, cosine after warm-up)."""
    import torch

    net.train()
    optimiser = torch.optim.AdamW(net.parameters(), lr=peak, weight_decay=1e-2)

    def move(loss: "Tensor") -> None:
        optimiser.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(net.parameters(), 5.0)
        optimiser.step()

    for step in range(1, steps + 1):
        for group in optimiser.param_groups:
            group["lr"] = peak * min(step / 60, 0.5 * (1 + math.cos(math.pi * step / steps)) + 0.005)
        yield step, move


def _tensor(images: list[Any], spread: float) -> "Tensor":
    import torch

    rgb = np.stack(images)[..., ::-1].transpose(0, 3, 1, 2)
    return (torch.from_numpy(np.ascontiguousarray(rgb)).float() - 127.5) / spread


def _detection_loss(maps: list[Any], batch: list[Canvas]) -> "tuple[Tensor, Tensor, Tensor]":
    """SCRFD's: quality focal loss on scores, generalised IoU on boxes, and L1 on landmarks in shares of the face."""
    import torch
    from torch.nn import functional as F

    from stages.sample.face_nets import STRIDES

    quality, boxes, marks, n = torch.zeros(()), torch.zeros(()), torch.zeros(()), 0
    for (logit, box, lmk), stride, places in zip(maps, STRIDES, range(len(STRIDES)), strict=True):
        target = [_assigned(c, places) for c in batch]
        # The two anchors of a place lie one after the other in the channels: (n, 2, k, h, w).
        rows, columns = logit.shape[2:]
        scores = logit.permute(0, 2, 3, 1).reshape(len(batch), -1)
        boxed = box.permute(0, 2, 3, 1).reshape(len(batch), -1, 4)
        marked = lmk.permute(0, 2, 3, 1).reshape(len(batch), -1, 10)
        wanted, weight = torch.zeros_like(scores), torch.ones_like(scores)
        origin = torch.from_numpy(_places(rows, columns, stride))
        for i, (where, face, ignored) in enumerate(target):
            weight[i, torch.from_numpy(ignored)] = 0.0
            if not len(where):
                continue
            at, which = torch.from_numpy(where), torch.from_numpy(face)
            truth = torch.from_numpy(batch[i].box)[which]
            corner = origin[at]
            found = torch.cat([corner - boxed[i, at, :2] * stride, corner + boxed[i, at, 2:] * stride], 1)
            iou, giou = _iou(found, truth)
            wanted[i, at], weight[i, at] = iou.detach().clamp(0.0, 1.0), 1.0
            boxes = boxes + (1 - giou).sum()
            size = (truth[:, 3] - truth[:, 1]).clamp(min=4.0)[:, None, None]
            seen = corner[:, None] + marked[i, at].reshape(-1, 5, 2) * stride
            away = (seen - torch.from_numpy(batch[i].lmk)[which]) / size
            marks = (
                marks + F.smooth_l1_loss(away, torch.zeros_like(away), reduction="none", beta=0.02).sum((1, 2)).sum()
            )
            n += len(where)
        off = (wanted - scores.sigmoid()).abs().pow(2)
        quality = quality + (weight * off * F.binary_cross_entropy_with_logits(scores, wanted, reduction="none")).sum()
    n = max(n, 1)
    return 2 * quality / n, 2 * boxes / n, 2.5 * marks / n


def _places(rows: int, columns: int, stride: int) -> Any:
    y, x = np.mgrid[:rows, :columns].astype(np.float32) * stride
    return np.repeat(np.stack([x, y], -1).reshape(-1, 2), 2, axis=0)


def _assigned(example: Canvas, level: int) -> tuple[Any, Any, Any]:
    """Places of one level that must find a face, the number of that face, and places that may say what they like.

    A face belongs to the anchors of about its own size whose place is near its centre.
    """
    from stages.sample.face_nets import ANCHORS_PX, STRIDES

    stride = STRIDES[level]
    side = CANVAS_PX // stride
    at = _places(side, side, stride)
    anchor = np.tile(np.array(ANCHORS_PX[level], np.float32), side * side)
    best = np.full(len(at), np.inf, np.float32)
    owner = np.full(len(at), -1, np.int64)
    ignored = np.zeros(len(at), bool)
    for k, box in enumerate(example.box):
        size = math.sqrt(float(np.prod(box[2:] - box[:2])))
        octaves = np.abs(np.log2(size / anchor))
        away = np.hypot(*(at - (box[:2] + box[2:]) / 2).T)
        near = max(0.22 * size, 0.75 * stride)
        mine = (octaves < 0.75) & (away < near) & (away < best)
        ignored |= (octaves < 1.5) & (away < 1.8 * near)
        owner[mine], best[mine] = k, away[mine]
    for x0, y0, x1, y1 in example.unsure:
        ignored |= (at[:, 0] > x0) & (at[:, 0] < x1) & (at[:, 1] > y0) & (at[:, 1] < y1)
    where = np.flatnonzero(owner >= 0)
    return where, owner[where], np.flatnonzero(ignored & (owner < 0))


def _iou(a: "Tensor", b: "Tensor") -> "tuple[Tensor, Tensor]":
    """Intersection over union, and the generalised one (Rezatofighi et al., 2019), of boxes pairwise."""
    import torch

    inner = (torch.minimum(a[:, 2:], b[:, 2:]) - torch.maximum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    outer = (torch.maximum(a[:, 2:], b[:, 2:]) - torch.minimum(a[:, :2], b[:, :2])).clamp(min=0).prod(1)
    union = (a[:, 2:] - a[:, :2]).clamp(min=0).prod(1) + (b[:, 2:] - b[:, :2]).prod(1) - inner
    iou = inner / union.clamp(min=1e-6)
    return iou, iou - (outer - union) / outer.clamp(min=1e-6)


def main() -> None:
    """Render, train, write."""
    import torch

    from stages.sample.face_nets import export_detector, export_embedder

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=FOLDER)
    parser.add_argument("--people", type=int, default=_PEOPLE)
    parser.add_argument("--steps", type=int, help="of each network, to try the maker")
    parser.add_argument("--work", type=Path, help="keep the rendered pictures here and use them again")
    parser.add_argument("--only", choices=("detector", "embedder"), help="make one of the two networks")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(
        1
    )  # the maps are small: a second thread mostly waits, and on a busy machine burns ten times the time
    torch.use_deterministic_algorithms(mode=True)
    started = time.process_time()
    with tempfile.TemporaryDirectory() as scratch:
        source = pictures(given.work or Path(scratch), people=given.people, seed=given.seed)
        people = given.people - min(_UNSEEN, given.people // 10)
        known = int(np.flatnonzero((source.person >= people).any(axis=1))[0])
        log.info("%d pictures, %d for learning; %.0f CPU s", len(source.image), known, time.process_time() - started)
        given.out.mkdir(parents=True, exist_ok=True)
        if given.only != "embedder":
            detector = train_detector(source, known, given.seed, given.steps or _DETECTOR_STEPS)
            export_detector(detector, given.out / "det_sample.onnx")
            log.info("detector written; %.0f CPU s", time.process_time() - started)
        if given.only != "detector":
            embedder = train_embedder(source, known, people, given.seed, given.steps or _EMBEDDER_STEPS)
            export_embedder(embedder, given.out / "rec_sample.onnx")
            log.info("embedder written; %.0f CPU s", time.process_time() - started)


if __name__ == "__main__":
    main()
