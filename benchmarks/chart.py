"""The plot of the report: a line for each ratio and a mark at its bar; the same bytes for the same rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from outcome import Row

_REACHED, _MISSED, _MARK = "#2a7f9e", "#c9b48a", "#202020"
_STYLE: dict[Any, Any] = {"svg.hashsalt": "tercet", "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9}


def draw(rows: Sequence[Row], path: Path) -> None:
    """Write the plot as SVG."""
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(9.5, 0.9 + 0.3 * len(rows)), facecolor="white", layout="constrained")
        axes = figure.subplots()
        places = list(range(len(rows)))
        colours = [_REACHED if row.reached else _MISSED for row in rows]
        axes.barh(places, [row.ratio for row in rows], height=0.62, color=colours)
        for place, row in zip(places, rows, strict=True):
            bar = row.bar or 0.0
            axes.plot([bar, bar], [place - 0.42, place + 0.42], color=_MARK, linewidth=2)
            axes.text(max(row.ratio, bar), place, f"  {row.ratio:.2f}× (bar {bar:g}×)", va="center", ha="left")
        axes.set_yticks(places, [f"{row.claim} · {row.peer}" for row in rows])
        axes.set_xlim(0, 1.3 * max(max(row.ratio, row.bar or 0.0) for row in rows))
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlabel("times better than the peer; pale where the bar is missed")
        axes.tick_params(axis="y", length=0)
        axes.spines[["top", "right", "left"]].set_visible(False)
        figure.savefig(path, format="svg", metadata={"Date": None})
