"""What a GPU computes is what a processor does: losses, distances, boxes, embeddings. On a processor each is held
against itself, so that a machine without a GPU sees that these tests work."""

import math

import numpy as np
import pytest
import torch

from stages import weights
from stages.faces import Faces
from stages.identity import open_recogniser
from stages.nets.syncnet import PUBLISHED, SyncNet, load
from stages.sync import offset_distances
from tests.benchmarks.gpu_networks import boxes_apart
from tests.benchmarks.gpu_parts import gpus
from tests.benchmarks.gpu_train import loss_on
from tests.benchmarks.material import rendered_head
from tests.mcdm.nano import SEEING, nano
from tests.stages.test_sync import seeded, talking_noise

PACK = "sample/faces"


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    return request.param


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_a_loss_is_the_same_in_float32_and_near_it_in_bfloat16(stage, device):
    recipe = nano(**SEEING, memory_zero_init=False)
    exact = loss_on(recipe, stage, "cpu")
    assert loss_on(recipe, stage, device) == pytest.approx(exact, rel=1e-4)
    coarse = loss_on(recipe, stage, device, bf16=True)
    assert math.isfinite(coarse) and coarse == pytest.approx(exact, rel=0.05)


def test_distances_of_syncnet_are_the_same_whatever_the_trainer_has_set(device, tmp_path):
    path = tmp_path / "random.model"
    torch.save(seeded(SyncNet(PUBLISHED)), path)
    pictures, samples = talking_noise(11)

    def found(where):
        how = {"reach": 2, "batch": 4, "device": torch.device(where)}
        return offset_distances(load(path).to(where), [pictures], samples, **how)

    exact, before = found("cpu"), torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        assert exact.shape == (6, 5) and np.allclose(found(device), exact, rtol=1e-3, atol=1e-4)
    finally:
        torch.set_float32_matmul_precision(before)


def test_boxes_are_the_same_to_half_a_pixel(device):
    pictures = rendered_head(3)
    found, exact = (Faces(pack=PACK).open(gpus(where)).detect(pictures) for where in (device, "cpu"))
    apart = boxes_apart(found, exact)
    assert apart["pictures with faces"] == 3 and apart["largest difference of a box, px"] < 0.5


def test_embeddings_of_a_face_point_the_same_way(device):
    face = np.ascontiguousarray(rendered_head(1, width_px=112, height_px=112)[0])
    one, other = (
        open_recogniser(weights.path(PACK), gpus(where)).get_feat([face]).ravel() for where in (device, "cpu")
    )
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.999
