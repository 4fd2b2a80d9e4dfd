"""`python3 -m tests [pytest arguments]`: the whole suite, in the locked environment."""

import sys

from pipeline.environment import ROOT, ensure

if __name__ == "__main__":
    ensure()
    import pytest

    raise SystemExit(pytest.main(["--rootdir", str(ROOT), *(sys.argv[1:] or [str(ROOT / "tests")])]))
