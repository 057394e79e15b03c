"""Weights: from safetensors files to a module's parameters, strictly and without a second copy."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from tercet.errors import CheckpointError
from tercet.nn.linear import Linear

_OLD_NAMES = {".gamma": ".weight", ".beta": ".bias"}  # LayerNorm's in checkpoints made from TensorFlow


@dataclass(frozen=True)
class Source:
    """Where part of a module's weights lies and what the files call it.

    Attributes:
        files: safetensors files, or `.pt` side files (read with `weights_only=True`).
        renames: checkpoint path → module path, the longest match wins; see `models.registry.Backbone`.
        prefixes: removed from the front of checkpoint names where present.
        ignored: checkpoint paths without a use.
        tied: parameters that share another one's tensor when the files store none of their own.
        rows: parameters that hold only some rows of what is stored or shared, and which.
    """

    files: tuple[Path, ...]
    renames: Mapping[str, str]
    prefixes: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    tied: Mapping[str, str] = field(default_factory=dict)
    rows: Mapping[str, tuple[int, ...]] = field(default_factory=dict)

    def target(self, name: str) -> tuple[str, int] | None:
        """Return the parameter that a checkpoint's tensor belongs to and which part of it, or None."""
        for pattern, new in self._patterns:
            if match := pattern.match(name):
                path, _, part = new.partition(":")
                for number in match.groups():
                    path = path.replace("*", number, 1)
                return path + name[match.end() :], int(part or 0)
        return None

    def rows_of(self, parameter: str, tensor: Tensor) -> Tensor:
        """Return what the parameter holds of a stored tensor.

        Raises:
            CheckpointError: the tensor has no such row.
        """
        rows = self.rows.get(parameter)
        if rows is None:
            return tensor
        if max(rows) >= len(tensor):
            raise CheckpointError(f"row {max(rows)} is wanted of {parameter}, which is stored with {len(tensor)} rows")
        return tensor[list(rows)]

    def ignores(self, name: str) -> bool:
        """Whether a tensor of this name has no use here."""
        return any(name == path or name.startswith(f"{path}.") for path in self.ignored)

    @cached_property
    def _patterns(self) -> list[tuple[re.Pattern[str], str]]:
        longest_first = sorted(self.renames.items(), key=lambda item: -len(item[0]))
        return [(re.compile(re.escape(old).replace(r"\*", r"(\d+)") + r"(?=\.|$)"), new) for old, new in longest_first]


def load_weights(
    module: nn.Module, sources: Sequence[Source], device: torch.device, dtype: torch.dtype | None = None
) -> None:
    """Give every parameter of `module` (on the meta device) its weights, in `dtype` or, by default, its own type.

    On a CPU, a tensor that is stored in that type already is used where it lies in the mapped file.

    Raises:
        CheckpointError: a tensor is missing, left over, damaged or of the wrong shape; all such are named.
    """
    parameters = dict(module.named_parameters())
    wanted = {name: parameter.shape for name, parameter in parameters.items()}
    parts: dict[str, dict[int, Tensor]] = {}
    left_over: list[str] = []
    for source in sources:
        for name, tensor in _tensors(source):
            target, part = source.target(name) or (name, 0)
            if target in wanted:
                parts.setdefault(target, {})[part] = source.rows_of(target, tensor)
            elif not source.ignores(name):
                left_over.append(name)
        for name, shared in source.tied.items():
            if name in wanted and shared in parts:
                parts.setdefault(name, {i: source.rows_of(name, tensor) for i, tensor in parts[shared].items()})
    _check(wanted, parts, left_over, sources)
    for name, tensors in parts.items():
        _assign(module, name, [tensors[i] for i in sorted(tensors)], device, dtype or parameters[name].dtype)


def size_bytes(files: Sequence[Path]) -> Mapping[str, int]:
    """Return the element counts of all tensors by stored dtype, read from the headers only."""
    counts: dict[str, int] = {}
    for file in files:
        with _opened(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118 - a safetensors file, not a dict
                part = tensors.get_slice(key)
                size = 1
                for extent in part.get_shape():
                    size *= extent
                counts[part.get_dtype()] = counts.get(part.get_dtype(), 0) + size
    return counts


def pickled_tensors(file: Path) -> Mapping[str, Tensor]:
    """Return the tensors of a file that torch pickled; no code of it is ever run.

    Raises:
        CheckpointError: it is damaged, wants to run code, or holds anything but named tensors.
    """
    try:
        tensors = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle fails with whatever its bytes happen to spell
        reason = str(error).strip().split("\n")[0]
        raise CheckpointError(f"{file} is not a readable file of tensors: {type(error).__name__} {reason}") from error
    if not isinstance(tensors, Mapping) or not all(isinstance(tensor, Tensor) for tensor in tensors.values()):
        raise CheckpointError(f"{file} holds something else than named tensors")
    return tensors


def _opened(file: Path) -> safe_open:
    """Return the mapped file; its header's extents are checked against its size before any tensor is touched."""
    try:
        return safe_open(file, framework="pt", device="cpu")
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{file} is not a readable safetensors file: {error}") from error


def _tensors(source: Source) -> Iterator[tuple[str, Tensor]]:
    """Yield (name without prefix, tensor) from all files of a source."""
    for file in source.files:
        if file.suffix == ".pt":
            yield from pickled_tensors(file).items()
            continue
        with _opened(file) as tensors:
            for key in tensors.keys():  # noqa: SIM118
                yield _stripped(key, source.prefixes), tensors.get_tensor(key)


def _stripped(name: str, prefixes: tuple[str, ...]) -> str:
    for old, new in _OLD_NAMES.items():
        name = name.removesuffix(old) + new if name.endswith(old) else name
    prefix = next((p for p in prefixes if name.startswith(p)), "")
    return name.removeprefix(prefix)


def _joined(tensors: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> Tensor:
    if len(tensors) == 1:
        return tensors[0].to(device).to(dtype)  # in this order: a GPU changes the type faster
    rows = sum(len(t) for t in tensors)
    joined = torch.empty((rows, *tensors[0].shape[1:]), device=device, dtype=dtype)
    for slot, tensor in zip(torch.split(joined, [len(t) for t in tensors]), tensors, strict=True):
        slot.copy_(tensor.to(device))
    return joined


def _check(
    wanted: Mapping[str, torch.Size],
    parts: Mapping[str, Mapping[int, Tensor]],
    left_over: Sequence[str],
    sources: Sequence[Source],
) -> None:
    problems = [f"missing: {name}" for name in wanted if name not in parts]
    problems += [f"unexpected: {name}" for name in left_over]
    for name, tensors in parts.items():
        shapes = [tuple(t.shape) for t in tensors.values()]
        if not _fit(shapes, tuple(wanted[name])):
            stored = " + ".join(map(str, shapes))
            problems.append(f"{name}: stored as {stored}, the configuration says {tuple(wanted[name])}")
    if problems:
        files = ", ".join(str(file) for source in sources for file in source.files)
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(f"the weights in {files} do not fit the model: {shown}")


def _fit(shapes: Sequence[tuple[int, ...]], wanted: tuple[int, ...]) -> bool:
    """Whether tensors of these shapes, laid on top of each other, make the wanted one."""
    if len(shapes) == 1:
        return shapes[0] == wanted
    alike = all(len(shape) == len(wanted) and shape[1:] == wanted[1:] for shape in shapes)
    return alike and sum(shape[0] for shape in shapes) == wanted[0]


def _assign(module: nn.Module, name: str, tensors: Sequence[Tensor], device: torch.device, dtype: torch.dtype) -> None:
    path, _, leaf = name.rpartition(".")
    owner = module.get_submodule(path)
    stored = all(tensor.device == device and tensor.dtype == dtype for tensor in tensors)
    if isinstance(owner, Linear) and leaf == "weight" and len(tensors) > 1 and stored:
        owner.take(tensors)
    else:
        setattr(owner, leaf, nn.Parameter(_joined(tensors, device, dtype), requires_grad=False))
