"""Writing and reading shards: ours, and webdataset's own `ShardWriter` with the same videos, sounds and arrays."""

from pathlib import Path

import numpy as np
import webdataset

from manifests.records import Clip, Ref
from manifests.store import Store
from stages.judge import Measured, judge
from stages.policies import PAPER
from stages.shard import shard
from tests.benchmarks.counts import size_bytes
from tests.benchmarks.record import Findings
from tests.benchmarks.tools import empty
from tests.benchmarks.turns import in_turns, spread
from tests.stages.measured import clip, measured

VIDEOS, CLIPS_EACH, FRAMES = 10, 4, 750
VIDEO_BYTES = 3_000_000


def measure(folder: Path, repeats: int) -> Findings:
    """Megabytes per second, blobs and shards on the same disk."""
    store = Store(str(folder / "store"))
    known = [_video(store, folder, number) for number in range(VIDEOS)]
    verdicts = judge(known, PAPER)

    def ours() -> int:
        store.delete("shards")
        shard(store, known, verdicts, size_bytes=100_000_000, workers=1)
        return size_bytes(folder / "store" / "shards")

    def theirs() -> int:
        _webdataset(store, known, empty(folder / "theirs"))
        return size_bytes(folder / "theirs")

    turns = in_turns({"ours": ours, "webdataset": theirs}, repeats, warm=True)
    reading = in_turns(
        {"ours": lambda: _read(folder / "store" / "shards"), "webdataset": lambda: _read(folder / "theirs")},
        repeats,
        warm=True,
    )
    megabytes = {name: made / 1e6 for name, made in turns.made.items()}
    return Findings(
        ratios={
            "webdataset's writer / ours, wall": turns.wall_ratio("webdataset", "ours"),
            "reading: theirs / ours, wall": reading.wall_ratio("webdataset", "ours"),
        },
        numbers={
            "ours, written MB/s": spread([megabytes["ours"] / one.wall_s for one in turns.spent["ours"]]),
            "webdataset, written MB/s": spread(
                [megabytes["webdataset"] / one.wall_s for one in turns.spent["webdataset"]]
            ),
            "ours, read by webdataset MB/s": spread([megabytes["ours"] / one.wall_s for one in reading.spent["ours"]]),
            "kept": sum(one.kept for one in verdicts),
            "samples": reading.made["ours"],
            "megabytes": megabytes["ours"],
        },
        notes=(
            "ours checks every blob against the digest it was scored under, and hashes what it writes for its index",
        ),
    )


def _video(store: Store, folder: Path, number: int) -> Measured:
    name = f"video{number}"
    clips = tuple(_clip(store, folder, name, n) for n in range(CLIPS_EACH))
    made: Measured = measured(name, clips=clips, person=number, channel=name)  # type: ignore[no-untyped-call]
    return made


def _clip(store: Store, folder: Path, video: str, number: int) -> Clip:
    rng = np.random.default_rng([int(video[5:]), number])
    files: list[Ref] = []
    for suffix, size in (("mp4", VIDEO_BYTES), ("wav", FRAMES * 1280 + 44)):
        path = folder / f"blob.{suffix}"
        path.write_bytes(rng.bytes(size))
        files.append(store.put_file(path, f"blobs/{video}/{number:04d}.{suffix}"))
    arrays = folder / "blob.npz"
    np.savez(
        arrays,
        box=rng.random((FRAMES, 5), np.float32),
        lmk=rng.random((FRAMES, 5, 2), np.float32),
        pose=rng.random((FRAMES, 3), np.float32),
        crop=rng.random((FRAMES, 4), np.float32),
    )
    files.append(store.put_file(arrays, f"blobs/{video}/{number:04d}.npz"))
    made: Clip = clip(  # type: ignore[no-untyped-call]
        video, number, start_s=31.0 * number, n_frames=FRAMES, files=tuple(files), size_px=512
    )
    return made


def _webdataset(store: Store, known: list[Measured], out: Path) -> None:
    with webdataset.ShardWriter(f"{out}/%06d.tar", maxsize=100e6, verbose=0) as sink:
        for one in known:
            assert one.clips is not None
            for item in one.clips.items:
                with np.load(store.at(item.arrays.path)) as arrays:
                    members = {f"{name}.npy": arrays[name] for name in ("box", "lmk", "pose")}
                video, sound = store.get(item.video.path), store.get(item.audio.path)
                sink.write({"__key__": item.key, "mp4": video, "wav": sound, "json": {"key": item.key}, **members})


def _read(folder: Path) -> int:
    urls = sorted(str(path) for path in folder.glob("*.tar"))
    return sum(1 for _ in webdataset.WebDataset(urls, shardshuffle=False))
