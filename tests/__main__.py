"""`python3 -m tests [pytest arguments]`: the suite in the locked environment; `-m slow` for what takes minutes each."""

import sys

from pipeline.environment import ROOT, ensure

if __name__ == "__main__":
    ensure()
    import pytest

    raise SystemExit(pytest.main(["--rootdir", str(ROOT), *(sys.argv[1:] or ["-m", "not slow", str(ROOT / "tests")])]))
