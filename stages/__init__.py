"""The verbs: one file per idea. Imports `manifests`, `pipeline.stage` and `pipeline.bench`, never ray."""

import os

# Set before any library is imported: pyannote (which whisperx imports) tells its makers of every model that it loads
# unless told not to, and the hub's client of what it is used by. What a person has set stands.
os.environ.setdefault("PYANNOTE_METRICS_ENABLED", "false")
os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
