"""The models an engine has opened: each opened once, off the caller's thread, and described on request."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial

import torch

from tercet.checkpoints.checkpoint import Checkpoint
from tercet.checkpoints.spec import ModelSpec
from tercet.deadline import Deadline
from tercet.engine.device import Device
from tercet.engine.guests import Guests
from tercet.engine.lease import Lease, Resident
from tercet.engine.requests import scorings
from tercet.engine.residency import Residency
from tercet.errors import TercetError, UnsupportedModelError, reraisable
from tercet.models.registry import families
from tercet.nn import attention, linear
from tercet.nn.packed import states_dtype
from tercet.types import ModelInfo

Open = Callable[[str], Checkpoint]

_RETRY_OPEN_AFTER_S = 2.0


@dataclass(frozen=True, slots=True)
class Opened:
    """A model that is known here: its host side and its record of residency."""

    checkpoint: Checkpoint
    resident: Resident

    @property
    def spec(self) -> ModelSpec:
        """What the checkpoint's files say."""
        return self.checkpoint.spec


class Catalogue:
    """Opens models by id, each once however many ask, and remembers failures for a moment. Thread-safe.

    Args:
        open_model: reads a model's description and tokeniser; may download.
        device: where weights will go.
        residency: keeps the records.
        guests: among which are the threads that open models.
    """

    def __init__(self, open_model: Open, device: Device, residency: Residency, guests: Guests) -> None:
        self._open_model, self._device, self._residency, self._guests = open_model, device, residency, guests
        self._opening: dict[str, Future[Opened]] = {}
        self._failed_at: dict[str, float] = {}
        self._lock = threading.Lock()

    def open(self, model: str) -> Future[Opened]:
        """Return the model, opened on a thread of its own on first use.

        The future fails with ModelNotFoundError, UnsupportedModelError, CheckpointError or ModelLoadError; after a
        failure the next call a moment later tries again.
        """
        with self._lock:
            self._forget_old_failures()
            if model in self._opening:
                return self._opening[model]
            future: Future[Opened] = Future()
            self._opening[model] = future
        threading.Thread(target=self._run, args=(model, future), name=f"tercet-open-{model}", daemon=True).start()
        return future

    def get(self, model: str, deadline: Deadline) -> Opened:
        """Return the model as `open` gives it, and wait for it on this thread.

        Raises:
            DeadlineExceededError: it was still being opened.
            TercetError: it could not be opened.
        """
        return _result(model, self.open(model), deadline)

    async def aget(self, model: str, deadline: Deadline) -> Opened:
        """Await `get`."""
        opening = self.open(model)
        if not opening.done():  # all calls but the first need not go round the event loop
            with contextlib.suppress(TimeoutError, TercetError):
                async with asyncio.timeout(deadline.left_s()):
                    # Shielded: others may be waiting for the same model.
                    await asyncio.shield(asyncio.wrap_future(opening))
        return _result(model, opening, deadline)

    def _forget_old_failures(self) -> None:
        """Drop them all, oldest first, so that names that lead nowhere do not pile up."""
        oldest = time.monotonic() - _RETRY_OPEN_AFTER_S
        for model, failed_at in list(self._failed_at.items()):
            if failed_at > oldest:
                break
            self.forget(model)

    def forget(self, model: str) -> None:
        """Let the next call open the model anew."""
        self._opening.pop(model, None)
        self._failed_at.pop(model, None)

    def opened(self) -> list[Opened]:
        """Return the models that are open, the most recently used first."""
        done = [future for future in list(self._opening.values()) if future.done() and not future.exception()]
        return sorted((future.result() for future in done), key=lambda opened: -opened.resident.last_used)

    def info(self, opened: Opened) -> ModelInfo:
        """Return the description of an open model and what has happened to it."""
        spec, resident, device = opened.spec, opened.resident, self._device
        used_at = resident.last_used_at
        return ModelInfo(
            id=resident.name,
            revision=spec.revision,
            architecture=spec.architecture,
            backbone=_backbone(spec, resident),
            state=resident.state if resident.size_bytes else "resident",
            outputs=spec.outputs,
            scoring=scorings(spec),
            dims=dict(spec.dims),
            max_length=spec.max_length,
            precision=device.precision if resident.size_bytes else "none",
            kernels=_kernels(spec, device) if resident.size_bytes else {},
            size_bytes=resident.size_bytes,
            resident_bytes=resident.size_bytes if resident.state == "resident" else 0,
            pinned=resident.pinned,
            load_ms=resident.load_ms,
            last_used_s=None if used_at is None else time.monotonic() - used_at,
            hits=resident.hits,
            loads=resident.loads,
            evictions=resident.evictions,
            error=str(resident.error) if resident.state == "failed" else None,
            notes=spec.notes,
            fingerprint=opened.checkpoint.fingerprint,
        )

    def make_resident(self, opened: Opened, deadline: Deadline, act: Callable[[Lease], None]) -> ModelInfo:
        """Make a model resident, a failed one tried again, act while it cannot be evicted, and describe it.

        Raises:
            DeadlineExceededError: it was still loading.
            TercetError: it could not be loaded.
        """
        resident = opened.resident
        if resident.size_bytes:
            if resident.state == "failed":
                self._residency.unload(resident)
            future = self._residency.acquire(resident)
            try:
                lease = future.result(deadline.left_s())
            except TimeoutError:
                future.cancel()
                raise deadline.error(f"while {resident.name} was loading") from None
            act(lease)
            lease.release()
        return self.info(opened)

    def _run(self, model: str, future: Future[Opened]) -> None:
        try:
            with self._guests:
                opened = self._open(model)
            future.set_result(opened)
        except BaseException as error:
            with self._lock:
                self._failed_at[model] = time.monotonic()
            known = (
                error
                if isinstance(error, TercetError)
                else UnsupportedModelError(f"{model} could not be opened: {type(error).__name__}: {error}")
            )
            future.set_exception(known)

    def _open(self, model: str) -> Opened:
        checkpoint = self._open_model(model)
        device = self._device
        size_bytes = checkpoint.size_bytes(device.dtype)
        load = partial(checkpoint.load, device.target, device.dtype, device.cores)
        return Opened(checkpoint, self._residency.add(model, size_bytes, load))


def _result(model: str, opening: Future[Opened], deadline: Deadline) -> Opened:
    try:
        return opening.result(deadline.left_s())
    except TimeoutError:
        raise deadline.error(f"while {model} was being opened") from None
    except TercetError as error:
        raise reraisable(error) from error


def _backbone(spec: ModelSpec, resident: Resident) -> str:
    if not resident.size_bytes:
        return "none: answers without a forward pass"
    family = families().get(spec.architecture)
    return f"{family.__name__}, packed" if family else "transformers, padded"


def _kernels(spec: ModelSpec, device: Device) -> dict[str, str]:
    config = spec.config
    heads = config.get("num_attention_heads") or config.get("n_heads") or 1
    head_dim = config.get("head_dim") or config.get("hidden_size", heads) // heads
    target: torch.device = device.target
    return {
        "attention": attention.kernel_name(target, states_dtype(device.dtype), head_dim),
        "linear": linear.kernel_name(target, device.dtype),
    }
