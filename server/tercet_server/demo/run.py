"""The demo from start to end."""

from __future__ import annotations

import platform
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from time import perf_counter

from rich.console import Console

from tercet import Engine
from tercet_server.demo import show
from tercet_server.demo.passages import Passage, read_passages, standard_library
from tercet_server.demo.search import DENSE_MODEL, SPARSE_MODEL, Search, StoreSearch
from tercet_server.demo.stores import filled

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


def run(questions: Sequence[str], top: int, store: str = "memory") -> None:
    """Encode the standard library's docstrings, in memory or into a store, and print the answers to the questions.

    Raises:
        TercetError: the store's client is not installed.
    """
    screen = show.console()
    passages = read_passages(standard_library())
    screen.print(f"{len(passages):,} docstrings from the standard library of Python {platform.python_version()}")
    with Engine() as engine, _searched(screen, engine, passages, store) as search:
        for question in questions or QUESTIONS:
            show.answer(screen, question, search.ask(question), passages, top)
    screen.print(_LEGEND, style="dim")


@contextmanager
def _searched(
    screen: Console, engine: Engine, passages: Sequence[Passage], store: str
) -> Iterator[Search | StoreSearch]:
    """Give what answers questions about the passages, and say how long it took to encode them."""
    texts, started = [passage.text for passage in passages], perf_counter()
    with ExitStack() as stack:
        with show.progress(screen, "encoding") as progress:
            search: Search | StoreSearch
            if store == "memory":
                search = Search(engine, texts, progress)
            else:
                search = StoreSearch(engine, texts, stack.enter_context(filled(store, engine, texts, progress)))
        elapsed_s = perf_counter() - started
        screen.print(
            f"encoded with {DENSE_MODEL} and {SPARSE_MODEL} on {engine.device.target} into {store} in "
            f"{elapsed_s:.1f} s, {len(passages) / elapsed_s:,.0f} passages a second\n"
        )
        yield search
