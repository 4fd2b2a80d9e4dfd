"""What the command line does: one function per command, each returns an exit code."""

from argparse import Namespace
from pathlib import Path

from rich.console import Console
from rich.table import Table

from manifests.store import Store, client_errors
from pipeline.cli import DEFAULT_STORE, store_option
from pipeline.ending import print_end, print_paths
from pipeline.finish import Snapshot, finish, snapshot
from pipeline.job import Job, job_at, read_videos, write_job
from pipeline.report import changes_by_language
from pipeline.run import run as run
from pipeline.show import show as show
from pipeline.stage import PostponedError
from pipeline.step import StageBrokenError
from pipeline.waiting import Waiting
from stages import weights
from stages.judge import NOT_CUT, NOT_HEARD
from stages.outcomes import NetworkError

_REQUEST_ERRORS = (ValueError, FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)

RUN_ERRORS = (NetworkError, PostponedError, StageBrokenError)
"""What is nobody's request and no fault of a video: told in one line, after the stage's own traceback if it has one."""

_SHEET_CLIPS = 400
"""The most that a contact sheet shows: a picture of some 1,500 by 14,000 px."""


def request_errors() -> tuple[type[Exception], ...]:
    """What is the user's to mend: told in one line, exit code 2. All else is a fault of ours, with its traceback."""
    return *_REQUEST_ERRORS, *client_errors()


def judge(options: Namespace, console: Console) -> int:
    """New thresholds on old measurements; verdicts, shards, catalogue and report follow. Raises `ValueError`, as do
    `shard` and `report`, where clips would leave the shards because their videos wait."""
    store, job = job_at(options.store)
    foreign = [one for one in options.sets if not one.startswith("policy.")]
    if foreign:
        raise ValueError(f"--set {foreign[0]}: judge changes policy.NAME=VALUE only; run changes stages")
    changed = job.changed(options.policy, options.sets)
    recipe = job.build()
    seen = snapshot(recipe, read_videos(store), store)
    if waiting := Waiting.of(store, seen.known):
        if not options.dry:
            raise waiting.refuse()
        console.print(waiting.line, style="yellow", soft_wrap=True)
    before = {verdict.key for verdict in seen.verdicts(recipe.policy) if verdict.kept}
    verdicts = seen.verdicts(changed.build().policy)
    after = {verdict.key for verdict in verdicts if verdict.kept}
    console.print(f"kept {len(before)} clips before, {len(after)} now: +{len(after - before)} -{len(before - after)}")
    for line in changes_by_language(seen.known, before, after):
        console.print(line)
    spared = sum(one.receipts[0].rule in (NOT_CUT, NOT_HEARD) for one in verdicts if not one.kept)
    if spared:
        said = f"{spared} more were spared by the run's policy: a run with this one measures all clips anew"
        console.print(said, soft_wrap=True)
    if options.dry:
        return 0
    write_job(store, changed)
    return _finish(store, changed, console, seen)


def shard(options: Namespace, console: Console) -> int:
    """The shards anew from what is known, of another size if wanted."""
    store, job = job_at(options.store)
    changed = job if options.bytes is None else job.changed(None, [f"shard_bytes={options.bytes}"])
    seen = _complete(store, changed)
    write_job(store, changed)
    return _finish(store, changed, console, seen)


def report(options: Namespace, console: Console) -> int:
    """Tables on the terminal, report.html, and a contact sheet if wanted."""
    store, job = job_at(options.store)
    seen = _complete(store, job)
    if options.sheet is not None:
        from pipeline.pictures import contact_sheet

        kept = {verdict.key for verdict in seen.verdicts(job.build().policy) if verdict.kept}
        clips = [clip for one in seen.known if one.clips for clip in one.clips.items if clip.key in kept]
        shown = clips[:: -(-len(clips) // _SHEET_CLIPS) or 1]
        Path(options.sheet).write_bytes(contact_sheet(store, shown))
        console.print(f"{options.sheet} shows {len(shown)} of {len(clips)} kept clips", soft_wrap=True)
    return _finish(store, job, console, seen)


def verify(options: Namespace, console: Console) -> int:
    """Read every member back; exit code 1 if anything is wrong."""
    from stages.verify import verify as read_back

    if options.shards is not None and options.store != DEFAULT_STORE:
        raise ValueError(f"verify {options.shards}: these shards, or those of --store {options.store}, not both")
    place = (options.shards or f"{options.store}/shards").rstrip("/")
    parent, slash, folder = place.rpartition("/")
    found = read_back(Store(parent or slash or "."), folder)
    for problem in found.problems:
        console.print(f"{problem.shard} {problem.key}: {problem.what}", style="red", soft_wrap=True)
    splits = ", ".join(f"{name} {n}" for name, n in sorted(found.by_split.items()))
    console.print(
        f"{found.samples} clips in {found.shards} shards, {found.bytes / 1e6:.1f} MB, {found.frames} frames"
        f"{splits and f' ({splits})'}: {len(found.problems)} problems"
    )
    if options.shards is None and any(problem.shard.endswith(".tar") for problem in found.problems):
        again = f"python -m pipeline shard{store_option(options.store)}"
        console.print(f"shards that are damaged: delete them, and `{again}` writes them anew", soft_wrap=True)
    return 0 if found.ok else 1


def score(options: Namespace, console: Console) -> int:
    """Results against the truth of the sample corpus, or of the corpus given."""
    from pipeline.scoring import print_score, score_store

    store, job = job_at(options.store)
    print_score(console, score_store(store, job.build(), options.truth))
    return 0


def calibrate(options: Namespace, console: Console) -> int:
    """What the limit on sync confidence costs each language, and which limits would be fair to all."""
    from pipeline.calibration import print_trusts
    from stages.calibrate import calibrate as trusts_of

    store, job = job_at(options.store)
    recipe = job.build()
    known = snapshot(recipe, read_videos(store), store).known
    if waiting := Waiting.of(store, known):
        console.print(waiting.line, style="yellow", soft_wrap=True)
    try:
        trusts = trusts_of(known, recipe.policy, wrong=options.wrong)
    except ValueError as error:
        raise ValueError(f"calibrate: {error}") from None
    print_trusts(console, trusts, wrong=options.wrong, judge=f"python -m pipeline judge{store_option(options.store)}")
    return 0


def forget(options: Namespace, console: Console) -> int:
    """Take videos out of the store for good."""
    from pipeline.forget import forget_all

    store, job = job_at(options.store)
    gone = forget_all(store, job.build(), read_videos(store), options.what, alone=options.alone, dry=options.dry)
    for line in gone.lines():
        console.print(line, soft_wrap=True)
    if options.dry or not gone.videos:
        return 0
    try:
        seen = snapshot(job.build(), read_videos(store), store)
    except weights.WeightsMissingError as lack:  # all is removed; only what is left cannot be judged
        console.print(f"the tables are without them; the report is left to the next run: {lack}", soft_wrap=True)
        return 0
    if waiting := Waiting.of(store, seen.known):
        left = f"the other clips stay in the shards as they were, and the report is left to that run: {waiting.line}"
        console.print(left, style="yellow", soft_wrap=True)
        return 0
    return _finish(store, job, console, seen)


def prune(options: Namespace, console: Console) -> int:
    """Give back the room of what the store's recipe names no more."""
    from pipeline.prune import prune as give_back

    store, job = job_at(options.store)
    pruned = give_back(store, job, dry=options.dry)
    if pruned.keys:
        console.print(pruned.table())
    for line in pruned.lines():
        console.print(line, soft_wrap=True)
    return 0


def models(options: Namespace, console: Console) -> int:
    """Weights: which there are, have them, see whether they are whole."""
    if (options.url or options.sha256) and (options.action != "fetch" or len(options.names) != 1):
        raise ValueError("--url and --sha256 belong to models fetch of one name")
    if options.action == "list":
        known = {one.name: one for one in weights.listing()}
        if unknown := [name for name in options.names if name not in known]:
            raise ValueError(f"no weights named {unknown[0]!r}; there are {', '.join(known)}")
        table = Table("name", "state", "MB", "licence", "what", box=None)
        for name, one in known.items():
            if not options.names or name in options.names:
                table.add_row(one.name, one.state, f"{one.size_mb:.0f}", one.licence, one.about)
        console.print(table)
        return 0
    if options.action == "fetch" and not options.names:
        raise ValueError("models fetch needs a name; `python -m pipeline models list` shows them")
    names = options.names or [one.name for one in weights.listing() if one.state in ("packaged", "fetched")]
    for name in names:
        if options.action == "fetch":
            console.print(f"{name}: {weights.fetch(name, url=options.url, sha256=options.sha256)}", soft_wrap=True)
        else:
            console.print(weights.check(name), soft_wrap=True)
    return 0


def _complete(store: Store, job: Job) -> Snapshot:
    """What is known now. Raises `ValueError` where clips would leave the shards because their videos wait."""
    seen = snapshot(job.build(), read_videos(store), store)
    if waiting := Waiting.of(store, seen.known):
        raise waiting.refuse()
    return seen


def _finish(store: Store, job: Job, console: Console, seen: Snapshot) -> int:
    finished = finish(job.build(), job, seen, store)
    print_end(finished, console)
    print_paths(store, job, console)
    return 0
