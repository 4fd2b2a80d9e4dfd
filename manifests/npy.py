"""Arrays out of `.npy` bytes, in threads."""

import io
from threading import Lock
from tokenize import TokenError
from typing import Any

import numpy as np
from numpy.typing import NDArray

_PARSING = Lock()
"""Held while a header is parsed: where two threads do so at once CPython 3.11 may raise "SystemError: AST constructor
recursion depth mismatch" (its `ast` counts depth once for all of them)."""


def read_npy(data: bytes) -> NDArray[Any]:
    """The array in the bytes of a `.npy` file. Raises `ValueError` and `EOFError`; never unpickles."""
    with _PARSING:
        try:
            array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)
        # Python's own parser, the kinds of the names, or the size, of a damaged header.
        except (SyntaxError, TokenError, TypeError, MemoryError) as error:
            raise ValueError(f"no array: {error}") from error
    return array
