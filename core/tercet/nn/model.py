"""A model: one backbone and the heads that read its states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor, nn

from tercet.nn import linear
from tercet.nn.batch import PackedBatch
from tercet.nn.heads import Head
from tercet.nn.packed import PackedWeight
from tercet.nn.programs import Programs
from tercet.nn.recordings import Recordings
from tercet.nn.settling import settle

LOGITS = "logits"  # what the head "score" computes before its activation, under a name like a head's


class Model(nn.Module):
    """A backbone and its heads; any subset of the heads reads one forward pass."""

    def __init__(self, backbone: nn.Module, heads: Mapping[str, Head]) -> None:
        super().__init__()
        self.backbone = backbone
        self.heads = nn.ModuleDict(heads)
        self.recordings, self.programs = Recordings(backbone), Programs(backbone)
        self._settled = False

    @torch.inference_mode()
    def forward(self, batch: PackedBatch, outputs: Iterable[str]) -> dict[str, Tensor]:
        """Return each named head's output on the device, without waiting for the device."""
        heads = {name: (self._head(name), partial(self._read, name)) for name in outputs}
        if (results := self.programs.run(batch, heads)) is not None:
            return dict(zip(heads, results, strict=True))
        hidden = self.states(batch)
        return {name: read(hidden, batch) for name, (_, read) in heads.items()}

    def states(self, batch: PackedBatch) -> Tensor:
        """Return the backbone's (T, H) states, computed at a row count that suits its products."""
        if (recorded := self.recordings.states(batch)) is not None:
            return recorded
        if (computed := self.programs.run(batch, {})) is not None:
            return computed[0]
        tokens = len(batch.input_ids)
        filled = batch.filled(linear.even_rows(tokens, self._layout)) if self._layout else batch
        hidden: Tensor = self.backbone(filled)
        self.programs.wanted = True
        return hidden[:tokens]

    @torch.inference_mode()
    def rows(self, batch: PackedBatch, outputs: Iterable[str]) -> dict[str, Sequence[Any]]:
        """Return, for each named head, one host-side value per sequence; waits for the device once."""
        results = self(batch, outputs)
        values = {name: self._head(name).rows(result, batch) for name, result in results.items()}
        if not self._settled:  # only now: the first answer is not to share the processor with it
            self._settled = True
            settle(self)
        return values

    @cached_property
    def multiplied_weights(self) -> int:
        """How many weights each token is multiplied with in the backbone."""
        products = (part for part in self.backbone.modules() if isinstance(part, linear.Linear | nn.Linear))
        return sum(part.in_features * part.out_features for part in products)

    @cached_property
    def _layout(self) -> type[PackedWeight] | None:
        return linear.layout_of(self.backbone)

    def _read(self, name: str, hidden: Tensor, batch: PackedBatch) -> Tensor:
        head = self._head(name)
        out: Tensor = head.logits(hidden, batch) if name == LOGITS else head(hidden, batch)
        return out

    def _head(self, name: str) -> Head:
        head = self.heads["score" if name == LOGITS else name]
        assert isinstance(head, Head)
        return head
