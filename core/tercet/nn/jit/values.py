"""Values of vector code: what its numbers, vectors and memory can do.

Each lane of a vector computes by itself and in the order written, so a result does not depend on what stands beside it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from llvmlite import ir

if TYPE_CHECKING:
    from tercet.nn.jit.code import Code

INT, FLOAT = ir.IntType(32), ir.FloatType()
_HALF = ir.IntType(16)
_WHOLE = 1.5 * 2**23  # added to a number, it leaves no fraction, and the number's whole part in the low bits


@dataclass(frozen=True)
class Int:
    """A whole number of the code: an index, a count, an offset; one that is divided is not negative."""

    code: Code
    value: Any

    def _with(self, other: int | Int, operation: Callable[..., Any]) -> Int:
        return Int(self.code, operation(self.value, self.code.number(other).value))

    def __add__(self, other: int | Int) -> Int:
        return self._with(other, self.code.b.add)

    def __sub__(self, other: int | Int) -> Int:
        return self._with(other, self.code.b.sub)

    def __mul__(self, other: int | Int) -> Int:
        return self._with(other, self.code.b.mul)

    def __floordiv__(self, other: int | Int) -> Int:
        return self._with(other, self.code.b.udiv)

    def __mod__(self, other: int | Int) -> Int:
        return self._with(other, self.code.b.urem)

    def __rshift__(self, other: int | Int) -> Int:
        return self._with(other, self.code.b.lshr)

    def __gt__(self, other: int | Int) -> Any:
        return self.code.b.icmp_signed(">", self.value, self.code.number(other).value)

    def least(self, other: int | Int) -> Int:
        """Return the smaller one."""
        return Int(self.code, self.code.b.select(self > other, self.code.number(other).value, self.value))

    def most(self, other: int | Int) -> Int:
        """Return the larger one."""
        return Int(self.code, self.code.b.select(self > other, self.value, self.code.number(other).value))

    def where(self, condition: Any, otherwise: Int) -> Int:
        """Return the number, or another where a condition does not hold."""
        return Int(self.code, self.code.b.select(condition, self.value, otherwise.value))

    def vector(self) -> Vector:
        """Return a vector full of it."""
        return self.code.splat(self.code.b.sitofp(self.value, FLOAT))


@dataclass(frozen=True)
class Vector:
    """A float32 for each lane."""

    code: Code
    value: Any

    def __add__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.b.fadd(self.value, other.value))

    def __sub__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.b.fsub(self.value, other.value))

    def __mul__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.b.fmul(self.value, other.value))

    def __truediv__(self, other: Vector) -> Vector:
        return Vector(self.code, self.code.b.fdiv(self.value, other.value))

    def __neg__(self) -> Vector:
        return Vector(self.code, self.code.b.fneg(self.value))

    def at_least(self, least: Vector) -> Vector:
        """Return the larger number of each lane, what is not a number staying so."""
        b = self.code.b
        return Vector(self.code, b.select(b.fcmp_ordered(">", least.value, self.value), least.value, self.value))

    def at_most(self, most: Vector) -> Vector:
        """Return the smaller number of each lane, what is not a number staying so."""
        b = self.code.b
        return Vector(self.code, b.select(b.fcmp_ordered("<", most.value, self.value), most.value, self.value))

    def where(self, mask: Any, otherwise: Vector) -> Vector:
        """Return the vector, and `otherwise` in the lanes that the mask leaves out."""
        return Vector(self.code, self.code.b.select(mask, self.value, otherwise.value))

    def across(self, operation: Callable[[Vector, Vector], Vector]) -> Vector:
        """Return all lanes combined by an operation, in each lane."""
        whole = self
        for distance in self.distances():
            whole = operation(whole, whole.partner(distance))
        return whole

    def distances(self) -> Iterator[int]:
        """Yield the distances between lanes over which partners, one after the other, bring all lanes together."""
        yield from (self.code.lanes >> shift for shift in range(1, self.code.lanes.bit_length()))

    def partner(self, distance: int) -> Vector:
        """Return each lane's partner at a distance that is a power of two."""
        partners = ir.Constant(self.code.integers, [lane ^ distance for lane in range(self.code.lanes)])
        return Vector(self.code, self.code.b.shuffle_vector(self.value, self.value, partners))

    def equals(self, other: Vector) -> Any:
        """Return the mask of the lanes that are equal."""
        return self.code.b.fcmp_ordered("==", self.value, other.value)

    def magnitude(self) -> Vector:
        """Return each number without its sign."""
        b, bits = self.code.b, ir.Constant(self.code.integers, [2**31 - 1] * self.code.lanes)
        return Vector(self.code, b.bitcast(b.and_(b.bitcast(self.value, self.code.integers), bits), self.code.vector))

    def gelu(self) -> Vector:
        """Return x · Φ(x), Φ being the normal distribution, to 3e-7, and to 2e-7 of x beyond ±1.

        It is max(x, 0) − |x| · ½ erfc(|x| / √2), whose last factor is 2 to the power of a polynomial in |x|, fitted to
        the least greatest error of the whole.
        """
        code, size = self.code, self.magnitude()
        near, power = size.at_most(code.constant(_FADED)), code.constant(_FADING[0])
        for coefficient in _FADING[1:]:
            power = code.fma(power, near, code.constant(coefficient))
        return code.fma(-size, power.exp2_in_range(), self.at_least(code.constant(0.0)))

    def exp2(self) -> Vector:
        """Return 2 to the power of each number, at most 127, to 2 units in the last place; as if from −126 below it."""
        return self.at_least(self.code.constant(-126.0)).exp2_in_range()

    def exp2_in_range(self) -> Vector:
        """Return the same, of numbers from −126 to 127.

        2ˣ = 2ⁿ · 2ᶠ with n whole and f within ½ of zero, 2ᶠ by the polynomial of Cephes (exp2f).
        """
        code, b, whole = self.code, self.code.b, self.code.constant(_WHOLE)
        moved = self + whole
        rest, power = self - (moved - whole), code.constant(_EXP2[0])
        for coefficient in _EXP2[1:]:
            power = code.fma(power, rest, code.constant(coefficient))
        shift, one = (ir.Constant(code.integers, [n] * code.lanes) for n in (23, 127 << 23))
        scale = b.add(b.shl(b.bitcast(moved.value, code.integers), shift), one)
        return power * Vector(code, b.bitcast(scale, code.vector))


# Cephes, single/exp2f.c, each rounded to float32.
_EXP2 = tuple(
    ctypes.c_float(x).value
    for x in (
        1.535336188319500e-4,
        1.339887440266574e-3,
        9.618437357674640e-3,
        5.550332471162809e-2,
        2.402264791363012e-1,
        6.931472028550421e-1,
        1.0,
    )
)

_FADED = 6.0  # where nothing is left of it
_FADING = (
    3.1029390811454505e-05,
    -0.0007534121396020055,
    0.008036049082875252,
    -0.053353872150182724,
    -0.4588068425655365,
    -1.1511921882629395,
    -0.9999938607215881,
)


@dataclass(frozen=True)
class Memory:
    """Float32 in memory; offsets count them."""

    code: Code
    address: Any

    def load(self, offset: int | Int = 0) -> Vector:
        """Return as many as there are lanes."""
        return Vector(self.code, self.code.b.load(self._place(offset, FLOAT), align=4, typ=self.code.vector))

    def store(self, vector: Vector, offset: int | Int = 0) -> None:
        """Write as many as there are lanes."""
        self.code.b.store(vector.value, self._place(offset, FLOAT), align=4)

    def put(self, vector: Vector, offset: int | Int = 0) -> None:
        """Write the first lane alone."""
        b = self.code.b
        b.store(b.extract_element(vector.value, ir.Constant(INT, 0)), self._place(offset, FLOAT), align=4)

    def whole(self, offset: int | Int = 0) -> Int:
        """Return one number, which is whole and not negative, as an `Int`."""
        number = self.code.b.load(self._place(offset, FLOAT), align=4, typ=FLOAT)
        return Int(self.code, self.code.b.fptosi(number, ir.IntType(64)))

    def broadcast(self, offset: int | Int = 0) -> Vector:
        """Return one number in each lane."""
        return self.code.splat(self.code.b.load(self._place(offset, FLOAT), typ=FLOAT))

    def at(self, offset: int | Int) -> Any:
        """Return the address of a number."""
        return self._place(offset, FLOAT)

    def fetch(self, offset: int | Int) -> None:
        """Have the line of the cache around a number come near; beyond the memory this does nothing.

        Into the second cache: the first waits for no more than ten or so lines at once.
        """
        read, into_second_cache, data = (ir.Constant(INT, flag) for flag in (0, 2, 1))
        place = self._place(offset, FLOAT)
        prefetch = self.code.function("llvm.prefetch.p0", ir.VoidType(), place.type, INT, INT, INT)
        self.code.b.call(prefetch, [place, read, into_second_cache, data])

    def _place(self, offset: int | Int, kind: Any) -> Any:
        return self.code.b.gep(self.address, [self.code.number(offset).value], source_etype=kind)


class WholeMemory(Memory):
    """Whole numbers of some bits in memory: signed when read, and when written from any range of that many."""

    bits: ClassVar[int]

    def load(self, offset: int | Int = 0) -> Vector:
        """Return as many as there are lanes."""
        code, b, kind = self.code, self.code.b, ir.IntType(self.bits)
        read = b.load(self._place(offset, kind), align=self.bits // 8, typ=ir.VectorType(kind, code.lanes))
        return Vector(code, b.sitofp(read, code.vector))

    def store(self, vector: Vector, offset: int | Int = 0) -> None:
        """Write numbers, rounded to the nearest whole ones, ties to even."""
        code, b, kind = self.code, self.code.b, ir.IntType(self.bits)
        moved = b.bitcast((vector + code.constant(_WHOLE)).value, code.integers)
        short = b.trunc(moved, ir.VectorType(kind, code.lanes))
        b.store(short, self._place(offset, kind), align=self.bits // 8)


class ByteMemory(WholeMemory):
    """Bytes: int8 when read, int8 or uint8 when written."""

    bits = 8


class ShortMemory(WholeMemory):
    """Int16."""

    bits = 16


class BFloat16Memory(Memory):
    """Bfloat16 in memory: the upper halves of float32; rounded to the nearest when written, ties to even."""

    def load(self, offset: int | Int = 0) -> Vector:
        """Return as many as there are lanes."""
        code, b = self.code, self.code.b
        halves = b.load(self._place(offset, _HALF), align=2, typ=ir.VectorType(_HALF, code.lanes))
        whole = b.shl(b.zext(halves, code.integers), self._each(16))
        return Vector(code, b.bitcast(whole, code.vector))

    def store(self, vector: Vector, offset: int | Int = 0) -> None:
        """Write as many as there are lanes."""
        code, b = self.code, self.code.b
        bits = b.bitcast(vector.value, code.integers)
        odd = b.and_(b.lshr(bits, self._each(16)), self._each(1))
        rounded = b.lshr(b.add(b.add(bits, self._each(0x7FFF)), odd), self._each(16))
        b.store(b.trunc(rounded, ir.VectorType(_HALF, code.lanes)), self._place(offset, _HALF), align=2)

    def _each(self, value: int) -> Any:
        return ir.Constant(self.code.integers, [value] * self.code.lanes)
