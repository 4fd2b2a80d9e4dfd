"""The sync and identity stages over stored clips: files in, one record per clip out, by real decoders and libraries."""

import threading
import wave
from fractions import Fraction
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper

from manifests.codec import from_json, to_json
from manifests.records import Clip, Clips, Identities, Piece, Syncs
from manifests.store import Store
from pipeline.bench import Bench
from pipeline.stage import Facts, Rejection, WorkerSpoiledError
from stages.fingerprint import picture_distance, sound_distance
from stages.identity import Recognise
from stages.nets import syncnet
from stages.sync import ScoreSync
from tests.media import write_video
from tests.stages.measured import GOOD_FACE

SIZES = syncnet.Sizes(audio=(4, 6, 6, 6, 6, 8), lip=(4, 6, 6, 6, 6, 8), hidden=8, embedding=16, colours=1)
TEMPLATE = np.array([(38.3, 51.7), (73.5, 51.5), (56.0, 71.7), (41.5, 92.4), (70.7, 92.2)], np.float32)


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(Store(str(tmp_path / "store")), "clip-test", "0123456789abcdef")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("weights") / "random.model"
    torch.save(syncnet.SyncNet(SIZES).state_dict(), path)
    return str(path)


@pytest.fixture(scope="module")
def pack(tmp_path_factory) -> str:
    """A pack whose recognition is the mean colour of 4 x 4 tiles: a real ONNX that insightface takes for ArcFace."""
    nodes = [
        helper.make_node("AveragePool", ["input.1"], ["tiles"], kernel_shape=[28, 28], strides=[28, 28]),
        helper.make_node("Flatten", ["tiles"], ["embedding"]),
    ]
    graph = helper.make_graph(
        nodes,
        "tiles",
        [helper.make_tensor_value_info("input.1", TensorProto.FLOAT, ["n", 3, 112, 112])],
        [helper.make_tensor_value_info("embedding", TensorProto.FLOAT, ["n", 48])],
    )
    folder = tmp_path_factory.mktemp("pack")
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), folder / "tiles.onnx"
    )
    return str(folder)


def kept_clip(bench: Bench, number: int, n_frames: int, seed: int) -> Clip:
    """Store one clip of 256 px: a moving texture, noise of changing loudness, and where the face would be."""
    rng = np.random.default_rng(seed)
    scene = cv2.resize(rng.integers(0, 256, (12, 12, 3), np.uint8), (288, 288), interpolation=cv2.INTER_CUBIC)
    pictures = [(Fraction(i, 25), np.ascontiguousarray(scene[i % 16 : i % 16 + 256, 8:264])) for i in range(n_frames)]
    folder, name = bench.scratch, f"{number:04d}"
    write_video(folder / f"{name}.mp4", pictures)
    loud = np.repeat(rng.uniform(0.05, 1, n_frames * 2), 320)
    with wave.open(str(folder / f"{name}.wav"), "wb") as sound:
        sound.setparams((1, 2, 16_000, 0, "NONE", ""))
        sound.writeframes((loud * rng.normal(0, 6000, len(loud))).clip(-32768, 32767).astype("<i2").tobytes())
    np.savez(
        folder / f"{name}.npz",
        box=np.array([[70, 70, 190, 190, 0.9]], np.float32).repeat(n_frames, 0),
        lmk=(TEMPLATE + 70)[None].repeat(n_frames, 0),
        pose=np.zeros((n_frames, 3), np.float32),
        crop=np.zeros((n_frames, 4), np.float32),
    )
    return Clip(
        key=f"0123456789abcdef-{name}",
        number=number,
        track=0,
        start_s=0.0,
        end_s=n_frames / 25,
        n_frames=n_frames,
        size_px=256,
        video=bench.keep(folder / f"{name}.mp4", f"{name}.mp4"),
        audio=bench.keep(folder / f"{name}.wav", f"{name}.wav"),
        arrays=bench.keep(folder / f"{name}.npz", f"{name}.npz"),
        contiguous_with_prev=False,
        others_in_view=(),
        still_s=0.0,
        filled_share=0.0,
        effective_face_px=100.0,
        **GOOD_FACE,
    )


def test_from_an_object_store_clips_are_fetched_ahead_and_read_the_same(bench, model, pack, tmp_path, monkeypatch):
    stages = [ScoreSync(model=model), Recognise(pack=pack)]
    expected = Facts([Clips(items=tuple(kept_clip(bench, n, 40, seed=n) for n in range(3)))])
    asked: list[str] = []
    fetch = Bench.fetch
    monkeypatch.setattr(
        Bench, "fetch", lambda bench, ref: asked.append(threading.current_thread().name) or fetch(bench, ref)
    )
    store = Store(f"memory://{tmp_path.name}")
    with Bench(store, "clip-test", "0123456789abcdef") as remote:
        clips = Facts([Clips(items=tuple(kept_clip(remote, n, 40, seed=n) for n in range(3)))])
    with Bench(store, "sync-test", "0123456789abcdef") as remote:
        found = [stage.open()(clips, remote) for stage in stages]
        assert len(asked) == 18 and all(name.startswith("bench") for name in asked)
    assert found == [stage.open()(expected, bench) for stage in stages]


def test_every_clip_is_scored_and_the_record_survives_the_store(bench, model):
    clips = Clips(items=(kept_clip(bench, 0, 100, seed=1), kept_clip(bench, 1, 4, seed=2)))
    stage = ScoreSync(model=model, batch=16)
    found = stage.open()(Facts([clips]), bench)
    assert isinstance(found, Syncs)
    first, short = found.items
    assert [first.key, short.key] == [clip.key for clip in clips.items]
    assert len(first.distances) == 31 and first.distance == min(first.distances)
    assert first.confidence == pytest.approx(np.median(first.distances) - first.distance, abs=1e-6)
    assert len(first.curve_confidence) == len(first.curve_offset_frames) == 2
    assert (short.confidence, short.distances) == (0.0, ())
    assert found.model == f"random.model {stage.weights()['model']}"
    assert from_json(to_json(found), Syncs) == found
    again = ScoreSync(model=model, batch=5).open()(Facts([clips]), bench)
    assert isinstance(again, Syncs)
    assert np.allclose(again.items[0].distances, first.distances, atol=1e-4), "the batch size changes nothing"


def test_a_long_clip_is_looked_at_seldom_and_a_short_one_often(bench, model):
    seldom = ScoreSync(model=model, every=4, least_windows=20)
    assert [seldom.step_frames(n) for n in (10, 25, 65, 85, 750)] == [1, 1, 3, 4, 4]
    assert [ScoreSync(model=model, every=3).step_frames(n) for n in (10, 750)] == [3, 3]
    clips = Clips(items=(kept_clip(bench, 0, 90, seed=1), kept_clip(bench, 1, 30, seed=2)))
    found = seldom.open()(Facts([clips]), bench)
    fourth, each = (ScoreSync(model=model, every=step).open()(Facts([clips]), bench) for step in (4, 1))
    assert [one.distances for one in found.items] == [fourth.items[0].distances, each.items[1].distances]
    assert fourth.items[0].distances != each.items[0].distances
    # windows of 3 s a second apart at most, however seldom lips are looked at
    assert [len(one.items[0].curve_offset_frames) for one in (found, fourth, each)] == [2, 2, 2]
    assert fourth.items[0].curve_hop_s == pytest.approx(each.items[0].curve_hop_s, abs=0.1)


def test_a_least_number_of_looks_changes_the_key_and_none_keeps_the_old_one(model):
    assert "least_windows" not in ScoreSync(model=model).identity()
    assert ScoreSync(model=model, least_windows=40).identity()["least_windows"] == 40


def test_clips_that_are_all_too_short_are_a_rejection_with_the_number(bench, model):
    clips = Clips(items=(kept_clip(bench, 0, 5, seed=1),))
    assert ScoreSync(model=model).open()(Facts([clips]), bench) == Rejection(
        "clips_too_short_for_sync", {"longest_frames": 5}
    )


def test_no_clips_at_all_are_a_rejection_unless_they_were_spared(bench, model):
    work = ScoreSync(model=model).open()
    assert work(Facts([Clips(items=())]), bench) == Rejection("clips_too_short_for_sync", {"longest_frames": 0})
    piece = Piece(key="v-0000", number=0, track=0, start_s=0.0, end_s=4.0, n_frames=100, contiguous_with_prev=False,
                  others_in_view=(), still_s=0.0, filled_share=0.0, **GOOD_FACE)  # fmt: skip
    assert work(Facts([Clips(items=(), spared=(piece,))]), bench).items == ()


def test_a_poisoned_device_spoils_the_worker(bench, model, monkeypatch):
    clips = Clips(items=(kept_clip(bench, 0, 10, seed=1),))
    work = ScoreSync(model=model).open()

    def fail(self, frames, every):
        raise RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED")

    monkeypatch.setattr(syncnet.SyncNet, "lips", fail)
    with pytest.raises(WorkerSpoiledError, match="cuDNN"):
        work(Facts([clips]), bench)


def test_other_weights_and_parameters_are_another_key_and_the_batch_is_not(model, tmp_path):
    other = tmp_path / "other.model"
    torch.save(syncnet.SyncNet(SIZES).state_dict(), other)
    key = ScoreSync(model=model).identity()
    assert ScoreSync(model=model, batch=1).identity() == key
    assert ScoreSync(model=model, reach=10).identity() != key
    assert ScoreSync(model=str(other)).identity()["model"] != key["model"]
    with pytest.raises(ValueError, match="positive"):
        ScoreSync(model=model, reach=0)


def test_identity_embeds_and_fingerprints_every_clip(bench, pack):
    clips = Clips(items=tuple(kept_clip(bench, i, 60, seed) for i, seed in enumerate((1, 1, 2))))
    found = Recognise(pack=pack).open()(Facts([clips]), bench)
    assert isinstance(found, Identities)
    one, same, other = found.items
    assert len(one.face) == 48 and np.linalg.norm(one.face) == pytest.approx(1)
    assert 0.5 < one.spread <= 1
    assert one.face == same.face and one.picture_hash == same.picture_hash and one.sound_hash == same.sound_hash
    assert picture_distance(one.picture_hash, other.picture_hash) > 0.15
    assert sound_distance(one.sound_hash, other.sound_hash) > 0.3
    assert len(one.picture_hash) == 8 * 16
    assert [clip.text_share for clip in found.items] == [0, 0, 0]
    assert from_json(to_json(found), Identities) == found
    unread = Recognise(pack=pack, text_pictures=0).open()(Facts([clips]), bench)
    assert [clip.text_share for clip in unread.items] == [None, None, None]
