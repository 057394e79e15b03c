"""What the demo prints: a progress bar, then a table for each question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from tercet import types
    from tercet_server.demo.passages import Passage
    from tercet_server.demo.search import Ranking

_SCORES = {"dense": "cosine", "sparse": "BM25", "hybrid": "fused", "hybrid + rerank": "fused"}
_WIDTH = 120  # wider tables are harder to read, and a pipe has no width of its own


def console() -> Console:
    """Return a console for this terminal, of at most 120 columns; plain text when it is none."""
    screen = Console(highlight=False)
    if not screen.is_terminal or screen.width > _WIDTH:
        return Console(highlight=False, width=_WIDTH)
    return screen


@contextmanager
def progress(screen: Console, task: str) -> Iterator[types.Progress]:
    """Give a callback that moves a bar, which vanishes when done; nothing moves where there is no terminal."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=screen, transient=True, disable=not screen.is_terminal) as bar:
        started = bar.add_task(task, total=None)
        yield lambda done, total: bar.update(started, completed=done, total=total)


def answer(screen: Console, question: str, rankings: Sequence[Ranking], passages: Sequence[Passage], top: int) -> None:
    """Print the best hits of each ranking side by side."""
    title = Text(f"“{question}”", style="bold")  # a Text, so that brackets in the question are not taken for markup
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD)
    width = (screen.width - 1) // len(rankings) - 3  # each column is a line and two spaces wider, the table one line
    for ranking in rankings:
        header = f"{ranking.name}\n{_SCORES[ranking.name]}, {_time(ranking.elapsed_ms)}"
        table.add_column(header, width=width, no_wrap=True)
    for rank in range(top):
        table.add_row(*(_cell(list(ranking.hits.items()), rank, passages, width) for ranking in rankings))
    screen.print(table)


def _cell(hits: Sequence[tuple[int, float]], rank: int, passages: Sequence[Passage], width: int) -> Text:
    """Return a hit in two lines: its path, the end of it if it is long, then its score and what it says."""
    if rank >= len(hits):
        return Text("–", style="dim")
    position, score = hits[rank]
    passage = passages[position]
    path = Text(passage.path if len(passage.path) <= width else f"…{passage.path[1 - width :]}")
    path.stylize("bold", start=max(0, len(path) - len(passage.name or passage.path)))
    return path.append_text(Text.assemble("\n", (f"{score:.3f}", "cyan"), (f"  {passage.summary}", "dim")))


def _time(elapsed_ms: float) -> str:
    return f"{elapsed_ms:.1f} ms" if elapsed_ms < 100 else f"{elapsed_ms:,.0f} ms"
