"""`python -m tests.benchmarks NAME...`: time ours against a reference in turns, print ratios, write dated records."""

from pipeline.environment import ensure

if __name__ == "__main__":
    ensure()
    from tests.benchmarks.cli import main

    raise SystemExit(main())
