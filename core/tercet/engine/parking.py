"""The parking lot: what becomes of models that make room on a GPU, so that they come back at the rate of the bus."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from tercet.engine.lease import Resident
from tercet.nn.model import Model

log = logging.getLogger(__name__)


class Copy(Protocol):
    """A model's weights in the host's memory; see `nn/parked.py`."""

    @property
    def size_bytes(self) -> int:
        """What it takes there."""
        ...

    def leave(self) -> None:
        """Free the device of the weights."""
        ...

    def come_back(self) -> Model:
        """Return the model, its weights on the device again."""
        ...


class ParkingLot:
    """Copies of models' weights within a budget of host memory; the least recently used makes room.

    A copy is made while its model is in use, when the loader has nothing else to do, so that eviction copies nothing.
    All but `copy` is called with residency's lock held.

    Args:
        budget_bytes: what all copies may take; 0 for none, as on a CPU, where files are mapped.
        make: copies a model.
    """

    def __init__(self, budget_bytes: int = 0, make: Callable[[Model], Copy] | None = None) -> None:
        self._budget_bytes, self._make = budget_bytes, make
        self._refused: set[str] = set()

    def next(self, records: Mapping[str, Resident]) -> Resident | None:
        """Return a resident model that has no copy and should have one."""
        if self._make is None:
            return None
        wanted = (r for r in records.values() if r.state == "resident" and not r.copy and r.name not in self._refused)
        return max(wanted, key=lambda resident: resident.last_used, default=None)

    def copy(self, model: Model, name: str) -> Copy | None:
        """Return a copy of the model, or None, and never ask again, if there is no memory for it."""
        assert self._make is not None
        try:
            return self._make(model)
        except Exception as error:  # whatever it is, the model runs and comes back another way
            self._refused.add(name)
            log.warning("%s will be read from disk whenever it comes back to the device: %s", name, error)
            return None

    def keep(self, resident: Resident, copy: Copy, records: Mapping[str, Resident]) -> None:
        """Keep a resident model's copy, in the place of less recently used ones if need be."""
        held = sorted((r for r in records.values() if r.copy), key=lambda r: r.last_used)
        free = self._budget_bytes - sum(r.copy.size_bytes for r in held if r.copy)
        while held and free < copy.size_bytes:
            free += self.drop(held.pop(0))
        if free >= copy.size_bytes:
            resident.copy = copy
        else:
            self._refused.add(resident.name)

    @staticmethod
    def drop(resident: Resident) -> int:
        """Forget a model's copy; return the bytes freed."""
        freed = resident.copy.size_bytes if resident.copy else 0
        resident.copy = None
        if resident.state == "parked":
            resident.state = "available"
        return freed
