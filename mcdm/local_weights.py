"""What lies at a local path of published weights, told apart without reading it all; and what a recipe wants there."""

import hashlib
from collections.abc import Collection
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mcdm.config import Recipe

_TAIL_BYTES = 1 << 16
"""Of a file, hashed: a `.safetensors` ends with weights, a torch file with the checksums of all that it holds."""

_PATTERNS = ("config.json", "*.safetensors", "*.bin")

_SAMPLES, _SAMPLE_BYTES = 64, 1 << 12
"""Of a file's length, hashed with its end: two VAEs may end with the same encoder, and differ in the decoder alone."""

OF_DIFFUSERS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
_FILES = (OF_DIFFUSERS[0], "model.safetensors", OF_DIFFUSERS[1], "pytorch_model.bin")
"""What diffusers, and either it or transformers, read of a directory: the first that is there."""

NONE = "none"
"""Instead of a path of `sd_weights`: random ones are meant, not forgotten."""

ENCODERS = {"codec": "sd", "audio": "wav2vec2", "image": "clip"}
"""The parts of a recipe that may read a directory, each with the kind that does."""

_LEARNS_WITH: dict[int, tuple[str, ...]] = {
    0: (),
    1: ("codec.path", "sd_weights", "motion_weights"),
    2: ("audio.path", "image.path"),
    3: ("codec.path",),
}
"""By stage, the settings whose weights decide what its own mean."""


def encoders_of(stage: int) -> set[str]:
    """The parts of a recipe whose encoders a stage learns from."""
    return {setting.removesuffix(".path") for setting in _LEARNS_WITH[stage] if setting.endswith(".path")}


def first_in(folder: Path, names: Collection[str]) -> Path | None:
    """The first of these files that a folder holds."""
    return next((folder / name for name in names if (folder / name).is_file()), None)


def digest_at(path: str) -> str:
    """Names the weights in a directory, or a file of them, wherever it is mounted: by names, sizes and last bytes.

    A path that is not there is named by itself, without links and in full; "" by "".
    """
    if not path:
        return ""
    place = Path(path).resolve()
    files = [place] if place.is_file() else sorted(one for pattern in _PATTERNS for one in place.glob(pattern))
    if not files:
        return str(place)
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as opened:
            size = opened.seek(0, 2)
            opened.seek(max(size - _TAIL_BYTES, 0))
            digest.update(f"{file.name} {size} ".encode() + hashlib.sha256(opened.read()).digest())
    return digest.hexdigest()[:12]


def check_paths(recipe: "Recipe", *, parts: Collection[str] = tuple(ENCODERS), starts: bool = False) -> None:
    """Raise `ValueError`, once for all of them, for directories of encoders that are not there, of those `parts` of the
    recipe, and where stage 1 `starts` on latents of SD's VAE while no UNet is named: a random one is 860 M weights, and
    would train unnoticed."""
    read = {name: getattr(recipe, name) for name in ENCODERS if name in parts}
    read = {name: part for name, part in read.items() if part.kind == ENCODERS[name]}
    lost = {name: part.path for name, part in read.items() if not part.path or not Path(part.path).is_dir()}
    missing = [f"{name}.path: no directory {path!r}" for name, path in lost.items()]
    if starts and recipe.codec.kind == "sd" and not recipe.sd_weights:
        missing.append(f"sd_weights: no UNet named ({NONE} for a random one)")
    if missing:
        raise ValueError(f"{'; '.join(missing)}; give local copies of the published weights")


def digests(recipe: "Recipe", stage: int) -> dict[str, str]:
    """What a stage learns with, by setting: a digest of the one file of weights that is read at its path, whatever its
    name and what lies beside it; "" for none, and nothing of a path where there are no weights."""
    found = {setting: _digest(attrgetter(setting)(recipe)) for setting in _LEARNS_WITH[stage]}
    return {setting: digest for setting, digest in found.items() if digest is not None}


def differing(recipe: "Recipe", then: dict[str, str]) -> str:
    """The first setting, with its value, that names other weights than `digests` said then; "" for none. One that names
    nothing, or where there are no weights, does not differ: the weights that learned are in the checkpoint, the
    encoders' are missed elsewhere."""
    for setting, digest in then.items():
        path: str = attrgetter(setting)(recipe)
        if path and _digest(path) not in (None, digest):
            return f"{setting}={path}"
    return ""


def _digest(path: str) -> str | None:
    if path in ("", NONE):
        return ""
    place = Path(path)
    file = place if place.is_file() else first_in(place, _FILES)
    if file is None:
        return None
    with file.open("rb") as opened:
        size = opened.seek(0, 2)
        digest = hashlib.sha256(str(size).encode())
        for number in range(_SAMPLES):
            opened.seek(size * number // _SAMPLES)
            digest.update(opened.read(_SAMPLE_BYTES))
        opened.seek(max(size - _TAIL_BYTES, 0))
        digest.update(opened.read())
    return digest.hexdigest()[:12]
