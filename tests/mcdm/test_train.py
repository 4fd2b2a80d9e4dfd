"""The loop: exact resume, stages in order, faults in one line, one process equals two."""

import json
import re
import shutil
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook

from mcdm import checkpoint, course, distributed
from mcdm.course import Options, make_objective, train
from mcdm.data import collate
from mcdm.distributed import World
from mcdm.ema import Ema
from mcdm.objectives import LearnArchive, LearnMotion
from mcdm.precision import bf16_is_native
from mcdm.shards import Shards
from mcdm.train import Loop, LoopOptions, NotFiniteError, rate_at, step_flops
from tests.mcdm.nano import nano, nano_of, random_batch
from tests.mcdm.processes import run_processes
from tests.mcdm.shards import write_shards

CPU = World(0, 1, torch.device("cpu"))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    return str(write_shards(tmp_path_factory.mktemp("world"), people=3, clips=1, n_frames=40))


def options(shards, run, **given):
    """Without samples of stage 3, which take longer than all else, and little that is measured on."""
    usual = {"workers": 0, "save_every": 2, "log_every": 1, "device": "cpu", "held_out": 2, "samples_every": 0}
    return Options(shards=shards, run=run, **{**usual, **given})


def flat(value, path=""):
    if isinstance(value, dict):
        return [pair for key in sorted(value, key=str) for pair in flat(value[key], f"{path}/{key}")]
    if isinstance(value, (list, tuple)):
        return [pair for i, item in enumerate(value) for pair in flat(item, f"{path}/{i}")]
    return [(path, value)]


@pytest.fixture(scope="module")
def whole(shards, tmp_path_factory):
    """A run of all stages without a break."""
    run = tmp_path_factory.mktemp("whole")
    train(nano(), options(shards, run))
    return run


def test_four_steps_equal_two_and_a_resume_and_two_bit_by_bit(shards, whole, tmp_path, caplog):
    caplog.set_level("INFO", "mcdm")
    recipe = nano()
    for stage in range(4):
        train(recipe, options(shards, tmp_path / "halves", stages=(stage,), stop_after=2))
        train(recipe, options(shards, tmp_path / "halves", stages=(stage,)))
    for stage in range(4):
        one, two = (
            dict(flat(torch.load(checkpoint.newest(run, stage), weights_only=True)))
            for run in (whole, tmp_path / "halves")
        )
        assert one.keys() == two.keys()
        for name, value in one.items():
            same = torch.equal(value, two[name]) if isinstance(value, torch.Tensor) else value == two[name]
            assert same, (stage, name)
        assert one["/step"] == 4
    records = [json.loads(line) for line in (whole / "log.jsonl").read_text().splitlines()]
    steps = [r for r in records if "loss" in r and r["stage"] == 1]
    assert [r["step"] for r in steps] == [1, 2, 3, 4]
    assert {"loss_by_timestep", "gradient_norms", "samples_per_s", "data_wait_share", "memory_gb"} <= steps[0].keys()
    assert "archive" in steps[0]["gradient_norms"]
    assert "stage 1 step 4/4" in caplog.text and "loss_by_timestep  " in caplog.text, "on the console too"
    assert re.search(r"gradient_norms  .*archive \d", caplog.text)


@pytest.mark.parametrize(
    "reading",
    [{"memory_attention": "favor"}, {"memory_attention": "linear"}, {"strict": True}],
    ids=["favor", "linear", "strict"],
)
def test_all_stages_train_with_every_reading_of_the_memory(shards, tmp_path, reading):
    recipe = nano(**reading, memory_zero_init=False)
    train(recipe, options(shards, tmp_path))
    before, after = (torch.load(checkpoint.newest(tmp_path, stage), weights_only=True)["model"] for stage in (1, 3))
    for part in ("to_q", "to_k", "to_v", "to_out"):
        names = [name for name in after if name.endswith(f"memory.{part}.weight")]
        assert names and all(torch.isfinite(after[name]).all() for name in names)
        assert all(not torch.equal(after[name], before[name]) for name in names), part


@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants a C++ compiler")
@pytest.mark.slow
def test_compiled_training_learns_what_eager_training_learns(shards, tmp_path):
    """Stage 1 alone: all four were not through after four and a half minutes."""
    train(nano(), options(shards, tmp_path / "eager", stages=(1,)))
    train(nano(), options(shards, tmp_path / "compiled", stages=(1,), compiled=True))
    eager, compiled = (checkpoint.learned(tmp_path / name, 1, nano()) for name in ("eager", "compiled"))
    assert eager.keys() == compiled.keys()
    for name, value in eager.items():
        assert torch.allclose(value.float(), compiled[name].float(), atol=2e-4), name


def test_without_a_compiler_compile_is_refused_in_one_line(shards, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ValueError, match=r"--compile needs a C\+\+ compiler"):
        train(nano(), options(shards, tmp_path, stages=(0,), compiled=True))


def test_a_stage_names_what_its_predecessor_left_missing(shards, tmp_path):
    with pytest.raises(ValueError, match=r"stage 2 needs stage 0, which has no checkpoint in .*stage0"):
        train(nano(), options(shards, tmp_path, stages=(2,)))
    train(nano(), options(shards, tmp_path, stages=(0,), stop_after=2))
    with pytest.raises(ValueError, match="stage 3 needs stage 0, which ends at step 2 of 4"):
        train(nano(), options(shards, tmp_path, stages=(3,)))


def test_a_run_of_another_recipe_is_refused_by_name(shards, tmp_path):
    recipe = nano()
    train(recipe, options(shards, tmp_path, stages=(1,), stop_after=1))
    other = replace(recipe, name="other", motion=replace(recipe.motion, token_width=4))
    with pytest.raises(ValueError, match=r"is a run of recipe nano .*, not other"):
        train(other, options(shards, tmp_path, stages=(1,)))
    with pytest.raises(ValueError, match=r"step-00000001\.pt is of recipe nano .*, not other"):
        checkpoint.read(checkpoint.newest(tmp_path, 1), other, 1)
    assert checkpoint.read_recipe(tmp_path) == recipe


def test_a_stage_goes_on_with_its_own_seed_only_and_with_any_where_none_was_saved(shards, tmp_path):
    train(nano(), options(shards, tmp_path, stages=(0,), stop_after=1))
    with pytest.raises(ValueError, match=r"step-00000001\.pt was trained with --seed 0: .* with --seed 3") as caught:
        train(nano(), options(shards, tmp_path, stages=(0,), seed=3))
    assert "\n" not in str(caught.value)
    path = checkpoint.newest(tmp_path, 0)
    saved = torch.load(path, weights_only=True)
    assert saved.pop("seed") == 0
    torch.save(saved, path)
    train(nano(), options(shards, tmp_path, stages=(0,), seed=3, stop_after=1))
    assert checkpoint.step_of(checkpoint.newest(tmp_path, 0)) == 2


def test_a_damaged_checkpoint_is_refused_and_a_broken_write_leaves_none(tmp_path, monkeypatch):
    recipe, objective = nano(), LearnMotion(nano())
    saved = checkpoint.contents(
        recipe, 0, 3, objective.model, Ema(objective.model, 0.9), torch.optim.AdamW(objective.model.parameters())
    )
    path = checkpoint.write(tmp_path, saved)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"step-00000003\.pt cannot be read"):
        checkpoint.read(path, recipe, 0)

    path.write_bytes(b"hello world, not a checkpoint")
    with pytest.raises(ValueError, match=r"step-00000003\.pt cannot be read"):
        checkpoint.read(path, recipe, 0)
    torch.save(["not", "ours"], path)
    with pytest.raises(ValueError, match=r"step-00000003\.pt is no checkpoint of"):
        checkpoint.read(path, recipe, 0)

    def full(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(OSError, match="no space"):
        checkpoint.write(tmp_path, {**saved, "step": 4})
    assert list((tmp_path / "stage0").iterdir()) == [path]


class Poisoned(LearnArchive):
    """Stage 1, but one clip's latents are not numbers from its third step on."""

    steps = 0

    def encoded(self, batch):
        batch = super().encoded(batch)
        if self.training:
            self.steps += 1
            if self.steps > 2:
                batch["present"][1] = float("nan")
        return batch


def test_a_nan_is_one_line_with_the_clip_and_the_last_checkpoint_stays_good(shards, tmp_path):
    recipe = nano()
    with pytest.raises(NotFiniteError) as caught:
        found = Shards(shards)
        data = course.Data(found, course.divide(found, tmp_path), None)
        course.fit(Poisoned(recipe), data, options(shards, tmp_path), CPU)
    message = str(caught.value)
    assert "\n" not in message and "stage 1 step 3" in message and "video" in message
    assert message.endswith("the next run draws the same clips: give it --set plans.1.rate below 0.001")
    good = checkpoint.newest(tmp_path, 1)
    assert str(good) in message and checkpoint.step_of(good) == 2
    assert all(v.isfinite().all() for v in torch.load(good, weights_only=True)["model"].values())


@pytest.mark.parametrize("stage", [0, 1, 2, 3])
def test_each_stage_overfits_one_batch(whole, tmp_path, stage):
    recipe, run = nano(), whole if stage >= 2 else tmp_path
    torch.manual_seed(0)
    objective = make_objective(stage, recipe, run) if stage != 3 else _stage_3(recipe, run)
    batch = random_batch(recipe)
    learning = [p for p in objective.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=1e-2, weight_decay=0.0)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = objective.loss(batch).total
        loss.backward()
        optimizer.step()
        losses.append(float(loss))
    # stage 3 may only steer a frozen denoiser, so it cannot come near to zero
    assert losses[-1] < (0.9 if stage == 3 else 0.6) * losses[0], losses[::20]


def _stage_3(recipe, run):
    from mcdm.motion import Motion
    from mcdm.objectives import LearnPresent

    motion = Motion(recipe.motion)
    motion.load_state_dict(checkpoint.learned(run, 0, recipe))
    return LearnPresent(recipe, motion, checkpoint.learned(run, 1, recipe))


GRADIENTS = """
import sys, torch, torch.distributed as dist
from pathlib import Path
torch.set_num_threads(1)
from mcdm.course import make_objective
from mcdm.distributed import start, wrap
from tests.mcdm.nano import nano, random_batch
world = start("cpu")
recipe = nano()
objective = make_objective(1, recipe, Path("of-no-run"))
wrapped = wrap(objective, world, sharded=False)
rows = random_batch(recipe, 4)
share = 4 // world.size
mine = {k: v[world.rank * share : (world.rank + 1) * share] for k, v in rows.items()}
seeds = tuple(mine.pop("seed").tolist())
wrapped(mine, seeds).total.backward()
if world.rank == 0:
    torch.save({n: p.grad for n, p in objective.named_parameters() if p.grad is not None}, sys.argv[1])
"""


def test_two_processes_give_the_gradients_of_one(tmp_path):
    (tmp_path / "gradients.py").write_text(GRADIENTS)
    run_processes(tmp_path / "gradients.py", tmp_path / "two.pt", size=2)
    two, objective = torch.load(tmp_path / "two.pt", weights_only=True), make_objective(1, nano(), tmp_path)
    objective.loss(random_batch(nano(), 4)).total.backward()
    one = {name: p.grad for name, p in objective.named_parameters() if p.grad is not None}
    assert one.keys() == two.keys() and len(one) > 50
    storages = {gradient.untyped_storage().data_ptr() for gradient in two.values()}
    assert len(storages) < 5, "gradients lie where they are exchanged, and nowhere else"
    for name, gradient in one.items():
        assert torch.allclose(gradient, two[name], atol=1e-6, rtol=1e-3), name


@pytest.mark.parametrize("stage", [0, 1])
def test_accumulated_micro_batches_take_the_same_steps(shards, tmp_path, stage):
    recipe = nano()
    for name, micro in (("whole", 0), ("parts", 1)):
        train(recipe, options(shards, tmp_path / name, stages=(stage,), micro_batch=micro, stop_after=2))
    one, two = (checkpoint.learned(tmp_path / name, stage, recipe) for name in ("whole", "parts"))
    assert all(torch.allclose(one[name], two[name], atol=1e-3) for name in one)
    for name in {"mean", "spread"} & one.keys():
        assert torch.allclose(one[name], two[name], atol=1e-5), name


def test_what_is_held_out_is_measured_by_parts_no_larger_than_in_training(shards, tmp_path):
    recipe, found = nano(), []
    for name, micro in (("whole", 2), ("parts", 1)):
        run = tmp_path / name
        train(recipe, options(shards, run, stages=(1,), micro_batch=micro, held_out=5, stop_after=1, validate_every=1))
        records = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
        found.append([r["held_out_loss"] for r in records if "held_out_loss" in r])
    assert found[0] == pytest.approx(found[1], rel=1e-3) and len(found[0]) == 1


@pytest.mark.parametrize(("held_out", "rows"), [(4, [[2], [2]]), (5, [[2, 1], [2, 2]]), (1, [[1], [1]])])
def test_processes_share_what_is_held_out_and_together_measure_what_one_does(shards, tmp_path, held_out, rows):
    """`rows`: of each turn, by process. All take as many turns: FSDP gathers weights in each."""
    found = Shards(shards)
    data = course.Data(found, course.divide(found, tmp_path), None)
    windows = data.windows(LearnArchive(nano()), data.division.held_out, 0)
    fixed = collate([windows[number] for number in range(held_out)])
    loop = Loop(make_objective(1, nano(), tmp_path), windows, fixed, LoopOptions(run=tmp_path, micro_batch=2), CPU)
    alone, parts, turns = loop.validate(), [], []
    loss = loop.objective.loss
    for rank in range(2):
        seen = []
        loop.objective.loss = lambda batch, seen=seen: seen.append(len(batch["seed"])) or loss(batch)
        loop.world = World(rank, 2, torch.device("cpu"))
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(distributed, "total", lambda value, world: value)
            parts.append(loop.validate())
        turns.append(seen)
    assert sum(parts) == pytest.approx(alone, rel=1e-4) and turns == rows


def test_the_rate_warms_up_and_ends_where_the_plan_says():
    plan = replace(nano().plans[0], steps=100, rate=1.0, warmup=10, final_rate=0.1)
    assert rate_at(plan, 0) == pytest.approx(0.1)
    assert rate_at(plan, 10) == pytest.approx(1.0)
    assert rate_at(plan, 100) == pytest.approx(0.1)


def test_flops_are_counted_without_recomputation():
    from mcdm.data import Drawn

    counts = []
    for again in (False, True):
        recipe = nano(checkpointing=again)
        counts.append(step_flops(LearnArchive(recipe), Drawn(random_batch(recipe), ["a", "b"]), 2))
    assert counts[0] == counts[1] > 1e6


def test_averaged_weights_follow_and_are_what_a_later_stage_gets(whole):
    saved = checkpoint.read(checkpoint.newest(whole, 0), nano(), 0)
    got = checkpoint.learned(whole, 0, nano())
    name = "decoder.body.1.weight"
    assert torch.equal(got[name], saved["ema"][name]) and not torch.equal(got[name], saved["model"][name])
    assert torch.equal(got["mean"], saved["model"]["mean"])


def test_all_stages_learn_on_bf16_and_keep_fp32_masters(shards, tmp_path):
    recipe, computed = nano_of(1), set()

    def record(module, given, answer):
        if isinstance(module, nn.Linear) and torch.is_grad_enabled():
            computed.add(answer.dtype)

    for stage in range(4):
        computed.clear()
        hook = register_module_forward_hook(record)
        try:
            train(recipe, options(shards, tmp_path, stages=(stage,), precision="bf16"))
        finally:
            hook.remove()
        assert torch.bfloat16 in computed, stage
        saved = checkpoint.read(checkpoint.newest(tmp_path, stage), recipe, stage)
        kinds = {v.dtype for _, v in flat(saved["model"]) + flat(saved["optimizer"]) if isinstance(v, torch.Tensor)}
        assert kinds == {torch.float32}, stage
        averaged = {name: value for name, value in saved["ema"].items() if name != "updates"}
        assert any(not torch.equal(saved["model"][name], value) for name, value in averaged.items()), "weights moved"


def test_settings_of_the_optimizer_may_change_from_one_run_to_the_next(shards, tmp_path):
    recipe = nano()
    train(recipe, options(shards, tmp_path, stages=(0,), stop_after=2))
    other = replace(recipe, optimizer=replace(recipe.optimizer, weight_decay=0.37, betas=(0.5, 0.9)))
    train(other, options(shards, tmp_path, stages=(0,)))
    saved = checkpoint.read(checkpoint.newest(tmp_path, 0), other, 0)
    groups = saved["optimizer"]["param_groups"]
    assert saved["step"] == 4 and {group["weight_decay"] for group in groups} == {0.37}
    assert {tuple(group["betas"]) for group in groups} == {(0.5, 0.9)}


def test_a_stage_does_not_go_on_with_its_memory_left_out_where_it_was_not(shards, tmp_path):
    train(nano(), options(shards, tmp_path, stages=(1,), stop_after=1))
    path = checkpoint.newest(tmp_path, 1)
    saved = torch.load(path, weights_only=True)
    assert saved["idle"] is True
    torch.save(saved | {"idle": False}, path)
    with pytest.raises(ValueError, match=r"step-00000001\.pt was trained with memory from motion_weights"):
        train(nano(), options(shards, tmp_path, stages=(1,)))


def test_a_process_that_does_not_see_the_run_s_folder_is_named_in_all(tmp_path, monkeypatch):
    def gathered(names, world):
        return [*names, "1 on another"]

    checkpoint.write_recipe(tmp_path, nano())
    world = World(0, 2, torch.device("cpu"))
    monkeypatch.setattr(course.distributed, "gather_names", lambda names, world: names)
    course.check_shared(tmp_path, world)
    with pytest.raises(ValueError, match="is not seen by process 0 on "):
        course.check_shared(tmp_path / "nowhere", world)
    monkeypatch.setattr(course.distributed, "gather_names", gathered)
    with pytest.raises(ValueError, match="is not seen by process 1 on another: it must lie on a disk"):
        course.check_shared(tmp_path, world)


def test_half_precision_is_chosen_only_where_it_is_native(monkeypatch):
    assert not bf16_is_native(torch.device("cpu"))
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: including_emulation)
    assert not bf16_is_native(torch.device("cuda")), "a V100 emulates it"


def test_more_processes_than_gpus_is_one_line(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="process 3 of this machine has no GPU: there are 2"):
        distributed.start("cuda")
