"""The command line's options, generated from `Settings`."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import Field
from typing import Any, TypeVar

import click

from tercet.errors import InvalidInputError
from tercet_server.settings import FIELDS, default_of, flag_of, parsed, variable_of

Command = TypeVar("Command", bound=Callable[..., Any])


def settings_options(command: Command, names: Collection[str] = FIELDS) -> Command:
    """Give a command one option for each setting named; it gets them as keywords, None for those not given."""
    for item in reversed([*FIELDS.values()]):
        if item.name in names and (flag := flag_of(item)) is not None:
            command = _option(item, flag)(command)
    return command


def _option(item: Field[Any], flag: str) -> Callable[[Command], Command]:
    kind, choices = item.metadata["kind"], item.metadata.get("choices")
    several = kind in ("list", "table")

    def check(context: click.Context, parameter: click.Parameter, value: Any) -> Any:
        if value in (None, ()):
            return None
        try:
            return parsed(item, list(value) if several else value, flag)
        except InvalidInputError as error:
            raise click.UsageError(error.message, context) from None

    more: dict[str, Any] = {"is_flag": True} if kind == "boolean" else {"multiple": several}
    if kind != "boolean":
        more["metavar"] = item.metadata.get("metavar") or ("|".join(choices) if choices else kind.upper())
    return click.option(flag, item.name, default=None, callback=check, help=_help(item), **more)


def _help(item: Field[Any]) -> str:
    default = default_of(item)
    shown = f" [default: {default}]" if default not in (None, (), {}, False) else ""
    return f"{item.metadata['help']}{shown} [{variable_of(item)}]"
