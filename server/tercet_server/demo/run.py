"""The demo from start to end."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from time import perf_counter

from rich.console import Console

from tercet import Engine
from tercet_server.demo import show
from tercet_server.demo.passages import Passage, read_passages, standard_library
from tercet_server.demo.search import DENSE_MODEL, SPARSE_MODEL, Search

QUESTIONS = (
    "read a csv file into dictionaries",
    "run a function every few seconds",
    "compare two text files and show the differences",
    "make a temporary directory that cleans up after itself",
    "find all files matching a pattern in a folder",
    "remember the results of expensive function calls",
)

_LEGEND = """\
dense: cosine of MiniLM vectors. sparse: BM25. hybrid: both scaled to 0 … 1 and added up, 3 to 1.
hybrid + rerank: the best 30 of those with MaxSim of MiniLM's token states added, again 3 to 1.
Ask your own: tercet demo "…", or make demo Q="…"."""


def run(questions: Sequence[str], top: int) -> None:
    """Encode the standard library's docstrings and print the answers to the questions."""
    screen = show.console()
    passages = read_passages(standard_library())
    screen.print(f"{len(passages):,} docstrings from the standard library of Python {platform.python_version()}")
    with Engine() as engine:
        search = _encoded(screen, engine, passages)
        for question in questions or QUESTIONS:
            show.answer(screen, question, search.ask(question), passages, top)
    screen.print(_LEGEND, style="dim")


def _encoded(screen: Console, engine: Engine, passages: Sequence[Passage]) -> Search:
    started = perf_counter()
    with show.progress(screen, "encoding") as progress:
        search = Search(engine, [passage.text for passage in passages], progress)
    elapsed_s = perf_counter() - started
    screen.print(
        f"encoded with {DENSE_MODEL} and {SPARSE_MODEL} on {engine.device.target} in {elapsed_s:.1f} s, "
        f"{len(passages) / elapsed_s:,.0f} passages a second\n"
    )
    return search
