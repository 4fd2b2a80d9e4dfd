"""Published weights that a run learns with: missed at once and all together, remembered, and not mixed up."""

import shutil
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file, save_file

from mcdm import checkpoint
from mcdm.cli import main
from mcdm.config import RECIPES, AudioConfig, CodecConfig, ImageConfig
from mcdm.denoiser import Denoiser
from mcdm.import_weights import sd_name
from mcdm.local_weights import differing, digests
from tests.mcdm.nano import nano
from tests.mcdm.shards import write_shards
from tests.mcdm.test_encoders import clip_tower, sd_codec, wav2vec2
from tests.mcdm.test_import_weights import sd_like
from tests.mcdm.test_mistakes import refused, words


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Shards, small encoders in the published formats, and a run of all stages with these."""
    folder = tmp_path_factory.mktemp("world")
    write_shards(folder, people=3, clips=1, n_frames=20)
    for name, make in (("vae", sd_codec), ("wav2vec2", wav2vec2), ("clip", clip_tower)):
        make(folder / name)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(RECIPES, "tiny", like_paper)
        assert main(words("train", folder / "shards", folder / "run", *at(folder), "--set", "sd_weights=none")) == 0
    return folder


def like_paper():
    return replace(
        nano(),
        codec=CodecConfig(kind="sd", size_px=32, factor=8, channels=4),
        audio=AudioConfig(kind="wav2vec2", width=16, vectors=2),
        image=ImageConfig(kind="clip", width=12),
    )


@pytest.fixture
def as_paper(monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", like_paper)


def at(folder):
    """Settings that say where the encoders lie."""
    paths = {"codec": folder / "vae", "audio": folder / "wav2vec2", "image": folder / "clip"}
    return [word for name, path in paths.items() for word in ("--set", f"{name}.path={path}")]


def sd_weights(path, recipe):
    """A file of random weights, by SD's names, that fit a recipe's UNet; returns their setting."""
    unet = Denoiser(recipe).unet.state_dict()
    names = sd_like(Denoiser(recipe), recipe.codec.channels)
    save_file({name: torch.randn_like(unet[sd_name(name)]) for name in names}, path)
    return f"sd_weights={path}"


def test_all_weights_that_are_not_named_are_asked_for_at_once(world, tmp_path, capsys):
    given = ["train", "--shards", world / "shards", "--out", tmp_path / "run", "--device", "cpu", "--recipe", "paper"]
    encoders = "codec.path: no directory ''; audio.path: no directory ''; image.path: no directory ''"
    unet = "sd_weights: no UNet named (none for a random one)"
    last = "give local copies of the published weights"
    assert refused(capsys, *given) == f"mcdm train: {encoders}; {unet}; {last}"
    assert refused(capsys, *given, *at(world)) == f"mcdm train: {unet}; {last}"
    for enough in (["--stages", "0"], ["--set", "sd_weights=none"]):
        assert refused(capsys, *given, *enough) == f"mcdm train: {encoders}; {last}"
    assert encoders in refused(capsys, "encode", "--shards", world / "shards", "--recipe", "paper", "--device", "cpu")
    assert not (tmp_path / "run").exists()


def test_features_that_would_be_missing_days_later_are_missed_at_once(world, tmp_path, capsys, as_paper):
    given = words("train", world / "shards", tmp_path / "run", *at(world), "--cache", "off", "--set", "sd_weights=none")
    assert refused(capsys, *given).startswith("mcdm train: --cache off: stage 2 reads wav2vec 2.0 and CLIP features")
    assert not (tmp_path / "run").exists()
    assert main([*given, "--stages", "0", "--stop-after", "1"]) == 0


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_weights_to_start_from_that_do_not_fit_are_missed_before_anything_trains(
    world, tmp_path, capsys, kind, monkeypatch
):
    monkeypatch.setitem(RECIPES, "tiny", nano)
    given = words("train", world / "shards", tmp_path / "run", "--stages", "0-1", "--stop-after", "1")
    sd_weights(tmp_path / "unet.safetensors", nano())
    good, write = load_file(tmp_path / "unet.safetensors"), save_file if kind == "safetensors" else torch.save
    write({f"model.diffusion_model.{name}": value for name, value in good.items()}, tmp_path / f"layout.{kind}")
    write(good | {"conv_in.weight": torch.zeros(16, 9, 3, 3)}, tmp_path / f"inpainting.{kind}")
    for name, said in (("layout", "not the UNet of SD 1.5 as diffusers has it"), ("inpainting", "conv_in.weight has")):
        setting = f"sd_weights={tmp_path / name}.{kind}"
        assert refused(capsys, *given, "--set", setting).startswith(f"mcdm train: {setting}: {said}")
    assert not (tmp_path / "run").exists()


def test_stage_1_goes_on_only_from_the_weights_it_started_from(world, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", nano)
    one, other = (sd_weights(tmp_path / f"{name}.safetensors", nano()) for name in ("one", "other"))
    for first, then in (([], one), (["--set", one], other)):
        run = tmp_path / f"run{len(first)}"
        given = words("train", world / "shards", run, "--stages", "1", "--stop-after", "1")
        assert main([*given, *first]) == 0
        said = refused(capsys, *given, "--set", then)
        assert f"step-00000001.pt learned with other weights than {then} names" in said
        assert main(given) == 0 and checkpoint.step_of(checkpoint.newest(run, 1)) == 2
        assert said[said.index("learned") :] in refused(capsys, *given, "--set", then), "though it was not named again"


def test_stage_1_goes_on_where_the_weights_it_started_from_are_gone(world, tmp_path, as_paper):
    place, run = tmp_path / "unet", tmp_path / "run"
    place.mkdir()
    sd_weights(place / "diffusion_pytorch_model.safetensors", like_paper())
    named = ["--set", f"sd_weights={place}"]
    given = words("train", world / "shards", run, *at(world), "--stages", "1", "--stop-after", "1")
    assert main([*given, *named]) == 0
    (place / "diffusion_pytorch_model.safetensors").unlink()
    for step, settings in ((2, named), (3, [])):
        assert main([*given, *settings]) == 0
        assert checkpoint.step_of(checkpoint.newest(run, 1)) == step


def test_what_lies_beside_the_weights_that_are_read_makes_no_others_of_them(tmp_path):
    place, unet = tmp_path / "clip", tmp_path / "unet.bin"
    clip_tower(place)
    unet.write_bytes(bytes(1 << 20))
    recipe = replace(like_paper(), image=ImageConfig(kind="clip", width=12, path=str(place)), sd_weights=str(unet))
    then = {**digests(recipe, 1), **digests(recipe, 2)}
    for name in ("model.fp16.safetensors", "pytorch_model.bin", "config.json"):
        (place / name).write_text("{}")
        assert differing(recipe, then) == ""
    unet.write_bytes(b"x" * (1 << 19) + bytes(1 << 19))
    assert differing(recipe, then) == f"sd_weights={unet}", "with the same end"
    unet.unlink()
    weights = (place / "model.safetensors").rename(place / "kept")
    (place / "pytorch_model.bin").unlink()
    assert differing(recipe, then) == "", "there are none"
    (place / "model.safetensors").write_bytes(weights.read_bytes()[:-1] + b"x")
    assert differing(recipe, then) == f"image.path={place}"


def test_without_a_cache_only_encoders_that_the_stages_read_are_asked_for(world, tmp_path, capsys, as_paper):
    given = words("train", world / "shards", tmp_path / "run", "--cache", "off", "--stop-after", "1")
    codec = at(world)[:2]
    assert main([*given, "--stages", "0"]) == 0
    no_codec, no_others = "codec.path: no directory ''; sd_weights", "audio.path: no directory ''; image.path"
    assert refused(capsys, *given, "--stages", "1").startswith(f"mcdm train: {no_codec}")
    assert main([*given, "--stages", "1", *codec, "--set", "sd_weights=none"]) == 0
    said = refused(capsys, *given, "--stages", "3", *codec, "--samples-every", "1")
    assert said.startswith(f"mcdm train: {no_others}"), "for its samples"
    said = refused(capsys, *given, "--stages", "3", *codec)
    assert said.startswith("mcdm train: stage 3 needs stage 0")


def test_encoders_may_be_moved_and_not_exchanged(world, tmp_path, capsys, as_paper):
    moved, run = tmp_path / "moved", tmp_path / "run"
    for name in ("vae", "wav2vec2", "clip", "run"):
        shutil.copytree(world / name, run if name == "run" else moved / name)
    before = (run / "recipe.json").read_bytes()
    sd_codec(tmp_path / "other")
    other = ["--set", f"codec.path={tmp_path / 'other'}"]
    given = words("train", world / "shards", run, *at(moved), *other, "--set", "plans.3.steps=6")
    said = f"step-00000004.pt learned with other weights than codec.path={tmp_path / 'other'} names"
    assert said in refused(capsys, *given) and (run / "recipe.json").read_bytes() == before
    evaluate = ["evaluate", "--run", run, "--shards", world / "shards", "--device", "cpu", "--frames", "4"]
    evaluate += ["--face-pack", "none", *at(moved)]
    assert said in refused(capsys, *evaluate, *other)
    assert main([*map(str, evaluate), "--set", "unet.guidance=1.5"]) == 0
    for stage in (1, 3):
        path = checkpoint.newest(run, stage)
        saved = torch.load(path, weights_only=True)
        del saved["published"]  # one from before this was noted
        torch.save(saved, path)
    assert main([*map(str, evaluate), *other]) == 0


def test_a_run_is_used_where_its_encoders_lie_elsewhere(world, tmp_path, capsys, monkeypatch):
    run, talk = tmp_path / "run", ["--reference", "x.png", "--audio", "x.wav", "--out", tmp_path / "x.mp4"]
    shutil.copytree(world / "run", run)
    text = (run / "recipe.json").read_text()
    (run / "recipe.json").write_text(text.replace(str(world), "elsewhere"))
    given = ["generate", "--run", run, *talk, "--device", "cpu"]
    said = refused(capsys, *given)
    assert all(f"{part}.path: no directory 'elsewhere/" in said for part in ("codec", "audio", "image"))
    assert "x.png: no such picture" in refused(capsys, *given, *at(world))
    evaluate = ["evaluate", "--run", run, "--shards", world / "shards"]
    for command in (given, evaluate):
        line = refused(capsys, *command, "--set", "unet.heads=1")
        assert "--set unet.heads: decided when it was trained; expected one of codec.path, audio.path" in line
