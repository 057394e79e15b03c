"""The command line of a script that measures one model after the other."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterable, Mapping, Sequence

from facts import facts
from harness import Contender, options, serve
from outcome import Row, finish


def main(
    about: str | None,
    contenders: Mapping[str, Callable[[str], Contender]],
    models: Iterable[str],
    measure: Callable[[str, Namespace], Row],
    packages: Sequence[str],
    **amounts: int,
) -> int:
    """Measure the model that is asked for, or all; return the exit code. A contender is made with a model's name."""
    asked = command_line(about, contenders, models, **amounts).parse_args()
    if asked.child:
        serve(lambda: contenders[asked.child](asked.model))
        return 0
    rows = [measure(name, asked) for name in chosen(asked, models)]
    return finish(rows, facts(packages), asked.json)


def command_line(about: str | None, contenders: Iterable[str], models: Iterable[str], **amounts: int) -> ArgumentParser:
    """Return the options of such a script."""
    parser = options(about, contenders, rounds=5, **amounts)
    parser.add_argument("--model", choices=list(models), help="default all")
    return parser


def chosen(asked: Namespace, models: Iterable[str]) -> list[str]:
    """Return the models to measure."""
    return [asked.model] if asked.model else list(models)
