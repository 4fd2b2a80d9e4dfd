"""What would fail late or in silence on many GPUs or on a small one, and is told at once."""

import contextlib
import dataclasses
import logging
import re
import shutil
from datetime import timedelta

import pytest
import torch
from torch import nn

from mcdm import checkpoint, course, distributed
from mcdm.cli import main
from mcdm.config import RECIPES, small, tiny
from mcdm.course import Data, Options, check_batches, divide, largest_world, make_objective, train
from mcdm.data import collate
from mcdm.distributed import World
from mcdm.objectives import LearnArchive, LearnMotion
from mcdm.shards import Shards
from mcdm.train import Loop, LoopOptions, check_compiler, compile_blocks
from tests.mcdm.nano import nano, random_batch
from tests.mcdm.shards import write_shards

CPU = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return str(write_shards(tmp_path_factory.mktemp("world"), people=3, clips=1, n_frames=20))


def loop_of(shards, run, stage=0):
    found = Shards(shards)
    objective = make_objective(stage, nano(), run)
    data = Data(found, divide(found, run), None)
    windows = data.windows(objective, data.division.train, 0)
    return Loop(objective, windows, collate([windows[n] for n in range(3)]), LoopOptions(run=run), CPU)


def test_every_recipe_trains_on_as_many_gpus_as_its_batches_divide_into():
    assert [largest_world(tiny(), there) for there in (0, 1, 3, 4, 8, 16)] == [1, 1, 2, 4, 4, 4]
    for recipe in (make() for make in RECIPES.values()):
        for there in range(1, 20):
            assert all(plan.batch % largest_world(recipe, there) == 0 for plan in recipe.plans)


def test_a_batch_that_does_not_divide_is_refused_before_any_stage(tmp_path):
    options = Options(shards="", run=tmp_path)
    with pytest.raises(ValueError, match=r"stage 1 of tiny takes 4 clips a step.*into 8 processes: start 4"):
        check_batches(tiny(), options, World(0, 8, torch.device("cpu")))
    with pytest.raises(ValueError, match="--micro-batch 3: does not divide the 2 clips"):
        check_batches(nano(), dataclasses.replace(options, micro_batch=3), CPU)


def test_a_micro_batch_that_does_not_divide_is_refused_before_anything_is_encoded(shards, tmp_path, monkeypatch):
    monkeypatch.setattr(course, "prepare", lambda *_: pytest.fail("encoded first"))
    with pytest.raises(ValueError, match="--micro-batch 3"):
        train(nano(), Options(shards=shards, run=tmp_path, micro_batch=3, device="cpu"))


@pytest.mark.parametrize(("batch", "way"), [(2, r"--micro-batch 1 \(now 2\)"), (1, "--fsdp")])
def test_too_little_memory_on_the_gpu_is_one_line_with_the_way_out(shards, tmp_path, monkeypatch, batch, way):
    def full(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB")

    monkeypatch.setattr(LearnMotion, "loss", full)
    monkeypatch.setattr("mcdm.train.step_flops", lambda *_: 0.0)
    recipe = dataclasses.replace(nano(), plans=(dataclasses.replace(nano().plans[0], batch=batch),) * 4)
    with pytest.raises(ValueError, match=f"stage 0: the memory of the GPU is too small: {way}"):
        train(recipe, Options(shards=shards, run=tmp_path, device="cpu", workers=0))


@pytest.mark.parametrize("stage", range(4))
def test_what_is_advised_where_memory_is_too_small_is_taken_by_all_stages_to_come(tmp_path, stage):
    options = Options(shards="", run=tmp_path)
    assert "--micro-batch 16 (now 64)" in course._too_large(small(), 0, options, CPU), "stages 1 and 3 take 16"
    while found := re.search(r"--micro-batch (\d+)", course._too_large(small(), stage, options, CPU)):
        options = dataclasses.replace(options, micro_batch=int(found[1]))
        check_batches(small(), options, CPU)
    assert options.micro_batch == 1
    alone = Options(shards="", run=tmp_path, stages=(0,))
    assert "--micro-batch 32 (now 64)" in course._too_large(small(), 0, alone, CPU)


def test_evaluate_says_how_to_need_less_memory(monkeypatch, capsys):
    def full(_):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("mcdm.evaluate.evaluate", full)
    assert main(["evaluate", "--shards", "nowhere"]) == 2
    said = capsys.readouterr().err
    assert said == "mcdm evaluate: the memory of the GPU is too small: --lanes 8 (now 16) needs less\n"


def test_what_is_held_out_is_measured_with_the_averages_and_both_are_left_as_they_were(shards, tmp_path):
    loop = loop_of(shards, tmp_path)
    live = [p.detach().clone() for p in loop.learning]
    first = loop.validate()
    for shadow in loop.ema.shadow.values():
        shadow.mul_(0.5)
    averages = {name: shadow.clone() for name, shadow in loop.ema.shadow.items()}
    assert loop.validate() != first
    assert all(torch.equal(a, b) for a, b in zip(live, loop.learning, strict=True))
    assert all(torch.equal(averages[name], shadow) for name, shadow in loop.ema.shadow.items())


def test_processes_wait_for_a_checkpoint_where_nothing_gives_up_after_minutes(shards, tmp_path, monkeypatch):
    longest = []

    @contextlib.contextmanager
    def together(world, limit=timedelta(days=7)):
        longest.append(limit)
        yield
        longest.append("all there")

    def write(*_):
        assert longest == [timedelta(days=7)]

    monkeypatch.setattr(distributed, "together", together)
    monkeypatch.setattr(checkpoint, "write", write)
    loop_of(shards, tmp_path)._save(1)
    assert longest[1:] == ["all there"]


def test_every_block_of_a_large_unet_is_compiled(monkeypatch):
    """Torch computes without, and says so in a log alone, after 8 graphs of one function, here after 2."""
    compiled, said = nn.Module.compile, []
    monkeypatch.setattr(nn.Module, "compile", lambda self: compiled(self, backend="eager"))
    monkeypatch.setattr(shutil, "which", lambda _: "c++")
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())
    logger = logging.getLogger("torch._dynamo")
    logger.addHandler(handler)
    recipe = nano(channels=(16, 32), attention=(False, False), layers=1)
    objective = LearnArchive(recipe)
    monkeypatch.setattr(torch._dynamo.config, "recompile_limit", 2)
    try:
        torch._dynamo.reset()
        compile_blocks(objective, torch.device("cpu"))
        objective.loss(random_batch(recipe))
    finally:
        logger.removeHandler(handler)
        torch._dynamo.reset()
    assert not [line for line in said if "recompile_limit" in line]


@pytest.mark.parametrize(
    ("device", "there", "variables", "lack"),
    [
        ("cpu", ("g++",), {}, None),
        ("cpu", ("c++", "clang++", "gcc"), {}, r"C\+\+ compiler \(g\+\+.*package is g\+\+$"),
        ("cpu", ("other",), {"CXX": "other"}, None),
        ("cpu", ("g++",), {"CXX": "gone"}, "CXX=gone is none"),
        ("cuda", ("gcc",), {}, None),
        ("cuda", ("clang",), {}, None),
        ("cuda", ("c++", "g++"), {"CXX": "g++"}, r"C compiler \(gcc or clang, .*package is gcc$"),
        ("cuda", ("gcc",), {"CC": "gone"}, "CC=gone is none"),
    ],
)
def test_a_compiler_is_the_one_that_the_device_s_kernels_are_built_with(
    device, there, variables, lack, tmp_path, monkeypatch
):
    for name in there:
        (tmp_path / name).touch(0o755)
    (tmp_path / "Python.h").touch()
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    with pytest.raises(ValueError, match=lack) if lack else contextlib.nullcontext():
        check_compiler(torch.device(device))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_python_without_headers_compiles_nothing_and_its_package_is_named(device, tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("sysconfig.get_path", lambda *_: str(tmp_path))
    with pytest.raises(ValueError, match=r"has no Python\.h\. Debian's package is python3\.\d+-dev$"):
        check_compiler(torch.device(device))
