"""Batches of which a backbone may read no sequence's own shape: what it then computes holds for other batches too."""

from __future__ import annotations

from typing import Any

from tercet.nn.batch import PackedBatch


class HostShapeError(Exception):
    """A backbone reads the sequences' own lengths on the host, so what is recorded would hold for one batch alone."""


class ShapelessBatch(PackedBatch):
    """A batch whose sequences are not known; what is asked of their lengths raises HostShapeError."""

    @property
    def lengths(self) -> Any:
        """Raise HostShapeError."""
        raise HostShapeError

    attended = max_seqlen = runs = real_runs = extents = first_pooled = attended_index = lengths
