"""FID and FVD: the distance, and what the networks are asked and shown."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mcdm.frechet import FrechetNetwork, distance, frechet

CPU = torch.device("cpu")


class Pictures(nn.Module):
    """A picture network of the published form: mean colours, 3 features."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        assert return_features
        return x.float().mean((2, 3))


class Videos(nn.Module):
    """A video network of the published form; what it is asked for stands in its features."""

    def forward(self, x: Tensor, rescale: bool = False, resize: bool = False, return_features: bool = False) -> Tensor:
        assert x.dtype == torch.uint8 and x.shape[1] == 3 and x.shape[2] == 16
        asked = torch.tensor([[float(rescale), float(resize), float(return_features)]])
        return torch.cat([x.float().mean((2, 3, 4)), asked.expand(len(x), 3)], 1)


def saved(network, path):
    torch.jit.script(network).save(str(path))
    return FrechetNetwork(path, CPU)


def video(seed, frames=40):
    return np.random.default_rng(seed).integers(0, 256, (frames, 8, 8, 3), dtype=np.uint8)


def distance_of(network, true, made, *, videos):
    return distance(
        *([part for one in shown for part in network.of_video(one, videos=videos)] for shown in (true, made))
    )


def test_the_distance_of_shifted_normals_is_the_shift_squared():
    one = np.random.default_rng(0).standard_normal((4000, 3))
    assert frechet(one, one + np.array([2.0, 0, 0])) == pytest.approx(4, abs=0.01)
    assert frechet(one, 2 * one) == pytest.approx(3, abs=0.2), "sum of (2 - 1)^2 over three spreads"


def test_the_distance_is_finite_with_fewer_samples_than_features():
    rng = np.random.default_rng(0)
    one, other = rng.standard_normal((6, 50)), rng.standard_normal((6, 50))
    assert frechet(one, one) == pytest.approx(0, abs=1e-4)
    assert np.isfinite(frechet(one, other)) and frechet(one, other) > 1


def test_equal_pictures_are_at_no_distance_and_darker_ones_at_one(tmp_path):
    network = saved(Pictures(), tmp_path / "pictures.pt")
    true = [video(0), video(1)]
    same, count = distance_of(network, true, true, videos=False)
    assert same == pytest.approx(0, abs=1e-3) and count == 80
    darker, _ = distance_of(network, true, [one // 2 for one in true], videos=False)
    assert darker == pytest.approx(3 * 63.75**2, rel=0.05)


def test_videos_are_cut_into_pieces_of_16_and_the_network_scales_them_itself(tmp_path):
    network = saved(Videos(), tmp_path / "videos.pt")
    assert np.array_equal(network.features(video(0, 16)[None])[0, 3:], [1, 1, 1])
    apart, count = distance_of(network, [video(0), video(1)], [video(2), video(3)], videos=True)
    assert count == 4 and np.isfinite(apart)
    assert distance_of(network, [video(0, 15)], [video(1, 15)], videos=True) == (None, 0)


def test_a_network_that_refuses_what_it_is_shown_is_one_line(tmp_path):
    network = saved(Videos(), tmp_path / "videos.pt")
    with pytest.raises(ValueError, match=r"videos\.pt: the network does not take uint8 \(40, 3, 8, 8\)") as caught:
        network.of_video(video(0), videos=False)
    assert "\n" not in str(caught.value)


def test_a_network_computes_without_tf32_and_leaves_what_was_set(tmp_path, monkeypatch):
    def look(shown, **_):
        seen.append((torch.backends.cudnn.allow_tf32, torch.get_float32_matmul_precision()))
        return torch.zeros(len(shown), 3)

    seen, network, before = [], saved(Pictures(), tmp_path / "pictures.pt"), torch.get_float32_matmul_precision()
    monkeypatch.setattr(network, "_network", look)
    torch.set_float32_matmul_precision("high")
    try:
        network.features(video(0))
        look(video(0))
    finally:
        torch.set_float32_matmul_precision(before)
    assert seen == [(False, "highest"), (True, "high")]


def test_another_file_is_refused(tmp_path):
    (tmp_path / "no.pt").write_bytes(b"hello")
    with pytest.raises(ValueError, match=r"no\.pt: no TorchScript network"):
        FrechetNetwork(tmp_path / "no.pt", CPU)
