"""What is damaged or does not fit: one line that says which file and what of it."""

import shutil
import sys
from functools import partial

import pytest
import torch
from botocore.exceptions import EndpointConnectionError

from mcdm import checkpoint
from mcdm.cli import main
from mcdm.config import RECIPES
from mcdm.course import Options
from mcdm.import_weights import read_weights
from tests.mcdm.nano import nano
from tests.mcdm.shards import write_shards


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Shards, and a run whose first two stages are finished."""
    folder = tmp_path_factory.mktemp("world")
    write_shards(folder, people=3, clips=1, n_frames=40)
    with pytest.MonkeyPatch.context() as patched:
        patched.setitem(RECIPES, "tiny", nano)
        assert main(words("train", folder / "shards", folder / "run", "--stages", "0-1")) == 0
    return folder


@pytest.fixture(autouse=True)
def small(monkeypatch):
    monkeypatch.setitem(RECIPES, "tiny", nano)


def words(command, shards, run, *more):
    given = ["--shards", shards, "--out", run, "--device", "cpu", "--workers", "0", "--held-out", "2"]
    given += ["--samples-every", "0"]
    return [str(word) for word in (command, *given, *more)]


def refused(capsys, *arguments):
    """The one line that a command ends with."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    return capsys.readouterr().err.splitlines()[-1]


@pytest.fixture
def run(world, tmp_path):
    return shutil.copytree(world / "run", tmp_path / "run")


def changed(run, stage, change):
    """Damage a stage's newest checkpoint; returns its path."""
    path = checkpoint.newest(run, stage)
    saved = torch.load(path, weights_only=True)
    change(saved)
    torch.save(saved, path)
    return path


def without(*names):
    def change(saved):
        for name in names:
            for part in ("model", "ema"):
                saved[part].pop(name, None)

    return change


@pytest.mark.parametrize(
    ("stage", "before", "weight"), [(2, 0, "head.answer.weight"), (3, 1, "unet.conv_in.weight"), (3, 0, "mean")]
)
def test_a_weight_that_a_stage_before_lacks_is_named_with_its_file(world, run, capsys, stage, before, weight):
    if stage == 3:
        assert main(words("train", world / "shards", run, "--stages", "2")) == 0
    path = changed(run, before, without(weight))
    said = refused(capsys, *words("train", world / "shards", run, "--stages", stage))
    assert said == f"mcdm train: {path} lacks the weight {weight}"


def test_a_weight_of_another_shape_is_named_with_its_file(world, run, capsys):
    path = changed(run, 0, lambda saved: saved["ema"].update({"head.answer.bias": torch.zeros(3)}))
    said = refused(capsys, *words("train", world / "shards", run, "--stages", "2"))
    assert said.startswith(f"mcdm train: {path} has a weight head.answer.bias that does not fit")


@pytest.mark.parametrize("key", ["ema", "optimizer", "model", "step"])
def test_a_part_that_a_checkpoint_lacks_is_named_with_its_file(run, key):
    path = changed(run, 0, lambda saved: saved.pop(key))
    with pytest.raises(ValueError, match="it has no " + key) as caught:
        checkpoint.learned(run, 0, nano())
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("first", "then"), [("true", "false"), ("false", "true")])
def test_a_stage_goes_on_only_with_the_weights_that_learned_before(world, run, capsys, first, then):
    shutil.rmtree(run / "stage1")
    given = words("train", world / "shards", run, "--stages", "1", "--stop-after", "2")
    assert main([*given, "--set", f"unet.train_spatial={first}"]) == 0
    said = refused(capsys, *given, "--set", f"unet.train_spatial={then}")
    where = "there, not here" if first == "true" else "here, not there"
    assert "step-00000002.pt: unet.conv_in.bias learns " + where in said
    assert main([*given, "--set", f"unet.train_spatial={first}"]) == 0


def test_a_weight_that_the_own_checkpoint_lacks_is_named_when_a_stage_goes_on(world, run, capsys):
    shutil.rmtree(run / "stage1")
    given = words("train", world / "shards", run, "--stages", "1", "--stop-after", "2")
    assert main(given) == 0
    path = changed(run, 1, without("unet.conv_in.bias"))
    assert refused(capsys, *given) == f"mcdm train: {path} lacks the weight unet.conv_in.bias"


def test_a_stage_that_stands_on_what_was_trained_on_since_is_named_by_all_that_use_it(world, run, tmp_path, capsys):
    given = words("train", world / "shards", run)
    generate = ["generate", "--run", run, "--reference", "x.png", "--audio", "x.wav", "--out", tmp_path / "x.mp4"]
    assert main(given) == 0
    shutil.copytree(run / "stage0", tmp_path / "before")
    further = [*given, "--set", "plans.0.steps=6"]
    said = "stage 2 was trained on stage 0 at step 4, which is now at step 6: "
    assert refused(capsys, *further) == f"mcdm train: {said}remove {run / 'stage2'} to train it anew"
    assert said in refused(capsys, *generate)
    shutil.rmtree(run / "stage2")
    assert f"stage 3 was trained on stage 0 at step 4, which is now at step 6: remove {run / 'stage3'}" in refused(
        capsys, *further
    )
    changed(run, 3, lambda saved: saved.pop("ground"))  # one from before this was noted
    assert main(further) == 0 and "x.png: no such picture" in refused(capsys, *generate)
    shutil.rmtree(run / "stage0")
    shutil.copytree(tmp_path / "before", run / "stage0")
    assert "stage 2 was trained on stage 0 at step 6, which is now at step 4" in refused(capsys, *generate)


def test_a_stage_trained_anew_to_the_same_step_is_another_one(world, run, capsys):
    given = words("train", world / "shards", run)
    assert main(given) == 0
    shutil.rmtree(run / "stage1")
    assert main([*given, "--stages", "1", "--seed", "3"]) == 0
    assert "stage 3 was trained on stage 1 at step 4, which is another one now: remove " in refused(capsys, *given)
    shutil.rmtree(run / "stage1")
    assert main(given) == 0, "the same weights are the same ground"


def test_a_first_run_that_was_refused_does_not_bind_its_folder(world, tmp_path, capsys):
    run, other = tmp_path / "run", ["--set", "motion.token_width=4"]
    assert "no shards" in refused(capsys, *words("train", tmp_path / "nowhere", run))
    given = words("train", world / "shards", run, "--stages", "1", "--stop-after", "1")
    assert main([*given, *other]) == 0
    assert "is a run of recipe nano" in refused(capsys, *given)


@pytest.mark.parametrize("name", ["sd_weights", "motion_weights"])
def test_weights_to_start_from_that_are_not_there_are_missed_before_anything_trains(world, tmp_path, capsys, name):
    given = words("train", world / "shards", tmp_path / "run", "--set", f"{name}={tmp_path / 'typo.pt'}")
    assert refused(capsys, *given) == f"mcdm train: {tmp_path / 'typo.pt'}: no such weights"
    assert not (tmp_path / "run").exists()
    assert main([*given, "--stages", "0"]) == 0, "stage 0 wants none"


@pytest.mark.parametrize("option", ["--shards", "--cache"])
@pytest.mark.parametrize(("url", "said"), [("gs://b/x", "gcsfs"), ("foo://b/x", "Protocol not known: foo")])
def test_a_url_that_cannot_be_reached_is_named_with_the_package_that_is_missing(
    world, tmp_path, capsys, monkeypatch, option, url, said
):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    line = refused(capsys, *words("train", world / "shards", tmp_path / "run"), option, url)
    assert line.startswith(f"mcdm train: {url}") and said in line


@pytest.mark.parametrize("name", ["w.safetensors", "w.pt"])
@pytest.mark.parametrize("content", [b"hello world hello", b""])
def test_weights_to_start_from_that_are_damaged_are_named(world, run, capsys, name, content):
    shutil.rmtree(run / "stage1")
    (run / name).write_bytes(content)
    given = ["--stages", "1", "--set", f"sd_weights={run / name}"]
    line = refused(capsys, *words("train", world / "shards", run, *given))
    assert line.startswith(f"mcdm train: {run / name} cannot be read: ")


@pytest.mark.parametrize("content", [[torch.zeros(1)], {"a": 3}])
def test_a_torch_file_without_weights_is_named(tmp_path, content):
    torch.save(content, tmp_path / "w.pt")
    with pytest.raises(ValueError, match=r"w\.pt holds no weights"):
        read_weights(str(tmp_path / "w.pt"))


def test_a_run_that_is_stopped_early_ends_there_and_the_next_one_goes_on(world, tmp_path, capsys):
    given = words("train", world / "shards", tmp_path / "run", "--stages", "0-3", "--stop-after", "3")
    last = []
    for _ in range(3):
        assert main(given) == 0
        last.append(
            [checkpoint.step_of(path) for path in map(partial(checkpoint.newest, tmp_path / "run"), (0, 1)) if path]
        )
    assert last == [[3], [4, 3], [4, 4]]
    assert "stage 0 stops after 3 steps; the next run goes on from there" in capsys.readouterr().err


@pytest.mark.parametrize(("there", "device", "wanted"), [(2, "auto", True), (0, "auto", False), (2, "cpu", False)])
def test_on_ray_the_gpus_of_the_cluster_count_not_those_of_this_machine(monkeypatch, tmp_path, there, device, wanted):
    asked = []
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("ray.is_initialized", lambda: True)
    monkeypatch.setattr("ray.cluster_resources", lambda: {"CPU": 4.0, "GPU": float(there)})
    monkeypatch.setattr("mcdm.ray_train.train_on_ray", lambda *_, workers, gpu: asked.append((workers, gpu)))
    assert main(["train", "--shards", "x", "--out", str(tmp_path), "--device", device, "--ray"]) == 0
    assert asked == [(1, wanted)]


def test_a_ray_address_where_nobody_answers_is_named(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    line = refused(capsys, "train", "--shards", "x", "--out", tmp_path, "--ray")
    assert line.startswith("mcdm train: no Ray answers at 127.0.0.1:1")


@pytest.mark.parametrize(
    ("cause", "passed_on"),
    [
        (PermissionError(13, "Permission denied"), True),
        (EndpointConnectionError(endpoint_url="http://there"), True),
        (KeyError("wings"), False),
    ],
)
def test_of_a_worker_s_errors_on_ray_those_that_the_user_can_mend_are_passed_on(
    monkeypatch, tmp_path, cause, passed_on
):
    ray_train = pytest.importorskip("mcdm.ray_train")

    def fit(_):
        raise ray_train.WorkerGroupError("a worker failed", {0: cause})

    monkeypatch.setattr(ray_train.ray, "cluster_resources", lambda: {"CPU": 2.0})
    monkeypatch.setattr(ray_train.TorchTrainer, "fit", fit)
    options = Options(shards=str(tmp_path), run=tmp_path / "run")
    with pytest.raises(ValueError if passed_on else ray_train.WorkerGroupError) as caught:
        ray_train.train_on_ray(nano(), options, workers=1, gpu=False)
    assert not passed_on or str(caught.value) == str(cause)
