"""SyncNet readings: syncnet-python's own numbers, the documented sign, curves, and typed answers to short clips."""

import argparse
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from scipy.io import wavfile

from stages.nets import syncnet
from stages.sync import face_crops, offset_distances, read_wav, reading

CPU = torch.device("cpu")
SMALL = syncnet.Sizes(audio=(4, 6, 6, 6, 6, 8), lip=(4, 6, 6, 6, 6, 8), hidden=8, embedding=16)
MOUTH = syncnet.Sizes(audio=(4, 6, 6, 6, 6, 8), lip=(4, 6, 6, 6, 6, 8), hidden=8, embedding=16, colours=1)


def seeded(network: torch.nn.Module, seed: int = 0) -> dict[str, torch.Tensor]:
    """A state dict with random weights and running statistics that keep the features at the size of one."""
    generator = torch.Generator().manual_seed(seed)
    state = {}
    for name, value in network.state_dict().items():
        if name.endswith("running_var") or (value.ndim == 1 and name.endswith("weight")):
            state[name] = 0.5 + torch.rand(value.shape, generator=generator)
        elif value.is_floating_point():
            fan_in = value[0].numel() if value.ndim > 1 else 4
            state[name] = torch.randn(value.shape, generator=generator) * (2 / fan_in) ** 0.5
        else:
            state[name] = value
    return state


def talking_noise(frames: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (frames, 224, 224, 3) that change and sound (frames * 640) that does: structure, not a face."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (frames, 14, 14, 3), np.uint8)
    pictures = np.stack([cv2.resize(picture, (224, 224)) for picture in small])
    loud = np.repeat(rng.uniform(0.02, 1, frames * 4), 160)
    return pictures, (loud * rng.normal(0, 4000, frames * 640)).clip(-32768, 32767).astype(np.int16)


@pytest.mark.parametrize("sizes", [syncnet.PUBLISHED], ids=["published"])
def test_equal_weights_and_frames_give_syncnet_pythons_own_numbers(tmp_path: Path, sizes: syncnet.Sizes):
    from syncnet_python.SyncNetInstance import SyncNetInstance
    from syncnet_python.SyncNetModel import S

    theirs = S(num_layers_in_fc_layers=1024)
    state = seeded(theirs)
    theirs.load_state_dict(state, strict=True)
    torch.save(state, tmp_path / "random.model")
    pictures, samples = talking_noise(31)
    samples = samples[: 30 * 640 + 500]  # what both have counts
    for i, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{i:06d}.jpg"), picture)
    wavfile.write(tmp_path / "audio.wav", 16_000, samples)
    decoded = np.stack([cv2.imread(str(p)) for p in sorted(tmp_path.glob("*.jpg"))])
    options = argparse.Namespace(tmp_dir=str(tmp_path), batch_size=20, vshift=15)
    with torch.inference_mode():
        offset, confidence, distance = SyncNetInstance(theirs, device="cpu").evaluate(options)

    ours = syncnet.load(tmp_path / "random.model")
    assert ours.sizes == sizes
    batches = (decoded[i : i + 8] for i in range(0, len(decoded), 8))
    matrix = offset_distances(ours, batches, samples, reach=15, batch=7, device=CPU)
    read = reading("k", matrix, window_s=3.0, hop_s=1.0)
    assert matrix.shape == (25, 31)
    assert read.offset_frames == -offset
    # random weights make distances of 14,000, whose last bit in single precision is 1e-3 and differs by processor
    assert read.confidence == pytest.approx(confidence, abs=max(1e-3, 2e-7 * distance))
    assert read.distance == pytest.approx(distance, abs=1e-3, rel=3e-7)


def test_every_distance_is_that_of_calc_pdist():
    from syncnet_python.SyncNetInstance import calc_pdist

    generator = torch.Generator().manual_seed(1)
    lips, voices = torch.randn(40, 64, generator=generator), torch.randn(40, 64, generator=generator)
    theirs = torch.stack(calc_pdist(lips, voices, vshift=15))
    assert torch.allclose(syncnet.distances(lips, voices, 15), theirs, atol=1e-5)


@pytest.mark.parametrize("sizes", [SMALL, MOUTH], ids=["face", "mouth"])
def test_a_track_in_pieces_gives_the_features_of_single_windows(sizes: syncnet.Sizes):
    network = syncnet.SyncNet(sizes)
    network.load_state_dict(seeded(network))
    network.eval()
    pictures, samples = talking_noise(17)
    with torch.inference_mode():
        single = torch.cat([network.lips(network.inputs(pictures[i : i + 5], CPU)) for i in range(13)])
        together = network.lips(network.inputs(pictures, CPU))
    assert single.shape == (13, 16) and torch.allclose(single, together, atol=1e-5)
    whole = offset_distances(network, [pictures], samples, reach=3, batch=64, device=CPU)
    for batch, chunk in ((1, 1), (4, 3), (13, 17)):
        parts = (pictures[i : i + chunk] for i in range(0, 17, chunk))
        assert np.allclose(
            offset_distances(network, parts, samples, reach=3, batch=batch, device=CPU), whole, atol=1e-5
        )
    for every, batch, chunk in ((2, 1, 5), (2, 5, 17), (3, 4, 3), (5, 64, 17)):
        parts = (pictures[i : i + chunk] for i in range(0, 17, chunk))
        fewer = offset_distances(network, parts, samples, reach=3, batch=batch, device=CPU, every=every)
        assert fewer.shape == whole[::every].shape and np.allclose(fewer, whole[::every], atol=1e-5)


def test_the_small_variant_looks_at_the_mouth_only():
    network = syncnet.SyncNet(MOUTH)
    faces = np.zeros((5, 224, 224, 3), np.uint8)
    faces[:, :60] = 255
    faces[:, 200:] = 255
    assert network.inputs(faces, CPU).shape == (1, 1, 5, 56, 56)
    assert network.inputs(faces, CPU).abs().max() == 0


class Echo(syncnet.SyncNet):
    """A network that knows the answer: its lip feature is a tenth of the brightness, its voice feature log energy."""

    def __init__(self) -> None:
        super().__init__(MOUTH)

    def lips(self, frames: torch.Tensor, every: int = 1) -> torch.Tensor:
        return frames[0, 0, :-4:every].mean((1, 2))[:, None].repeat(1, 4) / 10

    def voices(self, windows: torch.Tensor) -> torch.Tensor:
        return windows[:, 0, 0][:, None].repeat(1, 4)


@pytest.mark.parametrize("every", [1, 2])
@pytest.mark.parametrize("shift", [-7, 0, 4])
def test_late_audio_reads_positive(shift: int, every: int):
    rng = np.random.default_rng(5)
    level = rng.uniform(8, 19, 200)
    energy = np.roll(level, shift)  # shift > 0: what is seen at frame i is heard at frame i + shift
    # python_speech_features' energy of 25 ms of white noise is 388 times its variance
    noise = rng.normal(0, 1, (200, 640)) * np.sqrt(np.exp(energy) / 388)[:, None]
    samples = noise.clip(-32768, 32767).astype(np.int16).ravel()
    pictures = np.ones((200, 224, 224, 3), np.uint8) * (level * 10).astype(np.uint8)[:, None, None, None]
    matrix = offset_distances(Echo(), [pictures], samples, reach=15, batch=50, device=CPU, every=every)
    read = reading("k", matrix, window_s=3.0, hop_s=1.0, rate_hz=25 / every)
    assert read.offset_frames == shift
    assert read.confidence > 0.5
    assert set(read.curve_offset_frames) == {shift}


@pytest.mark.parametrize("edges", [[0, 1, 2, 3], [1, 0, 3, 2]], ids=["tall", "wide"])
def test_the_crop_is_that_of_syncnet_python(edges: list[int]):
    rng = np.random.default_rng(2)
    picture = rng.integers(0, 256, (300, 280, 3), np.uint8)
    boxes = np.array([[60.4, 30.2, 190.9, 200.7]]).repeat(20, 0) + rng.normal(0, 2, (20, 4))
    boxes[10:] += 70  # out of the picture below and right
    boxes = boxes[:, edges]

    # as written in its `crop_video`: pad the whole picture, then cut
    from scipy.signal import medfilt

    s = medfilt([max(b[3] - b[1], b[2] - b[0]) / 2 for b in boxes], 13)
    y = medfilt([(b[1] + b[3]) / 2 for b in boxes], 13)
    x = medfilt([(b[0] + b[2]) / 2 for b in boxes], 13)
    (ours,) = face_crops([picture[None].repeat(20, 0)], boxes)
    for i in range(20):
        pad = int(s[i] * 1.8)
        framed = cv2.copyMakeBorder(picture, pad, pad, pad, pad, cv2.BORDER_CONSTANT, value=(110, 110, 110))
        my, mx = y[i] + pad, x[i] + pad
        cut = framed[int(my - s[i]) : int(my + s[i] * 1.8), int(mx - s[i] * 1.4) : int(mx + s[i] * 1.4)]
        assert np.array_equal(ours[i], cv2.resize(cut, (224, 224)))


def test_a_drifting_clip_shows_its_slope_and_a_steady_one_none():
    rows = np.arange(750)
    offsets = np.arange(-15, 16)[None]
    drifting = 5 + np.abs(offsets - rows[:, None] / 750 * 4) ** 1.5  # four frames in half a minute
    read = reading("k", drifting.astype(np.float32), window_s=3.0, hop_s=1.0)
    assert read.drift_frames_per_min == pytest.approx(8, abs=0.5)
    assert read.curve_offset_frames[0] == 0 and read.curve_offset_frames[-1] == 4
    assert 7 < read.drift_least_frames_per_min <= read.drift_frames_per_min
    steady = reading("k", np.repeat(drifting[:1], 750, 0).astype(np.float32), window_s=3.0, hop_s=1.0)
    assert steady.drift_frames_per_min == pytest.approx(0, abs=0.01)
    assert len(steady.curve_confidence) == 28 and steady.curve_hop_s == 1.0


def test_a_slope_that_may_be_noise_has_no_least_size():
    sound_at = np.repeat([1, 0, 1, 0, 1], [25, 70, 40, 10, 30])[:, None]  # 7 s whose looks waver by a frame
    matrix = (5 + np.abs(np.arange(-15, 16)[None] - sound_at) ** 1.5).astype(np.float32)
    read = reading("k", matrix, window_s=3, hop_s=1)
    assert read.drift_frames_per_min * 7 / 60 > 1.5 and read.drift_least_frames_per_min * 7 / 60 < 0.5


@pytest.mark.parametrize("rate_hz", [25, 6.25])
def test_a_jump_near_the_end_is_seen_since_the_last_window_ends_there(rate_hz: float):
    rows = np.arange(round(9.8 * rate_hz))
    sound_at = np.where(rows < 7.6 * rate_hz, 0, 8)  # 0.32 s late from 7.6 s on
    matrix = (5 + np.abs(np.arange(-15, 16)[None] - sound_at[:, None])).astype(np.float32)
    read = reading("k", matrix, window_s=3.0, hop_s=1.0, rate_hz=rate_hz)
    assert (read.offset_frames, read.curve_offset_frames[0], read.curve_offset_frames[-1]) == (0, 0, 8)
    assert len(read.curve_offset_frames) == 8 and read.curve_hop_s == pytest.approx(6.8 / 7, abs=0.03)
    assert read.curve_confidence[0] == pytest.approx(8), "of its own 3 s, which know nothing of the jump"


@pytest.mark.parametrize(
    ("rows", "windows", "drifts"), [(75, 1, False), (80, 2, False), (124, 3, False), (125, 3, True)]
)
def test_a_slope_is_taken_where_the_windows_span_two_hops(rows: int, windows: int, drifts: bool):
    sound_at = np.arange(rows)[:, None] / 25  # a frame a second
    matrix = (5 + np.abs(np.arange(-15, 16)[None] - sound_at) ** 1.5).astype(np.float32)
    read = reading("k", matrix, window_s=3.0, hop_s=1.0)
    assert len(read.curve_offset_frames) == windows and (read.drift_frames_per_min > 30) == drifts


@pytest.mark.parametrize("frames", [0, 4, 5])
def test_what_is_too_short_gives_no_distances(frames: int):
    pictures, samples = talking_noise(8)
    network = syncnet.SyncNet(MOUTH).eval()
    matrix = offset_distances(network, [pictures[:frames]], samples, reach=15, batch=8, device=CPU)
    read = reading("k", matrix, window_s=3.0, hop_s=1.0)
    assert (read.confidence, read.distances, read.curve_offset_frames) == (0.0, (), ())


def test_weights_come_as_a_plain_and_complete_state_dict_or_not_at_all(tmp_path: Path):
    network = syncnet.SyncNet(MOUTH)
    state = {name: v.half() if v.is_floating_point() else v for name, v in seeded(network).items()}
    torch.save(state, tmp_path / "half.model")
    loaded = syncnet.load(tmp_path / "half.model")
    assert loaded.sizes == MOUTH and loaded.netfclip[0].weight.dtype == torch.float32
    torch.save({k: v for k, v in state.items() if k != "netfcaud.3.bias"}, tmp_path / "short.model")
    torch.save(network, tmp_path / "pickled.model")
    (tmp_path / "text.model").write_text("no weights")
    wavfile.write(tmp_path / "sound.model", 16_000, np.zeros(100, np.int16))
    (tmp_path / "empty.model").write_bytes(b"")
    for name in ("short", "pickled", "text", "sound", "empty"):
        with pytest.raises(ValueError, match="no SyncNet state dict"):
            syncnet.load(tmp_path / f"{name}.model")


def test_sound_of_another_form_is_refused(tmp_path: Path):
    wavfile.write(tmp_path / "a.wav", 44_100, np.zeros(100, np.int16))
    with pytest.raises(ValueError, match="44100"):
        read_wav(tmp_path / "a.wav")
