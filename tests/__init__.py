"""Tests are sentences that can be false. `python3 -m tests` runs them all, in the locked environment."""
