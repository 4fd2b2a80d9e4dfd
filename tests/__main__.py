"""`python3 -m tests [pytest arguments]`: the suite in the locked environment; `-m slow` for what takes minutes each."""

import os
import sys

from pipeline.environment import ROOT, ensure

if __name__ == "__main__":
    ensure()
    import pytest

    workers = min(os.cpu_count() or 1, 4)  # most tests keep one core busy; each worker holds 1 to 2 GB
    usual = ["-m", "not slow", "-n", str(workers), "--no-loadscope-reorder", "--durations=20", str(ROOT / "tests")]
    raise SystemExit(pytest.main(["--rootdir", str(ROOT), *(sys.argv[1:] or usual)]))
