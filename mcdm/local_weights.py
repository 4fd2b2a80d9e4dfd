"""What lies at a local path of published weights, told apart without reading it all."""

import hashlib
from pathlib import Path

_TAIL_BYTES = 1 << 16
"""Of a file, hashed: a `.safetensors` ends with weights, a torch file with the checksums of all that it holds."""

_PATTERNS = ("config.json", "*.safetensors", "*.bin")


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
