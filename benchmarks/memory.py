"""Claim: encoding 100,000 short texts in one call takes no more memory at its peak than with sentence-transformers.

The peak is the largest resident size of a process that does nothing else, one process after the other; both load the
bundled all-MiniLM-L6-v2 in float32. The texts and the vectors, 154 MB, are in both.

    python benchmarks/memory.py [--texts 100000]
"""

from __future__ import annotations

from agreement import check
from corpus import short_queries
from encode import FLOAT32, WAYS
from facts import facts
from harness import options, serve, started
from outcome import Row, finish

CONTENDERS = ("tercet", FLOAT32)
BAR = 1.0


def main() -> int:
    parser = options(__doc__, CONTENDERS, texts=100_000, rounds=1)
    asked = parser.parse_args()
    if asked.child:
        serve(WAYS[asked.child].make)
        return 0
    with started(__file__, CONTENDERS) as children:
        check(children, CONTENDERS)
    peaks, rates = {}, {}
    for name in CONTENDERS:
        texts = short_queries(asked.texts)
        with started(__file__, [name]) as alone:
            rates[name] = len(texts) / alone[name].seconds([texts])[0]
        peaks[name] = alone[name].peak_mb
        print(f"{name:24}{peaks[name]:8.0f} MB at most, {rates[name]:.0f} texts/s")
    note = f"{rates['tercet']:.0f} and {rates[FLOAT32]:.0f} texts/s"
    ours, theirs = peaks.values()
    row = Row(
        f"MiniLM, {asked.texts:,} short texts, peak memory", FLOAT32, ours, theirs, "MB", theirs / ours, BAR, note
    )
    return finish([row], facts(["tercet", "torch", "sentence-transformers", "transformers"]), asked.json)


if __name__ == "__main__":
    raise SystemExit(main())
