"""A table from words to token ids, read by compiled code that does not hold the interpreter's lock."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from itertools import accumulate
from threading import Lock

import numpy as np

from tercet.checkpoints.template import Ids
from tercet.nn.jit.code import vector_shape
from tercet.nn.jit.lookup_kernel import SLOT, LookupWords, lookup_kernel

MOST = 1 << 16  # words
LONGEST = 48  # bytes of a word; what is longer hardly comes again
_WORD = 8  # bytes
_PORTION = 1 << 18  # bytes of texts, 0.3 ms, after which whoever waits has its turn: an event loop, for instance
_BRIEF = 1 << 12  # bytes of texts, 5 µs
_KEY_BYTES, _IDS = MOST * 12, MOST * 4  # of all words together


class WordTable:
    """Token ids by word, in UTF-8; when it would be too full it begins anew. Thread-safe.

    Empty memory is not taken; full, it is 8 MB.
    """

    def __init__(self) -> None:
        lookup_kernel()  # compiled here, and not before a first text
        self._lock = Lock()
        self._scratch, self._scratch_at = np.empty(0, np.int64), 0
        self._given = np.empty(len(LookupWords._fields), np.int64)
        self._given_at = self._given.ctypes.data
        self._count = self._key_end = self._value_end = 0
        self._clear()

    @staticmethod
    def works() -> bool:
        """Whether this system lets code be made for it."""
        return vector_shape() is not None

    def __len__(self) -> int:
        return self._count

    def look_up(self, texts: Sequence[bytes]) -> list[Ids | None]:
        """Return each text's ids, one word's after the other's; None for a text with a word that is not here."""
        return [ids for portion in _portions(texts) for ids in self._looked_up(portion)]

    def _looked_up(self, texts: Sequence[bytes]) -> list[Ids | None]:
        with self._lock:
            found, ids, _ = self._read(texts)
            stops, unknown = found[::2].tolist(), found[1::2].tolist()
            ids = ids[: stops[-1]].copy()
        starts = [0, *stops[:-1]]
        return [
            None if missing else ids[start:stop] for start, stop, missing in zip(starts, stops, unknown, strict=True)
        ]

    def lacks(self, words: Sequence[bytes]) -> list[bool]:
        """Return of each word whether it is not here."""
        with self._lock:
            unknown: list[bool] = (self._read(words)[0][1::2] > 0).tolist()
            return unknown

    def add(self, words: Sequence[bytes], ids: Sequence[Ids]) -> None:
        """Keep the ids of words without a space, none longer than `LONGEST` nor with more ids than bytes."""
        lengths = np.array([(len(word), len(numbers)) for word, numbers in zip(words, ids, strict=True)], np.int64)
        with self._lock:
            amounts = (len(words), *lengths.sum(0).tolist())
            if not self._holds(*amounts):
                self._clear()
                if not self._holds(*amounts):
                    return
            ends = np.cumsum(lengths, 0) + np.array((self._key_end, self._value_end))
            hashes = self._read(words)[2][: len(words)]
            places = self._places(hashes.tolist())
            self._slots[places] = np.stack((hashes, *(ends - lengths).T, *ends.T), 1)
            key_end, value_end = ends[-1].tolist()
            self._keys[self._key_end : key_end] = np.frombuffer(b"".join(words), np.uint8)
            self._values[self._value_end : value_end] = np.concatenate(ids)
            self._key_end, self._value_end, self._count = key_end, value_end, self._count + len(words)

    def _read(self, texts: Sequence[bytes]) -> tuple[Ids, Ids, Ids]:
        """Return for each text where its ids end and how many of its words are unknown; all ids; and each word's hash.

        The next call overwrites them. A query is read among other work, with nothing of this in cache, where each
        operation of numpy counts.
        """
        joined = b" ".join((*texts, b""))
        count, size = len(texts), len(joined)
        found, out, hashes, end = count, 3 * count, 3 * count + size, 3 * count + 2 * size
        if len(self._scratch) < end:
            self._scratch = np.empty(2 * end, np.int64)
            self._scratch_at = self._scratch.ctypes.data
        self._scratch[:count] = [*accumulate(map(len, texts), lambda end, length: end + 1 + length)]
        text = ctypes.cast(ctypes.c_char_p(joined), ctypes.c_void_p).value
        written = (self._scratch_at + place * _WORD for place in (out, hashes, found))
        given = (text, self._scratch_at, *self._tables_at, *written, len(self._slots), count)
        self._given[:] = LookupWords._make(given)
        kernel = lookup_kernel()
        (kernel.run_held if size < _BRIEF else kernel.run)(self._given_at)
        return self._scratch[found:out], self._scratch[out:hashes], self._scratch[hashes:end]

    def _places(self, hashes: Sequence[int]) -> list[int]:
        """Take a slot for each hash, and return which."""
        taken, mask = self._slots[:, 0], len(self._slots) - 1
        places = []
        for hash_ in hashes:
            place = hash_ & mask
            while taken[place]:
                place = (place + 1) & mask
            taken[place] = hash_
            places.append(place)
        return places

    def _holds(self, words: int, key_bytes: int, ids: int) -> bool:
        asked = (self._count + words, self._key_end + key_bytes, self._value_end + ids)
        return all(size <= most for size, most in zip(asked, (MOST, _KEY_BYTES, _IDS), strict=True))

    def _clear(self) -> None:
        self._count = self._key_end = self._value_end = 0
        self._slots = np.zeros((1 << MOST.bit_length(), SLOT), np.int64)
        self._keys, self._values = np.zeros(_KEY_BYTES, np.uint8), np.zeros(_IDS, np.int64)
        slots, keys, values = (table.ctypes.data for table in (self._slots, self._keys, self._values))
        self._tables_at = slots, keys, values


def _portions(texts: Sequence[bytes]) -> Iterator[Sequence[bytes]]:
    """Yield the texts in turn, as many at a time as make a portion."""
    first, size = 0, 0
    for last, text in enumerate(texts):
        if size and size + len(text) > _PORTION:
            yield texts[first:last]
            first, size = last, 0
        size += len(text)
    if first < len(texts):
        yield texts[first:]
