"""What `Watch` wrote of one track, read back."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray


def tracks_of(path: Path, number: int) -> dict[str, NDArray[Any]]:
    """The arrays of one track, by name, from a blob that `Watch` wrote."""
    with np.load(path) as blob:
        return {name.split("/", 1)[1]: blob[name] for name in blob.files if name.split("/", 1)[0] == str(number)}
