"""An arena: memory for what lies between the operations of a pass, used anew once nothing refers to it."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef


class Arena:
    """Hands out tensors whose memory stays where it is for as long as the arena lives."""

    def __init__(self) -> None:
        self._blocks: list[tuple[Tensor, StorageWeakRef | None]] = []  # with whoever has each, or had it last

    @property
    def nbytes(self) -> int:
        """How many bytes it holds."""
        return sum(block.nbytes for block, _ in self._blocks)

    def empty(self, shape: torch.Size, dtype: torch.dtype) -> Tensor:
        """Return a tensor of this shape, its memory the smallest block that is free and large enough, or a new one."""
        nbytes = max(1, shape.numel() * dtype.itemsize)
        free = [i for i, (block, user) in enumerate(self._blocks) if user is None or user.expired()]  # type: ignore[no-untyped-call]
        fitting = [i for i in free if self._blocks[i][0].nbytes >= nbytes]
        if not fitting:
            fitting = [len(self._blocks)]
            self._blocks.append((torch.empty(nbytes, dtype=torch.uint8), None))
        place = min(fitting, key=lambda i: self._blocks[i][0].nbytes)
        block = self._blocks[place][0]
        lent = torch.frombuffer(block.numpy()[:nbytes], dtype=dtype).view(shape)
        self._blocks[place] = block, StorageWeakRef(lent.untyped_storage())  # type: ignore[no-untyped-call]
        return lent
