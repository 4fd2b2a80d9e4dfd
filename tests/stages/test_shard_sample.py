"""One sample: a table can be made of its json whatever is known, and its crop is found again in the source."""

import dataclasses
import io
import json
from fractions import Fraction

import av
import cv2
import numpy as np
import pyarrow as pa
import pytest
import webdataset

from manifests.records import Verdict, Word
from manifests.store import Store
from stages import shard_json
from stages.catalogue import read_catalogue, write_catalogue
from stages.judge import Measured, judge
from stages.media import probe
from stages.policies import PAPER
from stages.shard import entries, shard
from stages.shard_index import read_index
from stages.tars import read_tar
from stages.verify import verify
from tests import media
from tests.stages.measured import identity, measured, speech, stored_clip, word
from tests.stages.scenes import HEIGHT, WIDTH, Scene, still_box
from tests.stages.test_quality import natural

POLICY = dataclasses.replace(PAPER, min_duration_s=None)
KEY = "v0-0000"
UNTIMED = Word(text="ja", start_s=None, end_s=None, score=None)

KNOWN = {
    "timed words": measured(),
    "untimed words": measured(speeches=(speech(KEY, words=(UNTIMED,)),)),
    "both": measured(speeches=(speech(KEY, words=(UNTIMED, word("Tag", 0.5))),)),
    "no words": measured(speeches=(speech(KEY, words=(), text="", language=""),)),
    "no face": measured(identities=(identity(KEY, face=()),)),
    "neither sync nor speech": dataclasses.replace(measured(), syncs=None, speeches=None, identities=None),
    "no source": dataclasses.replace(measured(language=None), source=None, seen=None),
}


def kept(key: str) -> list[Verdict]:
    return [Verdict(key=key, video=key.partition("-")[0], kept=True, policy="p", person="p0", split="train")]


def described(one: Measured) -> dict:
    (entry,) = entries([one], kept(KEY))
    return json.loads(entry.description)


def kinds(value: object, at: str = "") -> set[tuple[str, str]]:
    """The types of all values in there that are known, by where they lie; of one that holds others those as well."""
    if isinstance(value, dict):
        inner = [kinds(part, f"{at}.{name}") for name, part in value.items()]
    else:
        inner = [kinds(part, f"{at}[]") for part in value] if isinstance(value, list) else []
    own = set() if value is None else {(at, type(value).__name__)}
    return own.union(*inner)


def test_every_value_of_the_json_has_one_type_whatever_is_known():
    found = [described(one) for one in KNOWN.values()]
    assert len({tuple(about) for about in found}) == len({tuple(about["quality"]) for about in found}) == 1
    places = [at for at, _ in set().union(*map(kinds, found))]
    assert sorted(places) == sorted(set(places)) and ".words[].start_sec" in places and ".sync_conf" in places


@pytest.mark.parametrize("first", KNOWN)
def test_arrow_makes_a_table_of_samples_whichever_comes_first(first):
    samples = [described(KNOWN[name]) for name in sorted(KNOWN, key=lambda name: name != first)]
    whole = pa.Table.from_pylist(samples)
    numbers = [(name, pa.float64()) for name in ("start_sec", "end_sec", "score")]
    assert whole.schema.field("words").type == pa.list_(pa.struct([("word", pa.string()), *numbers]))
    # A sample at a time, of which the first few settle the types: so Hugging Face reads WebDataset.
    one_by_one = [pa.Table.from_pylist([sample]) for sample in samples]
    assert pa.concat_tables(one_by_one, promote_options="default").schema == whole.schema


def test_the_json_names_the_network_that_made_the_embedding():
    found = measured()
    found = dataclasses.replace(found, identities=dataclasses.replace(found.identities, model="arcface 1234"))
    assert described(found)["identity_source"] == "arcface 1234" and described(KNOWN["no source"])["schema"] == 5
    assert described(KNOWN["neither sync nor speech"])["identity_source"] == ""


@pytest.mark.parametrize(
    ("heard", "expected", "told"), [("fr", "deu", "fr"), ("", "deu-AT", "de-AT"), ("", None, None), ("", "iw", "he")]
)
def test_json_index_and_table_tell_the_same_language(tmp_path, heard, expected, told):
    store, policy = Store(str(tmp_path)), dataclasses.replace(POLICY, allow_other_language=True)
    one = stored_clip(store, "v0")
    found = measured(clips=(one,), speeches=(speech(one.key, language=heard, verdict=""),), language=expected)
    verdicts = judge([found], policy)
    (row,) = shard(store, [found], verdicts).index.rows
    write_catalogue(store, [found], verdicts, policy)
    ((_, data),) = read_tar(store.local / "shards" / row.shard)
    (in_table,) = read_catalogue(store)["language"].to_pylist()
    assert (json.loads(data["json"])["language"], row.language, in_table) == (told or "", told or "", told)


SHOWN = np.hstack([natural(HEIGHT, seed=1), natural(HEIGHT, seed=2)])[:, :WIDTH]
CODED = {
    "plain": (SHOWN, media.Look()),
    "turned": (np.rot90(SHOWN, -1), media.Look(rotation_deg=90)),
    "wide pixels": (cv2.resize(SHOWN, (WIDTH * 3 // 4, HEIGHT)), media.Look(pixel_aspect=Fraction(4, 3))),
}


def cropped(picture: np.ndarray, crop: np.ndarray, size_px: int) -> np.ndarray:
    """By bilinear samples at the middles of the crop's pixels; the border goes on for ever."""
    left, top, right, bottom = crop
    across, down = (right - left) / size_px, (bottom - top) / size_px
    back = np.array([[across, 0, left + across / 2 - 0.5], [0, down, top + down / 2 - 0.5]])
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpAffine(picture, back, (size_px, size_px), flags=flags, borderMode=cv2.BORDER_REPLICATE)


@pytest.mark.parametrize("coded", CODED)
def test_the_crop_of_a_sample_cut_from_the_source_is_the_sample_s_picture(tmp_path, coded):
    """The face walks out of the picture: windows move, lie between pixels and reach over the edge."""
    image, look = CODED[coded]
    sound = media.Sound(samples=media.hum(3))
    path = media.painted_video(tmp_path / "s.mp4", lambda _: image, 3, look=look, sound=sound)
    size, walk = probe(path).video, np.linspace(0, 200, 60)[:, None] * [1.0, 0.4, 1.0, 0.4, 0.0]
    scene = Scene(tmp_path, path).add(np.float32(still_box(400, 250, 100, 60) + walk), 10)
    (cut,) = scene.cut(size.width_px, size.height_px).items
    known = measured(scene.video.id, clips=(cut,))
    known = dataclasses.replace(known, source=dataclasses.replace(known.source, video=size))
    done = shard(scene.store, [known], kept(cut.key))
    assert verify(scene.store).problems == []

    (sample,) = webdataset.WebDataset(str(scene.store.local / "shards" / done.index.shards[0])).decode()
    about, crop = sample["json"], sample["crop.npy"]
    assert (about["source_width_px"], about["source_height_px"]) == (WIDTH, HEIGHT) and crop.shape == (60, 4)
    assert crop[-1, 2] > WIDTH and crop[-1, 3] > HEIGHT - 10 and np.any(crop % 1 != 0)
    with av.open(io.BytesIO(sample["mp4"])) as video:
        frames = [frame.to_ndarray(format="bgr24").astype(int) for frame in video.decode(video=0)]

    def error(off: tuple[int, int, int, int]) -> float:
        expected = [cropped(SHOWN, window + off, about["size_px"]) for window in crop]
        return float(np.mean([np.abs(a - b).mean() for a, b in zip(frames, expected, strict=True)]))

    exact = error((0, 0, 0, 0))
    assert exact < 4
    for off in ((4, 0, 4, 0), (0, 4, 0, 4), (-4, 0, -4, 0), (0, -4, 0, -4)):
        assert error(off) > 2 * exact and error(off) > 4


def test_a_set_of_an_older_schema_is_whole_as_it_is_and_written_anew_by_the_next_shards(tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    videos = [measured(name, clips=(stored_clip(store, name),), person=n) for n, name in enumerate(("v1", "v2"))]
    with monkeypatch.context() as before:
        before.setattr(shard_json, "SCHEMA", 1)
        before.setattr("stages.shard._ARRAYS", ("box.npy", "lmk.npy", "pose.npy"))
        old = shard(store, videos, judge(videos, POLICY)).index
    assert verify(store).ok and {member.name for row in old.rows for member in row.sample.members}.isdisjoint(
        {"crop.npy"}
    )
    new = shard(store, videos, judge(videos, POLICY))
    assert new.found == () and set(new.removed) == set(old.shards) and read_index(store) == new.index
    assert verify(store).ok and all("crop.npy" in {m.name for m in row.sample.members} for row in new.index.rows)


@pytest.mark.parametrize(
    ("schema", "arrays", "said"),
    [
        (2, ("box.npy", "lmk.npy", "pose.npy"), ["has no crop.npy"]),
        (6, ("box.npy", "lmk.npy", "pose.npy", "crop.npy"), ["schema is 6, this version reads 1 to 5"]),
    ],
)
def test_a_sample_without_its_crop_and_one_of_a_later_schema_are_found(tmp_path, monkeypatch, schema, arrays, said):
    store = Store(str(tmp_path))
    video = measured(clips=(stored_clip(store, "v0"),))
    monkeypatch.setattr(shard_json, "SCHEMA", schema)
    monkeypatch.setattr("stages.shard._ARRAYS", arrays)
    shard(store, [video], judge([video], POLICY))
    assert [problem.what for problem in verify(store).problems] == said
