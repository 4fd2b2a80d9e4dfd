"""The verbs: one file per idea. Imports `manifests` and `pipeline.stage`, never ray."""
