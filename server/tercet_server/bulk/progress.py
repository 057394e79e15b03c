"""A progress bar on standard error, where there is a terminal."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from tercet_server.bulk.job import Report


@contextmanager
def progress_bar(verb: str, quiet: bool) -> Iterator[Report]:
    """Give what moves the bar: (rows done now, fraction of the input behind them or None)."""
    screen = Console(stderr=True, highlight=False)
    columns = (
        TextColumn(verb),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[rows]:,} rows"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=screen, transient=True, disable=quiet or not screen.is_terminal) as bar:
        task = bar.add_task(verb, total=None, rows=0)
        done = 0

        def report(rows: int, fraction: float | None) -> None:
            nonlocal done
            done += rows
            if fraction is None:
                bar.update(task, rows=done)
            else:
                bar.update(task, rows=done, completed=fraction, total=1.0)

        yield report
