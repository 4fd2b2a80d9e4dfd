"""The maker of the sample SyncNet, and what the packaged weights do on people and voices that they never met."""

import ctypes.util

import numpy as np
import pytest
import torch

from stages import weights
from stages.nets.syncnet import SyncNet, load
from stages.sample import train_sync
from stages.sample.mouths import MOUTH_SHAPES, SEEN_PX, STORED_PX, take
from stages.sample.voice import CHECK_SPEAKERS
from stages.sync import state_file

needs_espeak = pytest.mark.skipif(
    ctypes.util.find_library("espeak-ng") is None, reason="libespeak-ng is not installed: only makers need it"
)


def lesson() -> train_sync.Lesson:
    torch.manual_seed(0)
    return train_sync.Lesson(SyncNet(train_sync.SIZES))


def test_the_lesson_in_two_dimensions_gives_the_features_of_the_network_in_three():
    pupil = lesson().eval()
    windows = 255 * torch.rand(3, 5, SEEN_PX, SEEN_PX)
    with torch.inference_mode():
        flat = pupil.network.netfclip(pupil.lips(windows))
        assert torch.allclose(flat, pupil.network.lips(windows[:, None]), atol=1e-4)


def test_the_lesson_teaches_the_network_itself():
    pupil = lesson().train()
    network = pupil.network
    before = network.netcnnlip[1].running_mean.clone()
    loss = pupil(255 * torch.rand(6, 5, SEEN_PX, SEEN_PX), torch.randn(6, 13, 20), torch.randn(6, 5 * MOUTH_SHAPES))
    loss.backward()
    assert all(weight.grad is not None for weight in network.parameters())
    assert not torch.equal(before, network.netcnnlip[1].running_mean)


def test_the_loss_is_least_where_each_voice_is_nearest_its_lips():
    lips = 3 * torch.randn(12, 16, generator=torch.Generator().manual_seed(0))
    right = train_sync.loss_of(lips, lips + 0.01)
    wrong = train_sync.loss_of(lips, lips.roll(1, 0))
    assert right < 0.1 < 5 < wrong


def test_pairs_stay_in_step_when_worsened():
    rng = np.random.default_rng(0)
    frames = np.arange(40, dtype=np.uint8)[:, None, None].repeat(STORED_PX, 1).repeat(STORED_PX, 2) * 6
    seen = train_sync.worsened_picture(frames, np.random.default_rng(4))
    level = seen.mean((1, 2))
    assert seen.shape == (40, SEEN_PX, SEEN_PX)
    assert (np.diff(level) > -1).all() or (np.diff(level) < 1).all(), "one light and one framing for all frames"
    clicks = np.zeros(32_000, np.int16)
    clicks[16_000] = 20_000
    heard = train_sync.worsened_sound(clicks, rng)
    assert heard.dtype == np.int16 and abs(int(np.abs(heard.astype(int)).argmax()) - 16_000) < 2


def test_what_is_kept_is_a_plain_state_dict_that_gives_the_lesson_s_distances(tmp_path):
    pupil = lesson().train()
    torch.manual_seed(1)
    seen, heard = 255 * torch.rand(16, 5, SEEN_PX, SEEN_PX), 20 * torch.randn(16, 13, 20)
    for _ in range(3):
        pupil(seen, heard, torch.randn(16, 5 * MOUTH_SHAPES))
    pupil.eval()
    with torch.inference_mode():
        pupil.scale.fill_(2.5)
        network = pupil.network
        wanted = 2.5 * pupil.unit_lips(network.lips(seen[:, None])), 2.5 * pupil.unit_voices(network.voices(heard))
        train_sync.keep(pupil.state(), tmp_path / "kept.model")
        kept = load(tmp_path / "kept.model")
        found = kept.lips(seen[:, None]), kept.voices(heard)
    assert all(torch.allclose(a, b, atol=1e-3) for a, b in zip(found, wanted, strict=True))


@needs_espeak
def test_equal_seeds_give_equal_takes_and_others_do_not():
    one, same, other = (take(seed, speakers=CHECK_SPEAKERS, n_frames=20) for seed in (2_000_400, 2_000_400, 2_000_401))
    assert one.mouths.shape == (20, STORED_PX, STORED_PX) and one.samples.shape == (20 * 640,)
    assert np.array_equal(one.mouths, same.mouths) and np.array_equal(one.samples, same.samples)
    assert not np.array_equal(one.mouths, other.mouths)
    assert one.mouths.std() > 10 and np.abs(one.samples).max() > 1000


@needs_espeak
@pytest.mark.skipif(weights.local("sample/sync") is None, reason="no packaged SyncNet: make it with train_sync")
def test_the_packaged_weights_load_and_read_unseen_people_in_unheard_voices():
    network = load(state_file(weights.path("sample/sync")))
    assert network.sizes == train_sync.SIZES
    unseen = [take(2_000_100 + 4 * i, speakers=CHECK_SPEAKERS, n_frames=125) for i in range(4)]
    found = train_sync.score(network, unseen)
    assert found["offset_within_1_frame"] == 1
    assert found["auc_own_voice_over_another"] > 0.9 and found["auc_talking_over_still"] > 0.9
