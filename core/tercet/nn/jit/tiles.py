"""Tiles: the registers of AMX, 16 rows of 64 bytes each, and what a processor does with whole ones (Intel's SDM, 3)."""

from __future__ import annotations

import ctypes
import platform
import struct
import sys
from collections.abc import Iterable
from functools import cache
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from tercet.nn.jit.code import Code, vector_shape
from tercet.nn.jit.values import Int, Memory

ROWS, WORDS = 16, 16  # of a tile; a word has four bytes
TILE = ROWS * WORDS  # words
COUNT = 8  # tiles that there are
_HEIGHTS = 48  # byte of what sets tiles up that says how many rows the first one has
_BYTE, _WORD = ir.IntType(8), ir.IntType(64)
_NOTHING, _POINTER = ir.VoidType(), ir.PointerType()
_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA = 158, 0x1023, 18  # Linux on x86-64: `arch_prctl`, ARCH_REQ_XCOMP_PERM


@cache
def has_tiles() -> bool:
    """Whether the processor has tiles of bfloat16 and int8, and the system lets this process use them from now on."""
    features = llvm.get_host_cpu_features()
    if vector_shape() != (WORDS, 32) or not all(features.get(f"amx-{name}") for name in ("tile", "bf16", "int8")):
        return False
    if sys.platform != "linux" or platform.machine() != "x86_64":
        return False
    refused: int = ctypes.CDLL(None).syscall(_ARCH_PRCTL, _ASK_FOR_STATE, _TILE_DATA)
    return not refused


def require_tiles() -> None:
    """Raise a RuntimeError where `has_tiles` does not hold: to use tiles all the same would end the process."""
    if not has_tiles():
        raise RuntimeError("this processor has no tiles, or the system does not let them be used")


class Tiles:
    """Writes what is done with tiles, each of which is known by its number, in a function that has set them up."""

    def __init__(self, code: Code) -> None:
        self.code = code

    def set_up(self, low: Iterable[int] = (), rows: int | Int = ROWS) -> None:
        """Have all tiles hold 16 rows of 64 bytes, but for some that hold so many rows."""
        code, b = self.code, self.code.b
        shape = bytes([1, 0]) + bytes(14) + bytes([64, 0]) * COUNT + bytes(16) + bytes([ROWS]) * COUNT + bytes(8)
        held = code.scratch(WORDS)
        b.store(ir.Constant(code.integers, list(struct.unpack("<16i", shape))), held.address, align=64)
        for tile in low:
            place = b.gep(held.address, [code.number(_HEIGHTS + tile).value], source_etype=_BYTE)
            b.store(b.trunc(code.number(rows).value, _BYTE), place)
        self._do("ldtilecfg", held.address)

    def release(self) -> None:
        """Give them up, so that the system has less to save for this thread."""
        self._do("tilerelease")

    def clear(self, tile: int) -> None:
        """Fill a tile with zeros."""
        self._do("tilezero", tile)

    def load(self, tile: int, memory: Memory, offset: int | Int, step: int | Int = WORDS) -> None:
        """Read a tile's rows, which are `step` words apart."""
        self._do("tileloadd64", tile, memory.at(offset), (self.code.number(step) * 4).value)

    def store(self, tile: int, memory: Memory, offset: int | Int, step: int = WORDS) -> None:
        """Write a tile's rows, which are `step` words apart."""
        self._do("tilestored64", tile, memory.at(offset), (self.code.number(step) * 4).value)

    def add_product(self, sums: int, rows: int, columns: int) -> None:
        """Add to sums[i, j] those of all products of row i's bfloat16 with column j's, in float32."""
        self._do("tdpbf16ps", sums, rows, columns)

    def add_bytes(self, sums: int, rows: int, columns: int) -> None:
        """Add to sums[i, j] those of all products of row i's uint8 with column j's int8, in int32."""
        self._do("tdpbusd", sums, rows, columns)

    def keep_awake(self) -> None:
        """Subtract a vector, for a processor lays their floats to sleep after some 2,500 cycles; waking takes 900."""
        kind = ir.FunctionType(_NOTHING, [])
        self.code.b.asm(kind, "vsubps %zmm31, %zmm31, %zmm31", "~{xmm31}", [], True)

    def _do(self, name: str, *given: Any) -> None:
        values = [ir.Constant(_BYTE, value) if isinstance(value, int) else value for value in given]
        kinds = [_POINTER if isinstance(value.type, ir.PointerType) else value.type for value in values]
        self.code.b.call(self.code.function(f"llvm.x86.{name}", _NOTHING, *kinds), values)
