"""Options that several commands share, and what they mean."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from tercet_server.options import settings_options
from tercet_server.settings import Sources

if TYPE_CHECKING:
    from tercet.types import Inference

Command = TypeVar("Command", bound=Callable[..., Any])
ENGINE = ("device", "precision", "memory_budget", "cache_dir", "allow_download")


def composed(*decorators: Callable[[Any], Any]) -> Callable[[Command], Command]:
    """Return one decorator that applies all, the first one outermost."""

    def apply(command: Command) -> Command:
        for decorate in reversed(decorators):
            command = decorate(command)
        return command

    return apply


def _models(context: click.Context, parameter: click.Parameter, incomplete: str) -> list[str]:
    from tercet.checkpoints.catalog import catalog

    return sorted(model for model in catalog().ids if model.startswith(incomplete))


def _api_key(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    if value is None or not value.startswith("@"):
        return value
    try:
        key = Path(value[1:]).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise click.BadParameter(f"{value[1:]} cannot be read: {error.strerror}", context, parameter) from None
    return key


def _options(context: click.Context, parameter: click.Parameter, value: tuple[str, ...]) -> dict[str, Any] | None:
    pairs = [(name, text) for name, _, text in (item.partition("=") for item in value)]
    if any(not name or not text for name, text in pairs):
        raise click.BadParameter("give NAME=VALUE", context, parameter)
    return {name: _value(text) for name, text in pairs} or None


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


model_argument = click.argument("model", shell_complete=_models)
api_key_option = click.option(
    "--api-key", metavar="KEY", callback=_api_key, help="Key for the server; @FILE reads it from a file."
)
model_option = click.option(
    "--option",
    "options",
    metavar="NAME=VALUE",
    multiple=True,
    callback=_options,
    help="An option of the model or the operation, as in Python; give it once for each.",
)


where_options = composed(
    click.option("--url", help="Use the server at this address instead of an engine in this process."),
    api_key_option,
    partial(settings_options, names=ENGINE),
)


@dataclass(frozen=True, slots=True)
class Where:
    """Where models run: at a server's address, or in an engine of this process with these settings."""

    url: str | None
    api_key: str | None
    engine: Mapping[str, Any]

    @classmethod
    def taken(cls, values: dict[str, Any]) -> Where:
        """Return what the values of `where_options` say, and take them out of `values`.

        Raises:
            click.UsageError: they contradict each other.
        """
        url, api_key = values.pop("url"), values.pop("api_key")
        engine = {name: values.pop(name) for name in ENGINE}
        own = [name for name, value in engine.items() if value is not None]
        if url is not None and own:
            raise click.UsageError(f"--{own[0].replace('_', '-')} is for an engine in this process, not with --url")
        if url is None and api_key is not None:
            raise click.UsageError("--api-key is for a server; give its --url")
        return cls(url, api_key, engine)

    @contextmanager
    def inference(self) -> Iterator[tuple[Inference, str | None]]:
        """Give what encodes and scores, and its precision where that is known beforehand."""
        if self.url is not None:
            from tercet.client import Client

            with Client(self.url, api_key=self.api_key, wait_for_capacity=True) as client:
                yield client, None
            return
        from tercet_server.run import open_engine

        settings = Sources.here(self.engine).read()
        engine = open_engine(settings, settings.may_download)
        try:
            yield engine, engine.device.precision
        finally:
            engine.close(drain_s=0)
