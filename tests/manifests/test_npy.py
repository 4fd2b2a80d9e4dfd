"""Arrays whose bytes were damaged."""

import io

import numpy as np
import pytest

from manifests.npy import read_npy


@pytest.mark.filterwarnings("ignore")  # of Python's own parser
def test_whatever_a_byte_of_its_header_turns_into_an_array_is_read_or_is_none():
    """A `b` before a quote makes bytes of one of its names, which numpy could not sort among the others."""
    whole = io.BytesIO()
    np.save(whole, np.zeros((2, 5), np.float32))
    data, told = whole.getvalue(), set()
    for at in range(data.index(b"}") + 1):
        for byte in b"\0 '(,1-Bb{\xff":
            try:
                read_npy(data[:at] + bytes([byte]) + data[at + 1 :])
            except (ValueError, EOFError) as error:
                told.add(str(error)[:28])
    assert "no array: '<' not supported " in told
