"""The device that models run on: which one, at what precision, within how many bytes."""

from __future__ import annotations

import gc
import logging
import re
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import psutil
import torch

from tercet.errors import InvalidInputError
from tercet.nn.packed import batch_tokens, is_rounded, packing

log = logging.getLogger(__name__)

PRECISIONS = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "int8": torch.int8,
    "int16": torch.int16,
}
_NEEDED = {"int8": "a CPU with VNNI or AMX", "int16": "an x86 CPU with AVX2 or AVX-512BW"}
_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30}
_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


@dataclass(frozen=True, slots=True)
class Device:
    """Where and how forward passes run.

    Attributes:
        target: the torch device.
        precision: a key of `PRECISIONS`, never "auto".
        budget_bytes: what the weights of all resident models may take together; activations come on top.
        max_batch_tokens: packed tokens of one forward pass; a single longer sequence still runs alone.
        workers: threads that run forward passes side by side: one for each core; two on a GPU, so that it has a pass
            to run while the host takes in the results of another.
        parking_bytes: of host memory that copies of models' weights may take; none on a CPU, which maps their files.
    """

    target: torch.device
    precision: str
    budget_bytes: int
    max_batch_tokens: int
    workers: int = 1
    parking_bytes: int = 0

    @property
    def dtype(self) -> torch.dtype:
        """The precision as torch names it; in int8 and int16, weights alone are so, and they multiply float32."""
        return PRECISIONS[self.precision]

    @property
    def cores(self) -> int:
        """How many cores a forward pass may compute with."""
        return self.workers if self.target.type == "cpu" else 1

    def lane(self) -> AbstractContextManager[object]:
        """Return a context in which a thread's work on the device runs beside that of other threads, not behind it."""
        if self.target.type == "cpu":
            return nullcontext()
        stream = torch.cuda.Stream(self.target)  # type: ignore[no-untyped-call]
        return torch.cuda.stream(stream)

    def release_cached_memory(self) -> None:
        """Give memory that nothing refers to back to the device: the first step after an out-of-memory."""
        gc.collect()
        if self.target.type == "cuda":
            torch.cuda.empty_cache()


def open_device(device: str, precision: str, memory_budget: int | str | None) -> Device:
    """Return the device, "auto" and None resolved: CUDA if there is one; float32 on CPU, bfloat16 on CUDA; 85 % of
    what is free on a GPU, half of the memory on a CPU.

    Raises:
        InvalidInputError: no such device or precision here, or a budget that is not a size.
    """  # noqa: D205
    target = _target(device)
    on_gpu = target.type == "cuda"
    if precision == "auto":
        precision = "bfloat16" if on_gpu else "float32"
    if precision not in PRECISIONS:
        raise InvalidInputError(f"precision {precision!r} is not one of auto, {', '.join(PRECISIONS)}")
    if (needed := lacking(target, precision)) is not None:
        others = ", ".join(name for name in PRECISIONS if lacking(target, name) is None)
        raise InvalidInputError(f"{precision} needs {needed}, which {target} is not or has not; use one of {others}")
    budget = _default_budget(target) if memory_budget is None else parse_bytes(memory_budget)
    if on_gpu:
        # Measured on an H100: larger batches gain 2 % at most, and what passes between products leaves its cache.
        return Device(target, precision, budget, 16_384, workers=2, parking_bytes=_half_of_memory())
    if precision != "float32" and not packing(PRECISIONS[precision]):
        log.warning("%s has no fast kernel on this processor: expect it to be slower than float32", precision)
    return Device(target, precision, budget, batch_tokens(PRECISIONS[precision]), workers=torch.get_num_threads())


def lacking(target: torch.device, precision: str) -> str | None:
    """Return what a precision needs that the device is not or has not, or None if it runs there, be it slowly."""
    dtype = PRECISIONS[precision]
    runs = not is_rounded(dtype) or (target.type == "cpu" and packing(dtype) is not None)
    return None if runs else _NEEDED[precision]


def parse_bytes(size: int | str) -> int:
    """Return a size such as 8_000_000, "8GiB" or "500 MB" in bytes.

    Raises:
        InvalidInputError: not a positive size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]*)\s*", str(size))
    factor = _UNITS.get(match[2].lower()) if match else None
    if match is None or factor is None or isinstance(size, bool) or float(match[1]) <= 0:
        raise InvalidInputError(
            f"{size!r} is not a memory size; give bytes, or a number with KiB, MiB, GiB, KB, MB or GB"
        )
    return int(float(match[1]) * factor)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the error says that an allocation failed, on either kind of device."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and ("not enough memory" in str(error) or "can't allocate" in str(error))


def _target(device: str) -> torch.device:
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        target = torch.device(device)
    except (RuntimeError, TypeError) as error:
        raise InvalidInputError(f"device {device!r} is not one of auto, cpu, cuda, cuda:N") from error
    if target.type not in ("cpu", "cuda"):
        raise InvalidInputError(f"device {device!r} is not supported; use auto, cpu, cuda or cuda:N")
    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise InvalidInputError(f"device {device!r} is not there; torch sees {torch.cuda.device_count()} CUDA devices")
    return torch.device("cuda", target.index or 0) if target.type == "cuda" else target


def _default_budget(target: torch.device) -> int:
    if target.type == "cuda":
        free, _ = torch.cuda.mem_get_info(target)
        return int(free * 0.85)
    return _half_of_memory()


def _half_of_memory() -> int:
    return int(min(psutil.virtual_memory().total, _cgroup_limit()) / 2)


def _cgroup_limit() -> float:
    """Return the container's memory limit, infinite where there is none."""
    try:
        text = _CGROUP_LIMIT.read_text().strip()
    except OSError:
        return float("inf")
    return float("inf") if text == "max" else float(text)
