"""Records to JSON and back, from many threads at once."""

import subprocess
import sys

import msgspec
import pytest

from manifests.codec import from_json
from manifests.records import Ref

RACE = """
import dataclasses, sys, threading, types
from manifests.codec import from_plain

sys.setswitchinterval(1e-6)


def fresh(number):
    module, inner = types.ModuleType(f"fresh{number}"), int
    sys.modules[module.__name__] = module
    for depth in range(12):
        fields = [(f"f{i}", inner | None, None) for i in range(6)]
        inner = dataclasses.make_dataclass(f"C{depth}", fields, frozen=True, namespace={"__module__": module.__name__})
    return inner


for number in range(60):
    kind, ready = fresh(number), threading.Barrier(16)

    def read():
        ready.wait()
        assert from_plain({"f0": {"f1": None}}, kind).f0.f1 is None

    threads = [threading.Thread(target=read) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""


def test_threads_that_meet_at_a_record_that_none_has_read_before_do_not_crash():
    done = subprocess.run([sys.executable, "-c", RACE], capture_output=True, text=True, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(("data", "said"), [(b"{", "truncated"), (b'{"path": 1}', "Expected `str`, got `int`")])
def test_a_record_that_cannot_be_read_is_named_with_where_it_lies(data, said):
    with pytest.raises(msgspec.DecodeError, match=f"^s3://bucket/x: .*{said}"):
        from_json(data, Ref, "s3://bucket/x")
