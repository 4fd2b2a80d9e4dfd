"""`python -m mcdm`: train, encode, generate, evaluate."""

from pipeline.environment import ensure

if __name__ == "__main__":
    ensure("torch", "av", "cv2", "fsspec", "msgspec", "pyarrow")  # a machine that only trains may lack the pipeline's
    from mcdm.cli import main

    raise SystemExit(main())
