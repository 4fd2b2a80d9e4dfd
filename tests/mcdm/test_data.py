"""Shards to batches: formats, order, exactness, faults."""

import dataclasses
import io
import tarfile

import fsspec
import numpy as np
import pytest
import torch
import webdataset
from botocore.exceptions import EndpointConnectionError

from mcdm.data import Drawn, RandomWindows, Source, Window, batches
from mcdm.encode import Encoded, encode
from mcdm.shards import SampleError, Shards, chains, decode, read_wav
from mcdm.sound import SoundFile
from tests.mcdm.nano import nano
from tests.mcdm.shards import draw, members, npy, person, wav, write_shards

NEEDS = ("present", "archived", "reference", "face", "points", "head", "audio", "image")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_shards(tmp_path_factory.mktemp("world"), people=3, clips=2, n_frames=40)


def test_the_index_and_a_scan_of_the_tars_say_the_same(folder, tmp_path):
    for tar in folder.glob("*.tar"):
        (tmp_path / tar.name).write_bytes(tar.read_bytes())
    indexed, scanned = Shards(str(folder)), Shards(str(tmp_path))
    assert sorted(indexed.clips, key=str) == sorted(scanned.clips, key=str)


def test_the_same_clips_are_read_from_another_file_system(folder):
    memory = fsspec.filesystem("memory")
    for path in folder.iterdir():
        memory.pipe_file(f"/copy/{path.name}", path.read_bytes())
    there, here = Shards("memory://copy"), Shards(str(folder))
    assert there.read(there.clips[0], "mp4") == here.read(here.clips[0], "mp4")


def test_a_plain_webdataset_loop_reads_the_same_shards(folder):
    tars = sorted(str(path) for path in folder.glob("*.tar"))
    keys = [sample["__key__"] for sample in webdataset.WebDataset(tars, shardshuffle=False)]
    assert sorted(keys) == sorted(clip.key for clip in Shards(str(folder)).clips)


def test_a_window_decodes_to_exactly_its_frames(folder):
    shards = Shards(str(folder))
    clip = shards.clips[0]
    data = shards.read(clip, "mp4")
    whole = decode(clip.key, data, 0, 40)
    assert np.array_equal(decode(clip.key, data, 27, 33), whole[27:33])
    landmarks = shards.array(clip, "lmk.npy", (40, 5, 2))
    eye = whole[30][int(landmarks[30, 0, 1]), int(landmarks[30, 0, 0])]
    assert eye.max() < 90, "the pupil lies where the landmark says"


@pytest.fixture(scope="module")
def cached(folder, tmp_path_factory):
    url = str(tmp_path_factory.mktemp("cache"))
    shards, recipe = Shards(str(folder)), nano()
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("mcdm.encode._CHUNK", 13)  # of 40 frames, as a clip of the pipeline's has more than 64
        assert encode(shards, recipe, url, device=torch.device("cpu")) == []
    return Encoded(url, recipe.encoding)


def test_cached_and_fresh_windows_agree(folder, cached):
    shards, recipe = Shards(str(folder)), nano()
    for start, reference in ((4, 35), (20, 5), (36, 0)):
        window = Window(shards.clips[0], start, reference, cold=False)
        fresh = Source(shards, recipe, None, NEEDS).load(window)
        stored = Source(shards, recipe, cached, NEEDS).load(window)
        assert set(fresh) == set(stored) == set(NEEDS)
        for name in ("face", "points", "head", "audio", "image"):
            assert torch.allclose(fresh[name], stored[name].float(), atol=2e-2), name
        halves = {name for name, tensor in stored.items() if tensor.dtype == torch.float16}
        assert halves == {"present", "archived", "reference", "audio", "image"}, "until they are on the device"
        moved = Drawn(stored, [window.clip.key]).to(torch.device("cpu")).tensors
        assert all(torch.equal(tensor, stored[name].float()) for name, tensor in moved.items())
        assert {tensor.dtype for tensor in moved.values()} == {torch.float32}
        assert fresh["present"].dtype == torch.uint8 and stored["present"].shape == (4, 16, 8, 8)


def test_a_frame_hears_its_own_rows_and_beyond_the_ends_of_a_clip_the_first_and_the_last(folder, cached):
    shards, recipe = Shards(str(folder)), nano()
    rows, around = torch.from_numpy(cached.rows(shards.clips[0], "audio", 0, 40).copy()), torch.arange(-2, 3)
    for start in (4, 20, 36):
        at = torch.arange(start - 4, start + 4)[:, None] + around
        heard = Source(shards, recipe, cached, ("audio",)).load(Window(shards.clips[0], start, 0, cold=False))["audio"]
        assert torch.equal(heard, rows[at.clamp(0, 39)].flatten(1, 2))


def test_archived_frames_are_those_right_before_the_present_ones(folder, cached):
    shards, recipe = Shards(str(folder)), nano()
    source = Source(shards, recipe, cached, NEEDS)
    one = source.load(Window(shards.clips[0], 8, 0, cold=False))
    nxt = source.load(Window(shards.clips[0], 12, 0, cold=False))
    assert torch.equal(one["present"], nxt["archived"])
    cold = source.load(Window(shards.clips[0], 8, 5, cold=True))
    assert torch.equal(cold["archived"], cold["reference"].expand(4, -1, -1, -1))


def test_encoding_goes_on_where_it_was_broken_off(folder, tmp_path):
    shards, recipe = Shards(str(folder)), nano()
    url, seen = str(tmp_path), []
    encode(shards, recipe, url, device=torch.device("cpu"), clips=shards.clips[:1])
    encode(shards, recipe, url, device=torch.device("cpu"), tick=lambda clip: seen.append(clip.key))
    assert sorted(seen) == sorted(clip.key for clip in shards.clips[1:])


def test_a_clip_with_a_nan_is_named_and_the_others_are_encoded(folder, tmp_path):
    (tmp_path / "shards").mkdir()
    shards, recipe, seen = broken(folder, tmp_path / "shards", "lmk.npy", one_nan(40, 5, 2)), nano(), []
    bad = encode(shards, recipe, str(tmp_path), device=torch.device("cpu"), tick=lambda clip: seen.append(clip.key))
    assert [str(error) for error in bad] == ["video0-0000: lmk.npy is not finite in 1 of 40 frames"]
    assert sorted(seen) == sorted(clip.key for clip in shards.clips if clip.key != "video0-0000")


def windows(folder, seed=0):
    shards, recipe = Shards(str(folder)), nano()
    return RandomWindows(Source(shards, recipe, None, ("head",)), shards.split("train"), seed)


def drawn(folder, rank, world, first=0, workers=0, seed=0):
    given = {"batch": 4, "micro": 2, "first_step": first, "steps": 3, "workers": workers}
    return list(batches(windows(folder, seed), rank=rank, world=world, **given))


def test_order_is_a_function_of_seed_and_step_at_any_world_size(folder):
    whole = [s for d in drawn(folder, 0, 1) for s in d.tensors["seed"].tolist()]
    halves = [[s for d in drawn(folder, r, 2) for s in d.tensors["seed"].tolist()] for r in range(2)]
    together = [s for i in range(3) for half in halves for s in half[2 * i : 2 * i + 2]]
    assert together == whole
    assert [s for d in drawn(folder, 0, 1, workers=2) for s in d.tensors["seed"].tolist()] == whole
    assert [s for d in drawn(folder, 0, 1, first=2) for s in d.tensors["seed"].tolist()] == whole[8:]
    assert [s for d in drawn(folder, 0, 1, seed=1) for s in d.tensors["seed"].tolist()] != whole


def test_every_stage_draws_windows_and_noise_of_its_own(folder):
    shards = Shards(str(folder))
    source = Source(shards, nano(), None, ("head",))

    def drawn(stage):
        made = RandomWindows(source, shards.split("train"), 0, stage)
        starts = tuple((made.window(number).clip.key, made.window(number).start) for number in range(8))
        return starts, tuple(int(made[number][0]["seed"]) for number in range(4))

    windows, noise = zip(*map(drawn, (None, 0, 1, 2, 3)), strict=True)
    assert len(set(windows)) == 5 and len({seed for seeds in noise for seed in seeds}) == 20
    assert drawn(3) == (windows[-1], noise[-1])


def test_windows_stay_inside_their_clip_and_the_reference_outside_the_window(folder):
    source = windows(folder)
    for number in range(200):
        window = source.window(number)
        assert 4 <= window.start <= 36
        assert not window.start <= window.reference < window.start + 4


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_as_many_windows_start_cold_as_the_recipe_says(folder, share):
    shards, recipe = Shards(str(folder)), nano()
    recipe = dataclasses.replace(recipe, archive=dataclasses.replace(recipe.archive, start_share=share))
    windows = RandomWindows(Source(shards, recipe, None, ("head",)), shards.clips, 0)
    cold = sum(windows.window(number).cold for number in range(2000))
    assert cold / 2000 == pytest.approx(share, abs=share / 10)


def test_a_clip_of_ten_times_the_frames_comes_some_ten_times_as_often(folder):
    shards = Shards(str(folder))
    short, long = (dataclasses.replace(shards.clips[0], n_frames=n_frames) for n_frames in (40, 400))
    windows = RandomWindows(Source(shards, nano(), None, ("head",)), [short, long], 0)
    drawn = [windows.window(number).clip for number in range(2000)]
    assert 10 < drawn.count(long) / drawn.count(short) < 20


def test_clips_of_which_none_is_long_enough_are_refused(folder):
    shards = Shards(str(folder))
    short, other = (dataclasses.replace(clip, n_frames=12) for clip in shards.clips[:2])
    with pytest.raises(ValueError, match="none of 2 clips has the 13 frames that recipe nano needs"):
        RandomWindows(Source(shards, nano(), None, ("head",)), [short, other], 0)


def test_a_world_that_does_not_divide_the_batch_is_refused(folder):
    with pytest.raises(ValueError, match="does not divide"):
        drawn(folder, 0, 3)


@pytest.mark.parametrize("index", [True, False], ids=["index", "scan"])
def test_of_shards_written_again_only_the_clips_whose_pictures_changed_are_encoded_again(tmp_path, monkeypatch, index):
    recipe, url, latents, seen = nano(), str(tmp_path / "cache"), [], []
    monkeypatch.setattr("tests.mcdm.shards.members", members.__wrapped__)  # not those that were made before
    for name, changed in (("old", 0), ("new", 50)):
        monkeypatch.setattr("tests.mcdm.shards.person", lambda who, more=changed: person(who + (who == 0) * more))
        shards = Shards(str(write_shards(tmp_path / name, people=3, clips=1, n_frames=12, index=index)))
        seen.append([])
        encode(shards, recipe, url, device=torch.device("cpu"), tick=lambda clip: seen[-1].append(clip.key), workers=1)
        (clip,) = (clip for clip in shards.clips if clip.key == "video0-0000")
        latents.append(Encoded(url, recipe.encoding).rows(clip, "latent", 0, 1).astype(np.float32))
    assert sorted(seen[0]) == ["video0-0000", "video1-0000", "video2-0000"]
    assert seen[1] == ["video0-0000"]
    assert np.abs(latents[0] - latents[1]).max() > 0.1


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b'{"video_id": "v"}', r"has no split \(str\)"),
        (b"[1]", "is no JSON object"),
        (b'{"a":', "is no JSON: Expecting value"),
        (b"\xff", "is no JSON: 'utf-8' codec"),
    ],
)
def test_a_json_member_that_says_too_little_is_named_with_its_tar_in_one_line(folder, tmp_path, content, fault):
    with pytest.raises(ValueError, match=rf"train-\S+\.tar cannot be read: video0-0000\.json {fault}") as caught:
        broken(folder, tmp_path, "json", content)
    assert "\n" not in str(caught.value)


def one_nan(*shape):
    array = np.ones(shape, np.float32)
    array[5] = np.nan
    return npy(array)


def broken(folder, tmp_path, member, content):
    """A copy of the train shard in which the first clip's member is replaced."""
    source = next(folder.glob("train*.tar"))
    with tarfile.open(source) as old, tarfile.open(tmp_path / source.name, "w", format=tarfile.USTAR_FORMAT) as new:
        for info in old:
            data = old.extractfile(info).read()
            if info.name == f"video0-0000.{member}":
                data = content
                info.size = len(data)
            new.addfile(info, io.BytesIO(data))
    return Shards(str(tmp_path))


@pytest.mark.parametrize(
    ("member", "content", "reason"),
    [
        ("lmk.npy", b"nonsense", "no array"),
        ("mp4", b"nonsense" * 100, "cannot be decoded"),
        ("wav", wav(np.zeros(25_600, np.int16), 8_000), "8000 Hz"),
        ("pose.npy", b"", "no array"),
        ("lmk.npy", one_nan(40, 5, 2), "lmk.npy is not finite in 1 of 40 frames"),
        ("pose.npy", one_nan(40, 3), "pose.npy is not finite in 1 of 40 frames"),
        ("pose.npy", npy(np.full((40, 3), 1e300)), "pose.npy is not finite in 40 of 40 frames"),
        ("lmk.npy", npy(np.full((40, 5, 2), "7")), "lmk.npy holds <U1, not numbers"),
    ],
)
def test_a_bad_member_is_skipped_counted_and_named(folder, tmp_path, member, content, reason):
    shards, recipe = broken(folder, tmp_path, member, content), nano()
    source = Source(shards, recipe, None, ("face", "head", "audio"))
    bad = Window(shards.clips[0], 8, 0, cold=False)
    with pytest.raises(SampleError, match=reason):
        source.load(bad)
    random = RandomWindows(source, shards.clips, 0)
    numbers = [n for n in range(40) if random.window(n).clip.key == "video0-0000"]
    _, key, skipped = random[numbers[0]]
    assert key != "video0-0000"
    assert skipped[0][0] == "video0-0000" and reason in skipped[0][1]


def test_nothing_but_bad_samples_ends_with_one_line_that_names_one(folder, tmp_path):
    shards, recipe = broken(folder, tmp_path, "pose.npy", b""), nano()
    random = RandomWindows(Source(shards, recipe, None, ("head",)), shards.clips[:1], 0)
    with pytest.raises(ValueError, match=r"video0-0000: pose\.npy is no array"):
        random[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_what_a_reading_process_cannot_read_is_raised_in_one_line_where_it_is_asked_for(folder, tmp_path, workers):
    shards, recipe = broken(folder, tmp_path, "pose.npy", b""), nano()
    random = RandomWindows(Source(shards, recipe, None, ("head",)), shards.clips[:1], 0)
    given = {"batch": 2, "micro": 2, "first_step": 0, "steps": 1, "rank": 0, "world": 1}
    with pytest.raises(ValueError, match=r"^16 samples in a row .*: video0-0000: pose\.npy is no array$") as caught:
        next(batches(random, **given, workers=workers))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bucket_that_stops_answering_is_one_line_whichever_process_asked(folder, monkeypatch, workers):
    def gone(*_):
        raise EndpointConnectionError(endpoint_url="http://there")

    monkeypatch.setattr(Shards, "read", gone)
    given = {"batch": 2, "micro": 2, "first_step": 0, "steps": 1, "rank": 0, "world": 1}
    with pytest.raises(ValueError, match=r'^Could not connect to the endpoint URL: "http://there"$'):
        next(batches(windows(folder), **given, workers=workers))


def test_a_missing_shard_is_named(folder, tmp_path):
    (tmp_path / "index.parquet").write_bytes((folder / "index.parquet").read_bytes())
    with pytest.raises(ValueError, match=r"names test-000000-\w+\.tar|names train-000000-\w+\.tar"):
        Shards(str(tmp_path))
    with pytest.raises(ValueError, match="no shards"):
        Shards(str(tmp_path / "nowhere"))


def test_stereo_sound_is_refused():
    with pytest.raises(SampleError, match="wav cannot be read"):
        read_wav("k", b"RIFF")


def test_a_sound_of_full_scale_reads_1_in_a_shard_and_in_a_file(tmp_path):
    samples = np.random.default_rng(0).integers(-32768, 32768, 1280).astype(np.int16)
    samples[:2] = -32768, 32767
    (tmp_path / "full.wav").write_bytes(wav(samples))
    read = read_wav("k", wav(samples), 2)
    assert read[0] == -1 and read[1] == pytest.approx(1, abs=1e-4)
    assert np.array_equal(np.concatenate(list(SoundFile(tmp_path / "full.wav", 2))), read)


@pytest.mark.parametrize(("other", "found"), [({}, [2, 2, 2]), ({"contiguous_with_prev": False}, [1, 1, 2, 2])])
def test_a_clip_is_of_the_chain_of_the_one_before_only_where_it_goes_on_from_it(folder, other, found):
    first, second, third, *rest = sorted(Shards(str(folder)).clips, key=lambda clip: clip.key)
    third = dataclasses.replace(third, contiguous_with_prev=True)  # of another video, whatever it says
    clips = [first, dataclasses.replace(second, **other), third, *rest]
    made = chains(clips, {clip.key for clip in clips})
    assert [len(chain) for chain in made] == found and [clip for chain in made for clip in chain] == clips


def test_a_window_of_clips_in_a_row_ends_inside_its_clip_and_has_its_reference_outside(folder):
    shards = Shards(str(folder))
    recipe = nano()
    windows = RandomWindows(Source(shards, recipe, None, NEEDS, 3), shards.clips, 0)
    for number in range(50):
        window = windows.window(number)
        assert recipe.archive.frames <= window.start <= window.clip.n_frames - 3 * recipe.frames
        assert not window.start <= window.reference < window.start + 3 * recipe.frames
    sample = windows[0][0]
    assert len(sample["present"]) == 3 * recipe.frames and len(sample["face"]) == 4 * recipe.frames


def test_the_drawn_person_is_the_same_every_time():
    assert np.array_equal(draw(person(1), 0.5, (0, 0))[0], draw(person(1), 0.5, (0, 0))[0])
    assert dataclasses.asdict(person(1)) != dataclasses.asdict(person(2))
