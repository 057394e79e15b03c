"""`Settings` of the server: each declared once, read from flags, else the environment, else a TOML file.

The command line's options and the documentation's table are generated from the fields below; this file is the only
one that is given the environment.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import MISSING, Field, dataclass, field, fields
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from tercet.errors import InvalidInputError

PREFIX = "TERCET_"
KINDS = ("dense", "sparse", "multivector", "score")


def setting(default: Any, help: str, kind: str, **more: Any) -> Any:  # noqa: A002 - click's own word
    """Return a field: its default, its help text, its kind (a key of `PARSERS`), and more.

    The rest is optional: `flag` (default `--name-with-dashes`), `metavar`, `choices`, `low` (the smallest number),
    `live` (taken over by a reload), `secret` (never shown), `in_file` (False: not a key of the TOML file).
    """
    metadata = {"help": help, "kind": kind, **more}
    if isinstance(default, dict):
        return field(default_factory=lambda: dict(default), metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What `tercet serve` can be told; the help of each field is its documentation."""

    config: Path | None = setting(
        None, "TOML file with any of these settings under the names in its keys.", "path", in_file=False
    )
    host: str = setting("127.0.0.1", "Address to listen on; 0.0.0.0 for every interface.", "text")
    port: int = setting(8080, "Port to listen on; 0 takes any free one.", "integer", low=0)
    models: tuple[str, ...] = setting(
        (), "Model to load before the server is ready; give it once for each.", "list", flag="--model", live=True
    )
    aliases: Mapping[str, str] = setting(
        {}, "Another name for a model.", "table", flag="--alias", metavar="NAME=MODEL", live=True
    )
    defaults: Mapping[str, str] = setting(
        {},
        "Model for requests that name none, by kind: dense, sparse, multivector or score; else the first of "
        "`models` that can.",
        "table",
        flag="--default",
        metavar="KIND=MODEL",
        choices=KINDS,
        live=True,
    )
    allow: tuple[str, ...] = setting(
        (),
        "Model, or pattern such as 'BAAI/*', that requests may use; these may be downloaded. Once given, no other "
        "model is served.",
        "list",
        flag="--allow",
        live=True,
    )
    allow_download: bool = setting(
        False, "Let requests fetch any model that is served from the hub, in safetensors only.", "boolean", live=True
    )
    cache_dir: Path | None = setting(None, "Directory of the hub cache; default the hub's own.", "path")
    device: str = setting("auto", "auto, cpu, cuda or cuda:N.", "text")
    precision: str = setting("auto", "auto, float32, bfloat16, float16 or, on a CPU, int8 or int16.", "text")
    memory_budget: str | None = setting(
        None, "Memory for all weights together, such as 8GiB; default by the device.", "size"
    )
    idle_ttl_s: float | None = setting(None, "Drop models unused for so many seconds; default never.", "seconds")
    max_queue_tokens: int | None = setting(
        None, "Refuse requests while more tokens would wait; default 4 million.", "integer", low=1
    )
    api_keys: tuple[str, ...] = setting(
        (), "API key, 'read KEY' or 'admin KEY'; better kept in a file.", "list", secret=True, live=True, flag=None
    )
    api_key_file: Path | None = setting(
        None, "File of API keys, one on each line: 'read KEY', 'admin KEY', or KEY alone for read.", "path", live=True
    )
    cors_origins: tuple[str, ...] = setting(
        (), "Web origin whose pages may call, or '*'; default none.", "list", flag="--cors-origin"
    )
    max_body_bytes: str = setting("64MiB", "Largest body of a request.", "size")
    timeout_s: float = setting(60.0, "Time for a request that names none by X-Request-Timeout-Ms.", "seconds")
    drain_s: float = setting(30.0, "Time for requests under way to finish once the server is told to stop.", "seconds")
    keep_alive_s: int = setting(150, "Keep idle connections open for so many seconds.", "integer", low=1)
    log_level: str = setting(
        "info", "Least serious message that is logged.", "text", choices=("debug", "info", "warning", "error")
    )
    log_format: str = setting(
        "text", "One line of text for each message, or one JSON object.", "text", choices=("text", "json")
    )
    traces: str | None = setting(
        None,
        "Address of an OpenTelemetry collector (OTLP over HTTP) that gets a trace of each request; default none. "
        "Needs tercet[otel].",
        "text",
        metavar="URL",
    )

    def __post_init__(self) -> None:
        """Check what no single value shows."""
        if self.port > 65535:
            raise InvalidInputError(f"port must be 0 to 65535, not {self.port}")
        if unknown := set(self.defaults) - set(KINDS):
            raise InvalidInputError(f"defaults: {min(unknown)!r} is not one of {', '.join(KINDS)}")

    @cached_property
    def body_limit(self) -> int:
        """`max_body_bytes` as a number."""
        from tercet.engine.device import parse_bytes  # brings torch, which --help can do without

        return parse_bytes(self.max_body_bytes)

    def may_use(self, model: str) -> bool:
        """Whether requests may use the model, as far as the allow-list goes."""
        return not self.allow or model in self.named or any(fnmatchcase(model, pattern) for pattern in self.allow)

    def may_download(self, model: str) -> bool:
        """Whether the model may be fetched from the hub."""
        return self.allow_download or any(fnmatchcase(model, pattern) for pattern in self.allow)

    @cached_property
    def named(self) -> frozenset[str]:
        """The models that the operator names one by one; they alone may be directories."""
        return frozenset((*self.models, *self.aliases.values(), *self.defaults.values(), *self.allow))


FIELDS: Mapping[str, Field[Any]] = {item.name: item for item in fields(Settings)}


def flag_of(item: Field[Any]) -> str | None:
    """Return the command line's option for a setting, None if it has none."""
    flag: str | None = item.metadata.get("flag", "--" + item.name.replace("_", "-"))
    return flag


def variable_of(item: Field[Any]) -> str:
    """Return the environment variable of a setting."""
    return PREFIX + item.name.upper()


def default_of(item: Field[Any]) -> Any:
    """Return the value that a setting has when nobody gives one."""
    return item.default if item.default_factory is MISSING else item.default_factory()


@dataclass(frozen=True, slots=True)
class Sources:
    """Where settings come from; reading again is what a reload does.

    Attributes:
        flags: by field name; None means not given.
        environment: the process's own, or a test's.
    """

    flags: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def here(cls, flags: Mapping[str, Any]) -> Sources:
        """Return the sources of this process."""
        return cls(flags, dict(os.environ))

    def read(self) -> Settings:
        """Return the settings, each from the first source that has it.

        Raises:
            InvalidInputError: a value is wrong, or a name is unknown; the message says where and what is known.
        """
        given = {name: value for name, value in self.flags.items() if value not in (None, (), "")}
        flags = {name: parsed(FIELDS[name], value, flag_of(FIELDS[name]) or name) for name, value in given.items()}
        variables = _from_environment(self.environment)
        config = flags.get("config") or variables.get("config")
        return Settings(**{**(_from_file(config) if config else {}), **variables, **flags})


def parsed(item: Field[Any], value: Any, source: str) -> Any:
    """Return a setting's value from text, or from what a TOML file holds.

    Raises:
        InvalidInputError: it is not of the setting's kind; the message names its source.
    """
    try:
        result = PARSERS[item.metadata["kind"]](value)
    except (ValueError, TypeError) as error:
        raise InvalidInputError(f"{source}={_shown(item, value)}: {error}") from None
    except InvalidInputError as error:
        raise InvalidInputError(f"{source}: {error.message}") from None
    low, choices = item.metadata.get("low"), item.metadata.get("choices")
    if low is not None and result < low:
        raise InvalidInputError(f"{source}={value!r}: the smallest value is {low}")
    if choices and isinstance(result, str) and result not in choices:
        raise InvalidInputError(f"{source}={value!r} is not one of {', '.join(choices)}")
    return result


def _from_environment(environment: Mapping[str, str]) -> dict[str, Any]:
    known = {variable_of(item): item for item in FIELDS.values()}
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and value}
    if unknown := sorted(given.keys() - known.keys()):
        raise InvalidInputError(f"unknown variable {unknown[0]}; known: {', '.join(sorted(known))}")
    return {known[name].name: parsed(known[name], value, name) for name, value in given.items()}


def _from_file(path: Path) -> dict[str, Any]:
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InvalidInputError(f"config file {path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise InvalidInputError(f"config file {path} is not TOML: {error}") from None
    known = {name: item for name, item in FIELDS.items() if item.metadata.get("in_file", True)}
    if unknown := sorted(table.keys() - known.keys()):
        raise InvalidInputError(f"{path}: unknown key {unknown[0]!r}; known: {', '.join(known)}")
    return {name: parsed(known[name], value, f"{path}: {name}") for name, value in table.items()}


def _shown(item: Field[Any], value: Any) -> str:
    return "…" if item.metadata.get("secret") else repr(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value:
        raise ValueError("give a text")
    return value


def _integer(value: Any) -> int:
    if isinstance(value, bool | float):
        raise ValueError("give a whole number")
    try:
        return int(value)
    except (ValueError, TypeError):
        raise ValueError("give a whole number") from None


def _seconds(value: Any) -> float:
    try:
        seconds = -1.0 if isinstance(value, bool) else float(value)
    except (ValueError, TypeError):
        seconds = -1.0
    if not 0 < seconds < float("inf"):
        raise ValueError("give a number of seconds above 0")
    return seconds


def _boolean(value: Any) -> bool:
    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if str(value).lower() not in words:
        raise ValueError(f"give one of {', '.join(words)}")
    return words[str(value).lower()]


def _list(value: Any) -> tuple[str, ...]:
    parts = value.split(",") if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or not all(isinstance(part, str) for part in parts):
        raise ValueError("give texts, separated by commas in a variable")
    return tuple(part.strip() for part in parts if part.strip())


def _table(value: Any) -> dict[str, str]:
    if isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        pairs = [(name, target) for name, _, target in (part.partition("=") for part in _list(value))]
    if not all(isinstance(target, str) and name.strip() and target.strip() for name, target in pairs):
        raise ValueError("give NAME=MODEL, several separated by commas in a variable, a table in a file")
    return {name.strip(): target.strip() for name, target in pairs}


def _size(value: Any) -> str:
    from tercet.engine.device import parse_bytes

    parse_bytes(value)
    return str(value)


PARSERS: Mapping[str, Callable[[Any], Any]] = {
    "text": _text,
    "integer": _integer,
    "seconds": _seconds,
    "boolean": _boolean,
    "list": _list,
    "table": _table,
    "size": _size,
    "path": lambda value: Path(_text(str(value))),
}
