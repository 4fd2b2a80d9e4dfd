"""`eval.html`: one page that needs nothing beside it: numbers, curves, and videos side by side."""

import base64
import contextlib
import html
import io
import json
from pathlib import Path
from typing import Any

from manifests.scratch import write_whole

_STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;color:#222}
table{border-collapse:collapse}td,th{padding:.2rem .8rem;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}img,video{max-width:100%}video{background:#000;margin:.3rem}"""


def write_page(path: Path, result: dict[str, Any], videos: list[tuple[str, bytes]], run: Path) -> None:
    """Write the page of `evaluate`'s result; `videos` are keys and mp4 bytes."""
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{value:.3f}</td></tr>" for name, value in _flat(result["mean"])
    )
    frechet = "".join(
        f"<tr><td>{name}</td><td>{'not measured' if value is None else f'{value:.2f}'}</td></tr>"
        for name, value in result["frechet"].items()
    )
    missing = "".join(f"<li>{html.escape(f'{k}: {v}')}</li>" for k, v in result["not_measured"].items())
    shown = "".join(
        f'<figure><video controls loop src="data:video/mp4;base64,{base64.b64encode(data).decode()}"></video>'
        f"<figcaption>{html.escape(key)}: true, made</figcaption></figure>"
        for key, data in videos
    )
    plots = "".join(f'<img alt="" src="data:image/png;base64,{plot}">' for plot in _plots(result, run))
    write_whole(
        path,
        f"<!doctype html><meta charset=utf-8><title>MCDM {html.escape(result['recipe'])}</title><style>{_STYLE}</style>"
        f"<h1>MCDM, recipe {html.escape(result['recipe'])}</h1><h2>Means over {len(result['videos'])} videos"
        f"</h2><table>{rows}{frechet}</table><ul>{missing}</ul><h2>Curves</h2>{plots}<h2>Videos</h2>{shown}",
    )


def _flat(values: dict[str, Any], path: str = "") -> list[tuple[str, float]]:
    found = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{path}{name} ")
        elif value is not None:
            found.append((path + name, float(value)))
    return found


def _plots(result: dict[str, Any], run: Path) -> list[str]:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    plots = []
    for name, label, low in (("ssim_over_time", "SSIM", 0.0), ("identity", "identity (cosine)", -0.1)):
        if any(video[name] for video in result["videos"]):
            figure, axes = plt.subplots(figsize=(8, 3), layout="constrained")
            for video in result["videos"]:
                axes.plot(*zip(*video[name], strict=True), marker=".", label=video["key"])
            axes.set(xlabel="frames made", ylabel=label, ylim=(low, 1.05))
            plots.append(_png(figure))
    records = _records(run / "log.jsonl")
    stages = sorted({record["stage"] for record in records})
    if stages:
        figure, grid = plt.subplots(1, len(stages), figsize=(3 * len(stages), 2.6), layout="constrained", squeeze=False)
        for axes, stage in zip(grid[0], stages, strict=True):
            for name in ("loss", "held_out_loss"):
                points = [(r["step"], r[name]) for r in records if r["stage"] == stage and name in r]
                if points:
                    axes.plot(*zip(*points, strict=True), label=name.replace("_", " "))
            axes.set(title=f"stage {stage}", xlabel="step")
            axes.legend(fontsize=7)
        plots.append(_png(figure))
    return plots


def _records(log: Path) -> list[dict[str, Any]]:
    """The records of a training log, but for lines that a killed run has cut short."""
    records: list[dict[str, Any]] = []
    for line in log.read_text(errors="replace").splitlines() if log.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            records.append(json.loads(line))
    return records


def _png(figure: Any) -> str:
    from matplotlib import pyplot as plt

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return base64.b64encode(buffer.getvalue()).decode()
