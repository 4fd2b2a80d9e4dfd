"""The command line. Wrong arguments: one line that says what is allowed, exit code 2."""

import argparse
import errno
import logging
import shlex
import sys
from collections.abc import Callable, Sequence

from rich.console import Console

from pipeline.parser import Parser

DEFAULT_STORE = "out"

Command = Callable[[argparse.Namespace, Console], int]


def store_option(store: str) -> str:
    """How a command is told of this store: nothing for the one that it takes by itself."""
    return "" if store == DEFAULT_STORE else f" --store {shlex.quote(store)}"


def parser() -> argparse.ArgumentParser:
    """All commands and options; `tests/golden/cli.json` pins them."""
    top = Parser(prog="python -m pipeline", description="Wild video in, a talking-face training set out.")
    commands = top.add_subparsers(dest="command", required=True, metavar="command")

    def command(name: str, about: str) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = commands.add_parser(name, help=about, description=about)
        made.add_argument("--store", default=DEFAULT_STORE, help="folder or fsspec URL of the results (default: out)")
        return made

    _run_options(command("run", "take videos through every stage, to shards, catalogue and report"))
    judge = command("judge", "apply thresholds anew: no GPU, no decoding")
    judge.add_argument("--policy", help="paper, latentsync, strict or sample")
    judge.add_argument("--set", action="append", default=[], metavar="policy.NAME=VALUE", dest="sets")
    judge.add_argument("--dry", action="store_true", help="only say how many clips would come and go")
    shard = command("shard", "write the shards anew, of another size if wanted")
    shard.add_argument("--bytes", type=int, help="aim at shards of this size")
    report = command("report", "write report.html and print the tables")
    report.add_argument("--sheet", metavar="PNG", help="write a contact sheet of the kept clips as well")
    show = command("show", "everything known about one video: facts, verdicts, receipts, tracebacks")
    show.add_argument("id", help="id of a video or key of a clip, or the beginning of one")
    verify = command("verify", "read every member of every shard back")
    verify.add_argument("shards", nargs="?", help="any folder or URL of WebDataset tars, instead of --store's own")
    score = command("score", "compare the results with the truth, where the videos have one")
    score.add_argument("--truth", help="truth.json of another corpus (default: the sample's)")
    calibrate = command("calibrate", "what the limit on sync confidence costs each language, and which would be fair")
    calibrate.add_argument(
        "--wrong", type=float, default=0.02, help="share of clips not in sync that a limit may let pass (default: 0.02)"
    )
    forget = command("forget", "remove videos for good, and keep them out of later runs")
    forget.add_argument(
        "what",
        nargs="+",
        metavar="video:ID|channel:NAME|person:ID",
        help="what to remove; a video also by its address: video:https://...",
    )
    forget.add_argument(
        "--alone",
        action="store_true",
        help="video:ID without near-duplicates, and let rows in that overlap it: for a part whose times were wrong",
    )
    forget.add_argument("--dry", action="store_true", help="only say what would go")
    prune = command("prune", "remove what the store's recipe names no more: of older versions, settings and weights")
    prune.description = (
        "Remove outcomes and blobs that the store's recipe names no more, of older versions, settings and weights; only"
        " where the results are finished with that recipe. What stays: all that was ever measured of videos that are"
        " still due, and sources of videos that a later stage rejected, which another policy or version may want."
    )
    prune.add_argument("--dry", action="store_true", help="only say what would go, by key")
    models = commands.add_parser("models", help="weights: list, fetch, check")
    models.add_argument("action", choices=("list", "fetch", "check"))
    models.add_argument("names", nargs="*", default=[], help="registered names; none: all (list, check)")
    models.add_argument("--url", help="fetch from here instead")
    models.add_argument("--sha256", help="refuse what has another digest")
    return top


def _run_options(run: argparse.ArgumentParser) -> None:
    run.add_argument("recipe", nargs="?", help="sample (the default), wild, or own (the default with --manifest)")
    run.add_argument("--langs", help="a number, the first N languages in the manifests' order, or codes such as de,pl")
    run.add_argument("--hours", type=float, help="hours wanted per language (recipe wild)")
    run.add_argument(
        "--manifest",
        help="own material: a list (CSV, TSV, JSON, JSONL, Parquet) with url, path or youtube_id, or as AVSpeech,"
        " CelebV, TalkVid and MultiTalk are published; a folder of videos; a .txt of URLs or paths, one a line; a URL",
    )
    run.add_argument("--language", help="expected language of a manifest that states none (BCP-47)")
    run.add_argument("--policy", help="paper, latentsync, strict or sample")
    run.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", dest="sets", help="change the recipe")
    run.add_argument("--until", metavar="STAGE", help="stop after this stage (recipe wild: after one wave of search)")
    run.add_argument(
        "--retry",
        action="store_true",
        help="try again what was given up after three failures, and rejections that may pass: age, blocked, geo,"
        " members_only and private (after new cookies or another proxy), live and truncated",
    )
    run.add_argument("--dry", action="store_true", help="print what is due per stage and stop")
    run.add_argument(
        "--train",
        nargs="?",
        const="tiny",
        metavar="RECIPE",
        help="then train MCDM on the shards, on the same Ray: tiny (the default), small or paper;"
        " --set train.NAME=VALUE changes it",
    )
    run.add_argument("--address", help="join this Ray instead of starting one (or set RAY_ADDRESS)")
    run.add_argument("--cpus", type=int, help="cores that the Ray started here may use (default: all)")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    from pipeline import commands
    from pipeline.disk import disk_fault

    options = parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    console = Console(highlight=False, markup=False, emoji=False)  # brackets in a path or a title are just that
    run: Command = getattr(commands, options.command)
    try:
        return run(options, console)
    except commands.request_errors() as error:
        sys.stderr.write(f"error: {' '.join(str(error).split())}\n")
        return 2
    except commands.RUN_ERRORS as error:
        sys.stderr.write(f"{getattr(error, 'trace', '')}error: {error}\n")
        return 1
    except OSError as error:
        fault = str(error) if error.errno == errno.ENAMETOOLONG else disk_fault(error)
        if fault is None:
            raise
        sys.stderr.write(f"error: {fault}\n")
        return 2
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; run the same command again to go on\n")
        return 130
