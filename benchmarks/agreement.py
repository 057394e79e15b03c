"""No speed is claimed for a wrong answer: the contenders must agree before they are timed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from corpus import mixed_texts, short_queries
from harness import Child
from numpy.typing import ArrayLike, NDArray

LEAST = 0.9999
TEXTS = mixed_texts(6, seed=7) + short_queries(2, seed=7)


def check(
    children: Mapping[str, Child], exact: Iterable[str], texts: list[str] = TEXTS, least: float = LEAST
) -> dict[str, float]:
    """Return each other contender's least cosine to the first's answers; end the script if an exact one is off."""
    answers = {name: child.answers(texts) for name, child in children.items()}
    ours = next(iter(answers))
    cosines = {name: least_cosine(answers[ours], theirs) for name, theirs in answers.items() if name != ours}
    for name, cosine in cosines.items():
        print(f"agreement of {ours} and {name}: least cosine {cosine:.7f}")
    off = [name for name in cosines if name in exact and not cosines[name] >= least]  # so that NaN is off too
    if off:
        raise SystemExit(f"{', '.join(off)}: a cosine below {least}, so nothing is timed")
    return cosines


def least_cosine(ours: ArrayLike, theirs: ArrayLike) -> float:
    """Return the least cosine between rows, what all rows have in common taken away.

    Random weights give all texts nearly one vector; without that part only what tells them apart counts. A single row,
    such as the scores of a list, is taken as it is but for its mean.
    """
    a, b = _centred(ours), _centred(theirs)
    return float(((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))).min())


def _centred(rows: ArrayLike) -> NDArray[Any]:
    full: NDArray[Any] = np.array(rows, np.float64, ndmin=2)
    full -= full.mean(0) if len(full) > 1 else full.mean()
    return full
