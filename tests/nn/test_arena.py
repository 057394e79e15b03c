"""The arena: memory is lent anew once nobody has it, views of it included, and no earlier."""

from __future__ import annotations

import torch

from tercet.nn.arena import Arena

SHAPE = torch.Size((4, 8))


def test_memory_is_lent_anew_when_its_last_view_is_gone() -> None:
    arena = Arena()
    first = arena.empty(SHAPE, torch.float32)
    place, view = first.data_ptr(), first.view(8, 4)[2:]
    del first
    second = arena.empty(SHAPE, torch.float32)
    assert second.data_ptr() != place
    view.fill_(1)
    second.fill_(2)
    assert (view == 1).all()
    del view
    assert arena.empty(SHAPE, torch.float32).data_ptr() == place
    assert arena.nbytes == 2 * 4 * 8 * 4


def test_the_smallest_block_that_is_large_enough_is_lent() -> None:
    arena = Arena()
    lent = [arena.empty(torch.Size((n, 8)), torch.float32) for n in (100, 10, 1000)]
    places = {len(x): x.data_ptr() for x in lent}
    del lent
    assert len(set(places.values())) == 3
    assert arena.empty(torch.Size((50, 8)), torch.float32).data_ptr() == places[100]
    assert arena.nbytes == 1110 * 8 * 4


def test_types_share_memory() -> None:
    arena = Arena()
    place = arena.empty(SHAPE, torch.float32).data_ptr()
    lent = arena.empty(SHAPE, torch.int64)
    assert lent.dtype == torch.int64 and lent.shape == SHAPE and lent.data_ptr() != place
    assert arena.empty(SHAPE, torch.bfloat16).data_ptr() == place
