"""`python -m tests.proofs NAME...`: what the trainer claims, shown on shards, as dated records in `records/`."""

from pipeline.environment import ensure

if __name__ == "__main__":
    ensure()
    from tests.proofs.cli import main

    raise SystemExit(main())
