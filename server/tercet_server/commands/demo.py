"""`tercet demo`."""

from __future__ import annotations

import click


@click.command()
@click.argument("questions", nargs=-1, metavar="[QUESTION]...")
@click.option(
    "--top", type=click.IntRange(1, 30), default=5, show_default=True, help="Answers shown for each question."
)
@click.option(
    "--store",
    type=click.Choice(("memory", "lancedb", "qdrant", "chroma")),
    default="memory",
    show_default=True,
    help="Where the vectors are kept and searched; a database's client is an extra, such as tercet[lancedb].",
)
def demo(questions: tuple[str, ...], top: int, store: str) -> None:
    """Search the documentation of Python's standard library.

    Encodes the docstrings of the library that runs this (thousands of passages, nothing is downloaded or kept) and
    answers each QUESTION by dense, sparse and hybrid search and by hybrid search with a MaxSim rerank. Without a
    QUESTION it asks a few of its own.
    """
    from tercet_server.demo.run import run  # torch, which --help and --version can do without

    run([question for question in questions if question.strip()], top, store)
