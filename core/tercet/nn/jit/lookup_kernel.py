"""Texts, word by word, to the numbers that a table has for each word."""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.values import Int

SLOT = 5  # words of a slot: hash, where its key and its numbers begin, where they end; all zero if it is free
_SPACE = 0x20
_WORD, _BYTE = ir.IntType(64), ir.IntType(8)
_BASIS, _PRIME = 0xCBF29CE484222325, 0x100000001B3


class LookupWords(NamedTuple):
    """The words of `lookup_kernel`.

    Attributes:
        text: address of all texts' bytes, each text ended by a space. ends: of (texts) int64, where each's space is.
        slots: of (size, SLOT) int64. keys: of bytes. values: of int64.
        out: of int64, at least as many as there are bytes.
        hashes: of int64, one for each word; there are at most as many as bytes.
        found: of (texts, 2) int64: where each text's numbers end in `out`, and how many of its words are unknown.
        size: slots of the table, a power of two, some of them free.
        texts: how many.
    """

    text: int
    ends: int
    slots: int
    keys: int
    values: int
    out: int
    hashes: int
    found: int
    size: int
    texts: int


_AT = LookupWords(*range(len(LookupWords._fields)))  # where each is


@Kernel
def lookup_kernel(code: Code) -> None:
    """Write the lookup. A word's hash is FNV-1a's, 1 for 0; words of one hash are told apart by their bytes."""
    b = code.b
    text, out, hashes, found = (code.pointer(at) for at in (_AT.text, _AT.out, _AT.hashes, _AT.found))
    ends = code.words(_AT.ends)
    at, words, unknown, first, hashed = (_Variable(code) for _ in range(5))
    for variable in (at, words, first):
        variable.set(0)
    hashed.set(_BASIS)
    with code.loop(code.word(_AT.texts)) as number:
        unknown.set(0)
        with code.loop(ends(number) + 1, start=first.get()) as place:
            byte = _byte(code, text, place)
            with code.either(b.icmp_unsigned("==", byte, ir.Constant(_WORD, _SPACE))) as (then, otherwise):
                with then:
                    own = _not_zero(code, hashed.get().value)
                    _store(code, hashes, words.get(), own)
                    _take(code, own, first.get(), place, at, unknown, out)
                    words.set(words.get() + 1)
                    first.set(place + 1)
                    hashed.set(_BASIS)
                with otherwise:
                    mixed = b.mul(b.xor(hashed.get().value, byte), ir.Constant(_WORD, _PRIME))
                    hashed.set(Int(code, mixed))
        _store(code, found, number * 2, at.get().value)
        _store(code, found, number * 2 + 1, unknown.get().value)


def _take(code: Code, hash_: Any, start: Int, stop: Int, at: _Variable, unknown: _Variable, out: Any) -> None:
    """Put the numbers of the word at these bytes out, or count it as unknown."""
    b, slots = code.b, code.words(_AT.slots)
    slot = _probed(code, hash_)
    known, key, value, key_end, value_end = (slots(slot * SLOT + field) for field in range(SLOT))
    differs = _Variable(code)
    differs.set(Int(code, b.xor(known.value, hash_)))
    differs.set(Int(code, b.or_(differs.get().value, b.xor((key_end - key).value, (stop - start).value))))
    text, keys, values = code.pointer(_AT.text), code.pointer(_AT.keys), code.words(_AT.values)
    with code.when(_is_zero(code, differs.get())), code.loop(stop - start) as i:
        other = b.xor(_byte(code, text, start + i), _byte(code, keys, key + i))
        differs.set(Int(code, b.or_(differs.get().value, other)))
    with code.either(_is_zero(code, differs.get())) as (then, otherwise):
        with then:
            with code.loop(value_end, start=value) as i:
                _store(code, out, at.get() + (i - value), values(i).value)
            at.set(at.get() + (value_end - value))
        with otherwise:
            unknown.set(unknown.get() + 1)


def _probed(code: Code, hash_: Any) -> Int:
    """Return the first slot from the hash's own on that has the hash or is free."""
    b, slots, one = code.b, code.words(_AT.slots), ir.Constant(_WORD, 1)
    mask = (code.word(_AT.size) - 1).value
    place = _Variable(code)
    place.set(Int(code, b.and_(hash_, mask)))
    head, following, after = (b.append_basic_block() for _ in range(3))
    b.branch(head)
    b.position_at_end(head)
    there = slots(place.get() * SLOT).value
    ends = b.or_(b.icmp_unsigned("==", there, hash_), b.icmp_unsigned("==", there, ir.Constant(_WORD, 0)))
    b.cbranch(ends, after, following)
    b.position_at_end(following)
    place.set(Int(code, b.and_(b.add(place.get().value, one), mask)))
    b.branch(head)
    b.position_at_end(after)
    return place.get()


class _Variable:
    """A whole number that can be set anew; it stays in a register."""

    def __init__(self, code: Code) -> None:
        self._code = code
        with code.b.goto_entry_block():
            self._place = code.b.alloca(_WORD)
        self._place.type = ir.PointerType()

    def get(self) -> Int:
        return Int(self._code, self._code.b.load(self._place, typ=_WORD))

    def set(self, value: int | Int) -> None:
        self._code.b.store(self._code.number(value).value, self._place)


def _byte(code: Code, base: Any, place: Int) -> Any:
    return code.b.zext(code.b.load(code.b.gep(base, [place.value], source_etype=_BYTE), typ=_BYTE), _WORD)


def _store(code: Code, base: Any, place: Int, value: Any) -> None:
    code.b.store(value, code.b.gep(base, [place.value], source_etype=_WORD))


def _is_zero(code: Code, value: Int) -> Any:
    return code.b.icmp_unsigned("==", value.value, ir.Constant(_WORD, 0))


def _not_zero(code: Code, value: Any) -> Any:
    zero, one = ir.Constant(_WORD, 0), ir.Constant(_WORD, 1)
    return code.b.select(code.b.icmp_unsigned("==", value, zero), one, value)
