"""Sound that is early or late ships where it belongs: moved as it is, not encoded anew."""

import dataclasses
import io
import json
import wave

import av
import numpy as np
import pytest
import webdataset

from manifests.records import Word
from manifests.store import Store
from stages.judge import judge
from stages.policies import LATENTSYNC
from stages.shard import ChangedBlobsError, shard
from stages.verify import verify
from tests.stages.measured import measured, mp4_bytes, speech, stored_clip, sync, wav_bytes, word

POLICY = dataclasses.replace(LATENTSYNC, min_duration_s=None, max_offset_frames=6)
NOWHERE = (None, None)


@pytest.mark.parametrize(
    ("offset_frames", "said_s"),
    [
        (3, [NOWHERE, (0.0, 0.28), (5.58, 5.88), (5.78, 5.78), NOWHERE]),
        (-3, [(0.22, 0.22), (0.22, 0.52), (5.82, 6.0), NOWHERE, NOWHERE]),
    ],
    ids=["late", "early"],
)
def test_a_policy_that_shifts_sound_moves_it_by_the_offset_without_encoding(tmp_path, offset_frames, said_s):
    store = Store(str(tmp_path))
    one = stored_clip(store, "v0", n_frames=150)
    first, last, untimed = (Word(text="ja", start_s=at, end_s=at, score=None) for at in (0.1, 5.9, None))
    spoken = speech(one.key, words=(first, word("Guten", 0.1), word("Tag", 5.7), last, untimed))
    video = measured(clips=(one,), syncs=(sync(one.key, offset_frames=offset_frames),), speeches=(spoken,))
    done = shard(store, [video], judge([video], POLICY))
    path = store.local / "shards" / done.index.shards[0]
    (sample,) = webdataset.WebDataset(str(path), shardshuffle=False)
    assert verify(store).problems == []
    about = json.loads(sample["json"])
    assert (about["sync_offset"], about["audio_shift_frames"]) == (0, -offset_frames)
    assert about["aligned"] is True
    assert [(one["word"], one["score"]) for one in about["words"]] == [(one.text, one.score) for one in spoken.words]
    assert [(one["start_sec"], one["end_sec"]) for one in about["words"]] == said_s
    assert list(about["words"][0]) == ["word", "start_sec", "end_sec", "score"]
    with wave.open(io.BytesIO(sample["wav"])) as sound:
        moved = np.frombuffer(sound.readframes(sound.getnframes()), np.int16)
    assert len(moved) == 150 * 640 and np.flatnonzero(moved)[0] == 150 * 640 // 5 - offset_frames * 640
    before, after = clicks_s(store.get(one.video.path)), clicks_s(sample["mp4"])
    assert after == pytest.approx(before - offset_frames / 25, abs=0.001)
    assert min(packets_s(sample["mp4"])) >= 0 and max(packets_s(sample["mp4"])) < 150 / 25


def clicks_s(mp4):
    with av.open(io.BytesIO(mp4)) as source:
        for frame in source.decode(audio=0):
            loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.1)
            if len(loud):
                return frame.time + loud[0] / frame.sample_rate
    raise AssertionError("no click")


def packets_s(mp4):
    with av.open(io.BytesIO(mp4)) as source:
        return [packet.pts * packet.time_base for packet in source.demux(audio=0) if packet.pts is not None]


@pytest.mark.parametrize("changed", ["video", "audio"])
def test_bytes_that_were_not_scored_are_not_shipped_when_their_sound_is_shifted(tmp_path, changed):
    store = Store(str(tmp_path))
    one = stored_clip(store, "v0")
    store.put(getattr(one, changed).path, mp4_bytes(20, seed=1) if changed == "video" else wav_bytes(19))
    video = measured(clips=(one,), syncs=(sync(one.key, offset_frames=3),))
    with pytest.raises(ChangedBlobsError):
        shard(store, [video], judge([video], POLICY))
