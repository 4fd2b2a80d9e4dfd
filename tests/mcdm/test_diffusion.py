"""Schedules, predictions, weights, seeded noise."""

import math

import pytest
import torch

from mcdm import diffusion


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
@pytest.mark.parametrize("kind", ["scaled_linear", "cosine"])
def test_the_true_answer_gives_back_picture_and_noise(prediction, kind):
    schedule = diffusion.make_schedule(kind)
    x, eps, t = torch.randn(4, 3, 2), torch.randn(4, 3, 2), torch.tensor([1, 200, 600, 900])
    z = diffusion.add_noise(schedule, x, eps, t)
    answer = diffusion.target(schedule, prediction, x, eps, t)
    got_x, got_eps = diffusion.split(schedule, prediction, z, answer, t)
    assert torch.allclose(got_x, x, atol=2e-3)
    assert torch.allclose(got_eps, eps, atol=2e-2)


def test_a_noise_estimate_that_is_a_little_wrong_does_not_decide_the_first_step():
    schedule = diffusion.make_schedule("cosine")
    t, t_next = schedule.timesteps(50)[:2]
    z, at = torch.randn(512, generator=torch.Generator().manual_seed(0))[:, None], torch.full((512,), t)
    x, eps = diffusion.split(schedule, "eps", z, z * 1.01, at)
    moved = diffusion.ddim_step(schedule, x.clamp(-4, 4), eps, t_next) - z
    assert schedule.alpha[t_next] > 0.03 and float(moved.std()) < 0.02  # the signal there


def test_zero_snr_leaves_no_signal_at_the_last_step():
    assert diffusion.make_schedule("scaled_linear").alpha[-1] > 0.05
    assert diffusion.make_schedule("scaled_linear", zero_snr=True).alpha[-1] == 0


def test_scaled_linear_is_stable_diffusions():
    bar = diffusion.make_schedule("scaled_linear").alpha ** 2
    assert float(bar[0]) == pytest.approx(1 - 0.00085)
    assert float(bar[-1]) == pytest.approx(0.0047, abs=1e-4)


def test_cosine_is_squaredcos_cap_v2():
    bar = [math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(1001)]
    noise = diffusion.make_schedule("cosine").sigma ** 2
    for t in (0, 499, 998):
        assert float(noise[t]) == pytest.approx(1 - bar[t + 1] / bar[0], rel=1e-3)


def test_sampling_with_the_true_answer_arrives_at_the_picture():
    schedule = diffusion.make_schedule("cosine", zero_snr=True)
    x, z = torch.randn(2, 5), torch.randn(2, 5)
    steps = schedule.timesteps(7)
    for i, t in enumerate(steps):
        at = torch.full((2,), t)
        alpha, sigma = schedule.at(at, z)
        eps = (z - alpha * x) / sigma
        z = diffusion.ddim_step(schedule, x, eps, steps[i + 1] if i + 1 < len(steps) else -1)
    assert steps[0] == diffusion.N_TIMESTEPS - 1
    assert torch.allclose(z, x)


@pytest.mark.parametrize("prediction", ["eps", "v", "x0"])
def test_min_snr_weights_cap_the_clean_end(prediction):
    schedule = diffusion.make_schedule("cosine")
    t = torch.tensor([*range(0, 990, 30), 999])
    weight = diffusion.loss_weight(schedule, prediction, t, 5.0)
    snr = schedule.alpha[t] ** 2 / schedule.sigma[t] ** 2
    in_x0 = weight * {"x0": 1, "eps": snr, "v": snr + 1}[prediction]
    assert torch.allclose(in_x0, snr.clamp(max=5.0), rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("shape", [(3, 2), (16, 70, 80)], ids=["one after another", "side by side"])
def test_noise_is_a_function_of_each_rows_seed_alone(shape):
    cpu = torch.device("cpu")
    together = diffusion.draw_normal(torch.tensor([5, 9, 4, 9]), 1, shape, cpu)
    alone = torch.randn(shape, generator=diffusion.generator(9, 1))
    assert torch.equal(together[1], alone) and torch.equal(together[3], alone)
    assert not torch.equal(alone, diffusion.draw_normal(torch.tensor([9]), 2, shape, cpu)[0])
