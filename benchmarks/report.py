"""Write what the scripts of a set found into docs/: a table, for the CPU set a plot, and where and by what it was made.

python benchmarks/report.py [--gpu] [--results FOLDER] [--write]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import markers
from facts import ROOT, Facts
from outcome import Outcome, Row
from run import GPU_RUNS, RESULTS, RUNS

DOCUMENT, PLOT = ROOT / "docs" / "benchmarks.md", ROOT / "docs" / "benchmarks.svg"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", action="store_true", help="the GPU set, into its own section")
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--write", action="store_true", help=f"into docs/{DOCUMENT.name} and docs/{PLOT.name}")
    asked = parser.parse_args()
    kept = [path for name in (GPU_RUNS if asked.gpu else RUNS) if (path := asked.results / f"{name}.json").exists()]
    if not kept:
        raise SystemExit(f"no results in {asked.results}: run benchmarks/run.py first")
    outcomes = [Outcome.read(path) for path in kept]
    text = block(outcomes, None if asked.gpu else PLOT)
    print(text)
    if asked.write and asked.gpu:
        markers.write(DOCUMENT, text, markers.ON_GPU)
    elif asked.write:
        import chart

        markers.write(DOCUMENT, text)
        chart.draw([row for outcome in outcomes for row in outcome.rows if row.bar is not None], PLOT)
    return 0


def block(outcomes: Sequence[Outcome], plot: Path | None = PLOT) -> str:
    """Return the Markdown between the markers, with the plot if there is one."""
    rows = [row for outcome in outcomes for row in outcome.rows]
    barred = [row for row in rows if row.bar is not None]
    reached = sum(row.reached for row in barred)
    parts = [
        f"{reached} of {len(barred)} bars reached. A ratio is how many times better Tercet's "
        "figure is: rates as ours / theirs, times and memory as theirs / ours.",
        table(outcomes),
    ]
    if barred and plot is not None:
        parts.append(f"![The ratios, and the bar of each]({plot.name})")
    made = [outcome.facts for outcome in outcomes if outcome.facts]
    if made:
        parts += [together(made), "\n".join(f"- `{facts.command}`" for facts in made)]
    return "\n\n".join(parts)


def table(outcomes: Iterable[Outcome]) -> str:
    """Return a line for each row, and for each script that has none."""
    lines = ["| | beside | Tercet | the other | | ratio | bar | |", "|---|---|---|---|---|---|---|---|"]
    for outcome in outcomes:
        lines += [_line(row) for row in outcome.rows]
        if outcome.failure:
            lines.append(f"| {outcome.script} | | | | | | | **failed**: {outcome.failure} |")
    return "\n".join(lines)


def _line(row: Row) -> str:
    bar = "" if row.bar is None else f"{row.bar:g}×"
    verdict = "" if row.bar is None else "reached" if row.reached else "**not reached**"
    claim = f"{row.claim} ({row.note})" if row.note else row.claim
    figures = f"{number(row.ours)} | {number(row.theirs)} | {row.unit} | {row.ratio:.2f}×"
    return f"| {claim} | {row.peer} | {figures} | {bar} | {verdict} |"


def number(value: float) -> str:
    """Return three digits of it, or all before the point."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"


def together(made: Sequence[Facts]) -> str:
    """Return in one line what the runs have in common, and every value of what they have not."""
    packages = {name: [facts.versions[name] for facts in made if name in facts.versions] for name in _names(made)}
    versions = ", ".join(f"{name} {_all(numbers)}" for name, numbers in packages.items())
    processors, commits = _all(facts.processor for facts in made), _all(facts.commit for facts in made)
    return f"{processors}; {versions}; commit {commits}."


def _names(made: Sequence[Facts]) -> list[str]:
    return list(dict.fromkeys(name for facts in made for name in facts.versions))


def _all(values: Iterable[str]) -> str:
    return " and ".join(dict.fromkeys(values))


if __name__ == "__main__":
    raise SystemExit(main())
