"""Parked weights: a model's copy in the host's memory, from where a GPU fetches it at the rate of the bus."""

from __future__ import annotations

import weakref
from itertools import chain

import torch
from torch import Tensor

from tercet.nn.layout import Layout
from tercet.nn.model import Model


class Parked:
    """A model and a second copy of all its weights, in one block of host memory, page-locked if they are on a GPU.

    Page-locked memory goes to an H100 at 55 GB/s, ordinary memory at 8. It is locked after it was allocated, which
    takes a tenth of the time that CUDA's own allocation does.

    Args:
        model: one that may be in use meanwhile; its weights never change.

    Raises:
        MemoryError: there is no room for it, or no right to lock so much.
    """

    def __init__(self, model: Model) -> None:
        self.model = model
        # Sharing one tensor, two names get one place.
        self._tensors = list({id(t): t for t in chain(model.parameters(), model.buffers())}.values())
        self._device = self._tensors[0].device
        self._layout = Layout((tensor.shape, tensor.dtype) for tensor in self._tensors)
        size = self._layout.size_bytes
        self._block = _locked(size) if self._device.type == "cuda" else torch.empty(size, dtype=torch.uint8)
        for tensor, place in zip(self._tensors, self._layout.views(self._block), strict=True):
            place.copy_(tensor, non_blocking=True)
        self._wait()

    @property
    def size_bytes(self) -> int:
        """What the copy takes in the host's memory."""
        return self._block.nbytes

    def leave(self) -> None:
        """Free the device of the weights; nobody may be using the model."""
        self.model.recordings.clear()
        self.model.programs.clear()
        self._lie_in(self._block)

    def come_back(self) -> Model:
        """Return the model with its weights on the device, once they are all there; by one copy."""
        block = torch.empty(self._block.shape, dtype=torch.uint8, device=self._device)
        block.copy_(self._block, non_blocking=True)
        self._lie_in(block)  # meanwhile
        self._wait()
        return self.model

    def _lie_in(self, block: Tensor) -> None:
        for tensor, place in zip(self._tensors, self._layout.views(block), strict=True):
            tensor.data = place

    def _wait(self) -> None:
        if self._device.type == "cuda":
            torch.cuda.current_stream(self._device).synchronize()


def _locked(size: int) -> Tensor:
    """Return so many bytes of page-locked memory, unlocked again when nobody refers to them."""
    block = torch.empty(size, dtype=torch.uint8)
    block.zero_()  # so that its pages exist
    runtime = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    if int(failure := runtime.cudaHostRegister(block.data_ptr(), size, 0)):
        raise MemoryError(f"{size:,} bytes of host memory could not be page-locked: {failure}")
    weakref.finalize(block, runtime.cudaHostUnregister, block.data_ptr())
    return block
