"""Rotary angles by what defines them: scores depend on distance alone, and on nothing else in the batch."""

from __future__ import annotations

import math

import numpy as np
import torch

from tercet.nn.batch import PackedBatch, TokenSequence
from tercet.nn.rotary import DynamicRotary, Rotary, frequencies, ntk, rotate, yarn


def _batch(*lengths: int) -> PackedBatch:
    return PackedBatch.of([TokenSequence(np.zeros(n, np.int64)) for n in lengths])


def test_frequencies_fall_from_one_by_equal_ratios() -> None:
    expected = torch.tensor([100.0 ** (-2 * i / 8) for i in range(4)])
    torch.testing.assert_close(frequencies(8, 100.0), expected)


def test_frequencies_have_values_even_where_modules_have_none() -> None:
    with torch.device("meta"):
        built = [frequencies(8, 1e4), ntk(8, 1e4, 2.0), ntk(8, 1e4, 2.0, 0.75), yarn(8, 1e4, 4.0, 64, 32, 1)]
    assert all(turns.device.type == "cpu" and turns[0] > 0.2 for turns in built)


def test_scores_depend_on_the_distance_alone() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 16, generator=generator).double()
    angles = Rotary(frequencies(16, 1e4)).angles(_batch(50), torch.float64)
    turned_q, turned_k = (rotate(x.expand(50, 1, 16), angles)[:, 0] for x in (q, k))
    scores = turned_q @ turned_k.T
    for distance in (-20, 0, 3, 49):
        diagonal = scores.diagonal(distance)
        torch.testing.assert_close(diagonal, diagonal[:1].expand_as(diagonal), rtol=1e-5, atol=1e-5)


def test_dimension_i_turns_with_dimension_i_plus_half() -> None:
    x = torch.zeros(3, 1, 6)
    x[:, 0, 1] = 1
    angles = Rotary(torch.tensor([0.3, 0.7])).angles(_batch(3), torch.float32)
    expected = torch.zeros(3, 6)
    expected[:, 1] = torch.tensor([math.cos(0.7 * p) for p in range(3)])
    expected[:, 3] = torch.tensor([math.sin(0.7 * p) for p in range(3)])
    torch.testing.assert_close(rotate(x, angles)[:, 0], expected)


def test_dimensions_past_the_rotated_ones_stay() -> None:
    x = torch.randn(5, 2, 10, generator=torch.Generator().manual_seed(1))
    turned = rotate(x, Rotary(frequencies(6, 1e4)).angles(_batch(5), torch.float32))
    assert torch.equal(turned[..., 6:], x[..., 6:])
    torch.testing.assert_close(turned.norm(dim=-1), x.norm(dim=-1))


def test_positions_begin_anew_with_each_sequence() -> None:
    rotary = Rotary(frequencies(8, 1e4))
    together = rotary.angles(_batch(4, 7), torch.float32)
    apart = [rotary.angles(_batch(n), torch.float32) for n in (4, 7)]
    for mine, parts in zip(together, zip(*apart, strict=True), strict=True):
        assert torch.equal(mine, torch.cat(parts))


def test_magnitude_multiplies_cosines_and_sines() -> None:
    plain, scaled = (Rotary(frequencies(8, 1e4), m).angles(_batch(6), torch.float32) for m in (1.0, 1.5))
    assert all(torch.equal(a * 1.5, b) for a, b in zip(plain, scaled, strict=True))


def test_a_long_neighbour_leaves_a_short_text_alone() -> None:
    rotary, plain = DynamicRotary(8, 1e4, 4.0, limit=16), Rotary(frequencies(8, 1e4))
    cos, _ = rotary.angles(_batch(10, 40, 16), torch.float32)
    assert torch.equal(cos[:10], plain.angles(_batch(10), torch.float32)[0])
    assert torch.equal(cos[50:], plain.angles(_batch(16), torch.float32)[0])
    slower = 1e4 * (4.0 * 40 / 16 - 3.0) ** (8 / 6)
    torch.testing.assert_close(cos[10:50], Rotary(frequencies(8, slower)).angles(_batch(40), torch.float32)[0])


def test_yarn_keeps_fast_turns_and_stretches_slow_ones() -> None:
    plain, scaled = frequencies(64, 1e4), yarn(64, 1e4, 4.0, 4096, 32, 1)
    assert torch.equal(scaled[:10], plain[:10])
    torch.testing.assert_close(scaled[-4:], plain[-4:] / 4)
    assert ((scaled <= plain) & (scaled >= plain / 4 * (1 - 1e-6))).all()


def test_angles_off_a_table_are_those_of_the_positions() -> None:
    """However long the texts are that come first; a table that was read once stays where it is."""
    rotary, width = Rotary(frequencies(64, 1e4), 1.5), 64
    places: list[int] = []
    for length in (5, 3_000, 40):
        turns = torch.arange(length)[:, None] * rotary.frequencies
        cos, sin = rotary.angles(_batch(length), torch.float32)
        assert cos.shape == sin.shape == (length, 1, width)
        assert torch.equal(cos[:, 0], torch.cat((turns, turns), -1).cos() * 1.5)
        assert torch.equal(sin[:, 0], torch.cat((turns, turns), -1).sin() * 1.5)
        places.append(len(rotary._tables))
    assert places in ([1, 2, 2], [0, 0, 0])  # none without vectors
