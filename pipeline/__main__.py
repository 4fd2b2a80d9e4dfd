"""`python -m pipeline`: run, report, show, judge, calibrate, shard, verify, score, models, forget, prune."""

from pipeline.environment import ensure

if __name__ == "__main__":
    ensure()
    from pipeline.cli import main

    raise SystemExit(main())
