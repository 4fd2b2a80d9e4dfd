"""Measures against cases with a known answer."""

import threading

import numpy as np
import pytest
import torch

from mcdm import measures
from mcdm.config import CodecConfig
from mcdm.encoders import DctCodec
from mcdm.faces import CANON, align, mouth_opening, similarity, warped
from tests.mcdm.shards import draw, person


def test_equal_pictures_have_ssim_1_and_noise_less():
    picture = draw(person(0), 0.2, (0, 0), 64)[0][None]
    noisy = (picture + np.random.default_rng(0).integers(-40, 40, picture.shape)).clip(0, 255).astype(np.uint8)
    assert measures.ssim(picture, picture)[0] == pytest.approx(1)
    assert measures.ssim(picture, noisy)[0] < 0.8


def test_pictures_are_compared_on_all_cores_and_each_stays_in_its_place(monkeypatch):
    from skimage import metrics

    alone, both = metrics.structural_similarity, threading.Barrier(2)

    def similar(one, other, **named):
        both.wait(timeout=60)  # for the other core: raises where there is none
        return alone(one, other, **named)

    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setattr(metrics, "structural_similarity", similar)
    true, made = np.random.default_rng(0).integers(0, 256, (2, 4, 16, 16, 3)).astype(np.uint8)
    wanted = np.array([alone(a, b, channel_axis=2) for a, b in zip(true, made, strict=True)], np.float32)
    assert np.array_equal(measures.ssim(true, made), wanted)


def test_a_series_is_read_at_horizons_and_none_where_it_ends_before():
    values = np.full(400, np.nan, np.float32)
    values[::25] = 0.5
    values[290] = 1.0
    assert measures.at_horizons(values) == {"30": 0.5, "300": pytest.approx(0.75), "1800": None}


def test_shuffling_takes_a_true_correlation_away():
    rng = np.random.default_rng(0)
    one = rng.standard_normal(500).astype(np.float32)
    assert measures.correlation(one, 2 * one + 3) == pytest.approx(1, abs=1e-5)
    assert abs(measures.shuffled_correlation(one, one)) < 0.1
    assert measures.correlation(one, np.ones(500, np.float32)) == 0


def test_loudness_is_the_root_mean_square_of_a_frame_and_likeness_that_of_a_row():
    samples = np.repeat([0.5, -0.5, 0.0, 0.25, 9], [320, 320, 640, 640, 100]).astype(np.float32)
    assert np.allclose(measures.loudness(samples, 640), [0.5, 0, 0.25])
    rows = np.array([[[3, 4]], [[0, 2]], [[1, 1]]]), np.array([[[6, 8]], [[5, 0]], [[-2, -2]]])
    assert np.allclose(measures.cosine(*rows), [1, 0, -1])


def test_landmarks_come_to_lie_on_the_canon_whatever_scale_and_turn():
    angle, scale = 0.3, 2.5
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = (CANON @ turn.T * 40 + 17).astype(np.float32)
    matrix = similarity(points, 48)
    assert np.allclose(points @ matrix[:, :2].T + matrix[:, 2], CANON * 48, atol=1e-2)


@pytest.mark.parametrize("scale", [0.06, 0.3, 0.7, 1.5])
def test_a_picture_that_is_shrunk_shows_the_mean_of_its_pixels_each_in_its_place(scale):
    angle, side = 0.2, 24
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    matrix = np.concatenate([turn, (np.full(2, side / 2) - turn @ (250, 250))[:, None]], 1)
    noise = np.random.default_rng(0).integers(0, 256, (500, 500), np.uint8)
    assert warped(noise, matrix, side).std() < 80 * min(1, 1.4 * scale)
    y, x = np.mgrid[:500, :500]
    ramp = (x / 4 + y / 4).astype(np.uint8)
    place = np.linalg.inv(turn) @ (np.stack([np.full(side, 6.0), np.arange(side)]) - matrix[:, 2:])
    inside = ((place > 20) & (place < 480)).all(0)
    assert inside.any() and np.abs(warped(ramp, matrix, side)[:, 6] - place.sum(0) / 4)[inside].max() < 1.5


def test_the_mouths_opening_is_read_off_the_pixels():
    wanted = np.array([0.0, 0.25, 0.5, 0.75, 1.0], np.float32)
    for who in range(3):
        drawn = [draw(person(who), float(o), (0.02 * i, 0.0)) for i, o in enumerate(wanted)]
        faces, _ = align(np.stack([d[0] for d in drawn]), np.stack([d[1] for d in drawn]), 48)
        assert measures.correlation(mouth_opening(faces), wanted) > 0.95


@pytest.mark.parametrize(("size", "factor", "channels", "least_db"), [(64, 4, 16, 30), (256, 8, 48, 30)])
def test_the_block_transform_keeps_a_face_sharp(size, factor, channels, least_db):
    codec = DctCodec(CodecConfig(kind="dct", size_px=size, factor=factor, channels=channels))
    picture = torch.from_numpy(draw(person(0), 0.6, (0, 0), size)[0]).permute(2, 0, 1)[None].float() / 127.5 - 1
    latents = codec.encode(picture)
    assert latents.shape == (1, channels, size // factor, size // factor)
    error = (codec.decode(latents) - picture).square().mean()
    assert 10 * torch.log10(4 / error) > least_db
    assert 0.2 < float(latents.std()) < 2
