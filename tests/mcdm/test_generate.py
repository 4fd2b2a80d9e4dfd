"""A trained run to video, and its evaluation: exactness, lengths, constant memory, faults, the page."""

import copy
import json
import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import cv2
import numpy as np
import pytest
import torch

from manifests.sample.serve import CORPUS
from mcdm.cli import main
from mcdm.diffusion import draw_normal
from mcdm.driving import heads_like
from mcdm.encoders import make_audio
from mcdm.evaluate import EvaluateOptions, roll_out
from mcdm.generate import Talker, place_face, read_reference, usual_landmarks
from mcdm.shards import Shards
from mcdm.sound import SoundFile, feature_rows
from mcdm.truth import audio_window, read_truth
from mcdm.video import VideoWriter
from stages.ffmpeg import ffmpeg_path
from tests.mcdm.nano import nano
from tests.mcdm.shards import SIDE_PX, draw, person, speech, wav
from tests.mcdm.test_frechet import Pictures, Videos
from tests.mcdm.world import made_world

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return made_world(tmp_path_factory.mktemp("plain"), nano(memory_zero_init=False))


@pytest.fixture(scope="module", params=["plain", "seeing"], ids=["plain", "as tiny sees"])
def world(request):
    """For what the denoiser sees makes a difference to; else `plain`."""
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def loaded(world):
    return Talker(world / "run", CPU)


@pytest.fixture
def talker(loaded):
    """The world's run, to be changed as a test likes."""
    return copy.copy(loaded)


@pytest.fixture(scope="module")
def loaded_plain(plain):
    return Talker(plain / "run", CPU)


@pytest.fixture
def ready(plain, loaded_plain, monkeypatch):
    """A world whose run `generate` need not load, which takes longer than a second of video."""
    monkeypatch.setattr("mcdm.generate.Talker", lambda *_, **__: loaded_plain)
    return plain


def generate(world, out, *more):
    given = ["--run", world / "run", "--reference", world / "face.png", "--audio", world / "speech.wav"]
    given += ["--face-pack", "none"]
    return main([str(a) for a in ["generate", *given, "--out", out, "--device", "cpu", *more]])


def read(path):
    with av.open(str(path)) as container:
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    with av.open(str(path)) as container:
        samples = sum(frame.samples for frame in container.decode(audio=0))
    return np.stack(pictures), samples


def test_a_picture_and_a_voice_become_a_video_of_the_wanted_length_with_sound(world, tmp_path):
    assert generate(world, tmp_path / "own.mp4") == 0
    pictures, samples = read(tmp_path / "own.mp4")
    assert pictures.shape == (30, 32, 32, 3) and abs(samples - 30 * 640) <= 2048
    assert generate(world, tmp_path / "long.mp4", "--seconds", "2") == 0
    pictures, samples = read(tmp_path / "long.mp4")
    assert len(pictures) == 50 and abs(samples - 50 * 640) <= 2048
    assert sorted(path.name for path in tmp_path.iterdir()) == ["long.mp4", "own.mp4"]


def test_a_seed_gives_the_same_video_and_another_seed_another(world, tmp_path):
    for name, seed in (("a", "1"), ("b", "1"), ("c", "2")):
        generate(world, tmp_path / f"{name}.mp4", "--seed", seed, "--seconds", "0.4")
    a, b, c = ((tmp_path / f"{name}.mp4").read_bytes() for name in "abc")
    assert a == b != c


def test_more_steps_than_there_are_timesteps_are_refused(plain, tmp_path, capsys):
    assert generate(plain, tmp_path / "o.mp4", "--steps", "1001") == 2
    assert "--steps 1001: expected at most 1000" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["inf", "nan", "0", "-1", "1e308"])
def test_a_length_that_is_none_is_refused_by_name(ready, tmp_path, capsys, seconds):
    assert generate(ready, tmp_path / "o.mp4", "--seconds", seconds) == 2
    assert capsys.readouterr().err == f"mcdm generate: --seconds {float(seconds):g}: expected a length above 0\n"


def test_the_shortest_video_is_one_frame(ready, tmp_path):
    assert generate(ready, tmp_path / "o.mp4", "--seconds", "0.01") == 0
    assert len(read(tmp_path / "o.mp4")[0]) == 1


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
def test_what_is_no_file_in_the_video_s_place_is_refused_before_anything_is_made(
    make, plain, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("mcdm.generate.Talker", None)
    make(out := tmp_path / "o.mp4")
    assert generate(plain, out) == 2
    assert capsys.readouterr().err == f"mcdm generate: --out {out}: not a file; expected the name of an mp4 to write\n"
    assert list(tmp_path.iterdir()) == [out] and not out.is_file()


def test_a_video_that_cannot_be_named_leaves_nothing_behind(tmp_path):
    (tmp_path / "o.mp4").mkdir()
    with pytest.raises(OSError), VideoWriter(tmp_path / "o.mp4", 32) as writer:
        writer.show(np.zeros((2, 32, 32, 3), np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["o.mp4"]


@pytest.mark.parametrize(
    ("name", "content", "line"),
    [
        ("face.png", b"nonsense", "none that can be read"),
        ("speech.wav", b"nonsense", "no sound that can be read"),
        ("face.png", None, "no such picture"),
    ],
)
def test_a_bad_picture_or_sound_is_one_line(ready, tmp_path, capsys, name, content, line):
    paths = {other: ready / other for other in ("face.png", "speech.wav")}
    paths[name] = tmp_path / name
    if content is not None:
        paths[name].write_bytes(content)
    given = ["--reference", paths["face.png"], "--audio", paths["speech.wav"], "--out", tmp_path / "o.mp4"]
    given += ["--face-pack", "none"]
    assert main([str(a) for a in ["generate", "--run", ready / "run", "--device", "cpu", *given]]) == 2
    said = capsys.readouterr().err.strip()
    assert line in said and "\n" not in said
    assert not (tmp_path / "o.mp4").exists()


def test_a_picture_without_a_face_is_refused_in_one_line(ready, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "wall.png"), np.full((200, 200, 3), 90, np.uint8))
    given = ["--reference", tmp_path / "wall.png", "--face-pack", "sample/faces"]
    assert generate(ready, tmp_path / "o.mp4", *given) == 2
    said = capsys.readouterr()
    assert "sample/faces finds no face, expected one; give another picture" in said.err
    assert said.err.count("\n") == 1 and not said.out and not (tmp_path / "o.mp4").exists()


def test_the_face_of_a_wide_picture_is_found_by_the_packaged_networks(ready, tmp_path):
    with av.open(str(CORPUS / "de-1.mp4")) as container:
        frame = next(container.decode(video=0)).to_ndarray(format="bgr24")
    cv2.imwrite(str(tmp_path / "wide.png"), frame)
    given = ["--reference", tmp_path / "wide.png", "--face-pack", "sample/faces", "--seconds", "0.2"]
    assert generate(ready, tmp_path / "o.mp4", *given) == 0
    assert read(tmp_path / "o.mp4")[0].shape == (5, 32, 32, 3)


@pytest.mark.parametrize("pack", ["nowhere", "{tmp}"])
def test_a_face_pack_that_is_none_is_refused_by_name(ready, tmp_path, capsys, pack):
    assert generate(ready, tmp_path / "o.mp4", "--face-pack", pack.format(tmp=tmp_path)) == 2
    assert f"--face-pack {pack.format(tmp=tmp_path)}: " in capsys.readouterr().err


def test_a_picture_that_is_not_square_is_refused_without_a_face_pack(ready, tmp_path, capsys):
    cv2.imwrite(str(tmp_path / "wide.png"), np.zeros((50, 90, 3), np.uint8))
    assert generate(ready, tmp_path / "o.mp4", "--reference", tmp_path / "wide.png") == 2
    assert "90 x 50: --face-pack none needs a square crop" in capsys.readouterr().err


def test_state_does_not_grow_and_memory_and_archive_matter(world, talker):
    talkers = [talker, *(Talker(world / "run", CPU, **{name: False}) for name in ("carry_memory", "use_archive"))]
    reference = draw(person(0), 0.3, (0, 0), 32)[0][None]
    audio = torch.randn(1, 8, 5, 128)
    third = []
    for talker in talkers:
        state = talker.begin(reference, [0])
        for _ in range(3):
            latents, state = talker.clip(state, audio)
        third.append(latents)
        carried = [c for step in state.carries or [] for c in step]
        size = sum(c.untyped_storage().nbytes() for c in carried)
        assert size == 4 * sum(c.numel() for c in carried), "no view that holds on to a whole clip's memories"
        _, state = talker.clip(state, audio)
        assert sum(c.untyped_storage().nbytes() for step in state.carries or [] for c in step) == size
        assert state.archived.shape[1] == 4
    assert not torch.equal(third[0], third[1]) and not torch.equal(third[0], third[2])


def test_videos_made_side_by_side_are_those_made_alone(talker):
    references = np.stack([draw(person(i), 0.3, (0, 0), 32)[0] for i in range(2)])
    audio = torch.randn(2, 8, 5, 128)
    together, state = talker.clip(talker.begin(references, [3, 4]), audio)
    alone, kept = talker.clip(talker.begin(references[1:], [4]), audio[1:])
    assert torch.allclose(together[1:], alone, atol=1e-4)
    one, _ = talker.clip(kept, audio[1:])
    both, _ = talker.clip(state, audio)
    assert torch.allclose(both[1:], one, atol=1e-4)


def test_guidance_goes_on_from_the_answer_without_what_is_given(talker):
    reference, audio = draw(person(0), 0.3, (0, 0), 32)[0][None], torch.randn(1, 8, 5, 128)
    talker.steps, made = 1, {}
    for guidance in (0.0, 1.0, 3.0):
        talker.recipe = replace(talker.recipe, unet=replace(talker.recipe.unet, guidance=guidance))
        made[guidance], state = talker.clip(talker.begin(reference, [0]), audio)
        talker.clip(state, audio)
    given = made[1.0] - made[0.0]
    assert given.abs().max() > 1e-3
    assert torch.allclose(made[3.0], made[0.0] + 3 * given, rtol=1e-3, atol=1e-3)


def test_every_clip_has_noise_of_its_own(talker, monkeypatch):
    salts, state = [], talker.begin(draw(person(0), 0.3, (0, 0), 32)[0][None], [0])
    monkeypatch.setattr("mcdm.generate.draw_normal", lambda *given: salts.append(given[1]) or draw_normal(*given))
    for _ in range(3):
        _, state = talker.clip(state, torch.zeros(1, 8, 5, 128))
    assert len(salts) == len(set(salts)) == 6, "of motion and of latents"


def test_motion_without_noise_is_steadier(talker):
    reference, audio = draw(person(0), 0.3, (0, 0), 32)[0][None], torch.randn(1, 8, 5, 128)
    tokens = []
    for temperature in (1.0, 0.0):
        talker.recipe = replace(talker.recipe, prior=replace(talker.recipe.prior, temperature=temperature))
        states = [talker.clip(talker.begin(reference, [seed]), audio)[1] for seed in (0, 1)]
        tokens.append([state.tokens[:, -4:] for state in states])
    assert not torch.allclose(*tokens[0], atol=1e-2), "two seeds, two motions"
    assert torch.allclose(*tokens[1]), "what is expected is one"


def test_a_gain_moves_the_mouth_more_and_neither_the_head_nor_what_is_remembered(talker):
    painted, paint = [], talker._paint
    talker._paint = lambda state, tokens: painted.append(tokens) or paint(state, tokens)
    reference, audio = draw(person(0), 0.3, (0, 0), 32)[0][None], torch.randn(1, 8, 5, 128)
    for gain in (1.0, 2.0):
        talker.recipe = replace(talker.recipe, prior=replace(talker.recipe.prior, gain=gain))
        _, state = talker.clip(talker.begin(reference, [0]), audio)
        assert torch.equal(state.tokens[:, -4:], painted[0])
    one, two = painted
    assert torch.equal(one[:, :, :1], two[:, :, :1]) and torch.allclose(2 * one[:, :, 1:], two[:, :, 1:])


def test_features_of_a_stream_are_those_of_the_whole(tmp_path):
    samples = speech(600, 3)[0]
    (tmp_path / "long.wav").write_bytes(wav(samples))
    encoder = make_audio(nano().audio)
    rows = torch.stack(list(feature_rows(iter(SoundFile(tmp_path / "long.wav", 600)), encoder, CPU)))
    whole = encoder(torch.from_numpy(samples.astype(np.float32) / 32768))
    assert rows.shape == whole.shape == (600, 1, 128)
    assert torch.allclose(rows[:-26], whole[:-26], atol=1e-3)


def test_of_several_sound_tracks_the_default_one_speaks(tmp_path):
    (tmp_path / "speech.wav").write_bytes(wav(speech(10, 1)[0]))
    (tmp_path / "silence.wav").write_bytes(wav(np.zeros(6400, np.int16)))
    both = ["-i", tmp_path / "silence.wav", "-i", tmp_path / "speech.wav", "-map", "0:a", "-map", "1:a"]
    marks = ["-disposition:a:0", "0", "-disposition:a:1", "default", tmp_path / "film.mka"]
    subprocess.run([ffmpeg_path(), "-v", "error", *both, *marks], check=True)
    assert max(np.abs(samples).max() for samples in SoundFile(tmp_path / "film.mka", 10)) > 0.1


def test_a_found_face_is_put_where_training_has_it():
    picture, landmarks = draw(person(1), 0.0, (0.1, 0.05))
    wanted = draw(person(1), 0.0, (0, 0), 64)[1]
    placed, at = place_face(picture, landmarks, wanted, 64)
    assert np.abs(at - wanted).max() < 0.5
    true = draw(person(1), 0.0, (0, 0), 64)[0]
    assert landmarks.max() < SIDE_PX
    assert np.abs(placed[16:48, 16:48].astype(int) - true[16:48, 16:48]).mean() < 12


def test_a_face_of_other_proportions_says_where_its_landmarks_came_to_lie(world, talker):
    face = read_reference(world / "face.png", talker, "sample/faces")
    true, usual = draw(person(0), 0.3, (0, 0))[1], usual_landmarks(talker)
    scale = np.linalg.norm(usual - usual.mean(0)) / np.linalg.norm(true - true.mean(0))
    assert face.landmarks is not None
    assert np.abs(face.landmarks - ((true - true.mean(0)) * scale + usual.mean(0))).max() < 0.06
    assert np.abs(face.landmarks - usual).max() > 0.02, "a run of two steps does not know where faces are"
    whole = read_reference(world / "face.png", talker, "").picture
    assert np.abs(whole.mean((0, 1)) - draw(person(0), 0.3, (0, 0))[0].mean((0, 1))).max() < 2, "in its colours"
    began = []
    begin = talker.begin
    talker.begin = lambda *given: began.append(given[2]) or begin(*given)
    audio = talker.recipe.audio
    list(talker.talk(face, iter(torch.zeros(40, audio.vectors, audio.width)), 8, 0))
    assert np.array_equal(began[0][0], face.landmarks)


def test_a_frame_hears_its_own_rows_and_behind_the_end_of_a_sound_the_last_one(world, talker):
    shape, given = (talker.recipe.audio.vectors, talker.recipe.audio.width), []
    clip, f, reach, history = talker.clip, talker.recipe.frames, talker.recipe.audio.reach, talker.history
    talker.clip = lambda *told: given.append(told[1:]) or clip(*told)
    reference = read_reference(world / "face.png", talker, "")
    rows = torch.arange(19.0)[:, None, None].expand(19, *shape)
    driving = usual_landmarks(talker) + 0.01 * np.arange(20, dtype=np.float32)[:, None, None]
    assert sum(len(part) for part in talker.talk(reference, iter(rows), 20, 0, driving)) == 20
    heads = torch.from_numpy(heads_like(driving, usual_landmarks(talker)))
    for start, (sound, head) in zip(range(0, 20, f), given, strict=True):
        at = torch.arange(start - history, start + f)
        assert torch.equal(sound[0, ..., 0], (at[:, None] + torch.arange(-reach, reach + 1)).clamp(0, 18).float())
        assert torch.allclose(head[0], heads[at.clamp(0, 19)], atol=1e-6)
        assert start + f + reach > 19 or torch.equal(audio_window(SimpleNamespace(audio=rows), talker, start), sound[0])


def test_an_evaluation_writes_numbers_and_a_page_that_stands_alone(plain):
    given = ["--run", plain / "run", "--shards", plain / "shards", "--frames", "60", "--device", "cpu"]
    given += ["--face-pack", "none"]
    assert main([str(a) for a in ["evaluate", *given]]) == 0
    result = json.loads((plain / "run" / "eval.json").read_text())
    video = result["videos"][0]
    assert video["frames_with_truth"] == 40 and video["frames_made"] == 60
    assert -1 <= video["mouth_and_true_mouth"] <= 1 and video["ssim_at"]["30"] is not None
    assert video["ssim_at"]["300"] is None, "no truth so long: not measured"
    assert result["frechet"] == {"fid": None, "fvd": None} and set(result["not_measured"]) >= {"fid", "fvd", "identity"}
    assert "3-D morphable face model" in result["not_measured"]["e_fid"]
    assert result["frechet_samples"] == {}
    assert [at for at, _ in video["ssim_over_time"]] == [0, 25]
    page = (plain / "run" / "eval.html").read_text()
    assert "data:video/mp4;base64," in page and page.count("data:image/png;base64,") == 2, "SSIM, and the losses"
    assert "http" not in page.replace("http-equiv", "")


def test_lips_and_faces_of_an_evaluation_are_read_by_the_packaged_networks(plain):
    given = ["--run", plain / "run", "--shards", plain / "shards", "--frames", "60", "--device", "cpu"]
    assert main([str(a) for a in ["evaluate", *given, "--sync", "sample/sync", "--name", "read"]]) == 0
    result = json.loads((plain / "run" / "read.json").read_text())
    assert not {"sync", "identity"} & set(result["not_measured"])
    for video in result["videos"]:
        assert len(video["identity"]) + video["faces_lost"] == 3, "looked at once in 25 frames"
        for which in ("made", "true"):
            read_off = video["sync"][which]
            assert read_off["sync_c"] >= 0 and read_off["sync_d"] > 0 and abs(read_off["offset_frames"]) <= 15
    assert result["mean"]["sync"]["made"]["sync_c"] != result["mean"]["sync"]["true"]["sync_c"]


def test_a_lane_that_takes_the_next_video_makes_it_as_a_lane_of_its_own_does(world, talker):
    shards = Shards(str(world / "shards"))
    options = EvaluateOptions(run=world / "run", shards=shards.url, frames=12, face_pack="")
    audio = make_audio(talker.recipe.audio)
    truths = [read_truth(shards, [clip], talker, audio, 12) for clip in shards.clips]
    ways = [roll_out(talker, truths, replace(options, lanes=lanes)) for lanes in (3, 2, 1)]
    videos = [np.stack([made.shown() for _, made in way]).astype(int) for way in ways]
    assert videos[0].shape == (3, 12, 32, 32, 3)
    assert np.abs(videos[0] - videos[1]).max() <= 1 and np.abs(videos[0] - videos[2]).max() <= 1
    assert np.abs(videos[0][1:] - videos[0][:2]).mean() > 5, "three videos, not one three times"


def test_frechet_distances_are_measured_with_the_networks_given(plain, tmp_path):
    for name, network in (("fid", Pictures()), ("fvd", Videos())):
        torch.jit.script(network).save(str(tmp_path / f"{name}.pt"))
    given = ["--run", plain / "run", "--shards", plain / "shards", "--frames", "60", "--device", "cpu"]
    given += ["--face-pack", "none", "--fid", tmp_path / "fid.pt", "--fvd", tmp_path / "fvd.pt", "--name", "frechet"]
    assert main([str(a) for a in ["evaluate", *given]]) == 0
    result = json.loads((plain / "run" / "frechet.json").read_text())
    truth = sum(video["frames_with_truth"] for video in result["videos"])
    assert result["frechet"]["fid"] > 0 and result["frechet_samples"] == {"fid": truth, "fvd": truth // 40 * 2}
    assert not {"fid", "fvd"} & set(result["not_measured"])


def test_a_held_out_clip_that_cannot_be_read_is_skipped_by_name(plain, tmp_path):
    shards = Shards(str(shutil.copytree(plain / "shards", tmp_path / "shards")))
    clip = shards.split("test")[0]
    offset, length = clip.members["lmk.npy"]
    with (tmp_path / "shards" / clip.shard).open("r+b") as file:
        file.seek(offset)
        file.write(bytes(length))
    given = [
        "evaluate",
        "--run",
        plain / "run",
        "--shards",
        tmp_path / "shards",
        "--device",
        "cpu",
        "--face-pack",
        "none",
    ]
    assert main([str(a) for a in [*given, "--frames", "8", "--name", "bad"]]) == 2
    assert not (plain / "run" / "bad.json").exists()
    assert main([str(a) for a in [*given, "--frames", "8", "--name", "rest", "--splits", "test,train"]]) == 0
    keys = [video["key"] for video in json.loads((plain / "run" / "rest.json").read_text())["videos"]]
    assert keys and clip.key not in keys
