"""A function of vector code, and how it is compiled."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from threading import Lock
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir

from tercet.nn.jit import objects
from tercet.nn.jit.values import FLOAT, INT, Int, Memory, Vector
from tercet.nn.jit.words import Words

_WORD, _POINTER = ir.IntType(64), ir.PointerType()
_COMPILING = Lock()  # LLVM's objects are not for several threads at once


class Code:
    """The function `run(words)`, whose only argument is the address of so many 64-bit words.

    Attributes:
        lanes: numbers of a vector. registers: vectors that the processor holds at once.
    """

    def __init__(self) -> None:
        shape = vector_shape()
        assert shape is not None, "this processor has no vectors that this code is for"
        self.lanes, self.registers = shape
        self.vector, self.integers = ir.VectorType(FLOAT, self.lanes), ir.VectorType(INT, self.lanes)
        self.module = ir.Module()
        self._function = ir.Function(self.module, ir.FunctionType(ir.VoidType(), [_POINTER]), "run")
        self.b = ir.IRBuilder(self._function.append_basic_block())

    def function(self, name: str, result: Any, *given: Any) -> Any:
        """Return a function of LLVM's or of the system's."""
        return self.module.globals.get(name) or ir.Function(self.module, ir.FunctionType(result, given), name)

    def call(self, function: Any, words: Any) -> None:
        """Call a function such as this one, given its address and that of its words, each as a word."""
        kind = ir.FunctionType(ir.VoidType(), [_POINTER])
        self.b.call(self.b.inttoptr(function, kind.as_pointer()), [self.b.inttoptr(words, _POINTER)])

    def word(self, index: int) -> Int:
        """Return one of the argument's words."""
        return Int(self, self.b.load(self.place(index), typ=_WORD))

    def place(self, index: int | Int, base: Any = None) -> Any:
        """Return the address of one of the words at an address, or of the argument's."""
        base = self._function.args[0] if base is None else base
        return self.b.gep(base, [self.number(index).value], source_etype=_WORD)

    def words(self, index: int) -> Callable[[Int], Int]:
        """Return what reads the words at an address, itself one of the argument's words."""
        base = self.pointer(index)
        return lambda i: Int(self, self.b.load(self.place(i, base), typ=_WORD))

    def pointer(self, index: int) -> Any:
        """Return the address that one of the argument's words holds."""
        return self.b.load(self.place(index), typ=_POINTER)

    def scalar(self, index: int) -> Vector:
        """Return a vector full of the float32 whose bits one of the argument's words holds."""
        return self.splat(self.b.bitcast(self.b.trunc(self.word(index).value, INT), FLOAT))

    def number(self, value: int | Int) -> Int:
        """Return it as a number of this code."""
        return value if isinstance(value, Int) else Int(self, ir.Constant(_WORD, value))

    def constant(self, value: float) -> Vector:
        """Return a vector full of it."""
        return Vector(self, ir.Constant(self.vector, [value] * self.lanes))

    def count(self) -> Vector:
        """Return 0, 1 and so on."""
        return Vector(self, ir.Constant(self.vector, [float(lane) for lane in range(self.lanes)]))

    def splat(self, value: Any) -> Vector:
        """Return a vector full of a float32 of this code."""
        return Vector(self, self._splat(value, self.vector))

    def _splat(self, value: Any, vector: Any) -> Any:
        undefined = ir.Constant(vector, ir.Undefined)
        one = self.b.insert_element(undefined, value, ir.Constant(INT, 0))
        return self.b.shuffle_vector(one, undefined, ir.Constant(self.integers, [0] * self.lanes))

    def scratch(self, floats: int) -> Memory:
        """Return memory for so many float32, on the stack of the thread that runs the code."""
        with self.b.goto_entry_block():
            slot = self.b.alloca(ir.ArrayType(FLOAT, floats))
        slot.align, slot.type = 64, _POINTER
        return Memory(self, slot)

    def variable(self, value: Vector) -> Memory:
        """Return a vector that can be stored anew; it stays in a register."""
        slot = self.scratch(self.lanes)
        slot.store(value)
        return slot

    @contextmanager
    def loop(self, stop: int | Int, start: int | Int = 0, step: int | Int = 1) -> Iterator[Int]:
        """Repeat what follows for each index from `start`."""
        b, before = self.b, self.b.block
        head, body, after = (self._function.append_basic_block() for _ in range(3))
        first, last, further = (self.number(number).value for number in (start, stop, step))
        b.branch(head)
        b.position_at_end(head)
        index = b.phi(_WORD)
        index.add_incoming(first, before)
        b.cbranch(b.icmp_signed("<", index, last), body, after)
        b.position_at_end(body)
        yield Int(self, index)
        index.add_incoming(b.add(index, further), b.block)
        b.branch(head)
        b.position_at_end(after)

    @contextmanager
    def shared_loop(self, word: Words) -> Iterator[Int]:
        """Repeat what follows for each unit of work that no other thread has taken.

        Args:
            word: which of the argument's words is which.
        """
        b, one = self.b, ir.Constant(_WORD, 1)
        head, body, after = (self._function.append_basic_block() for _ in range(3))
        units = self.word(word.units)
        following, done = (self.place(at) for at in (word.next, word.done))
        b.branch(head)
        b.position_at_end(head)
        index = b.atomic_rmw("add", following, one, "monotonic")
        b.cbranch(b.icmp_signed("<", index, units.value), body, after)
        b.position_at_end(body)
        yield Int(self, index)
        b.atomic_rmw("add", done, one, "release")
        b.branch(head)
        b.position_at_end(after)

    @contextmanager
    def when(self, condition: Any) -> Iterator[None]:
        """Do what follows only if it holds."""
        with self.b.if_then(condition):
            yield

    def either(self, condition: Any) -> Any:
        """Return a context that gives two more: what to do if it holds, and if not."""
        return self.b.if_else(condition)

    def near(self, distance: Int, left: Int, span: Int) -> Any:
        """Return the mask of the lanes for which −left ≤ distance − lane ≤ span − left."""
        first, last = (self._splat(self.b.trunc(x.value, INT), self.integers) for x in (distance + left, span))
        moved = self.b.sub(first, ir.Constant(self.integers, list(range(self.lanes))))
        return self.b.icmp_unsigned("<=", moved, last)

    def transpose(self, rows: list[Vector]) -> list[Vector]:
        """Return the columns of a square of as many rows as there are lanes.

        Fours of rows are turned within fours of lanes, and then the fours put in place: a processor moves single
        numbers across a whole vector more slowly.
        """
        fours = [self._turned(rows[first : first + 4]) for first in range(0, self.lanes, 4)]
        even = [lane + i for lane in range(0, 2 * self.lanes, 8) for i in range(4)]
        columns = []
        for values in map(list, zip(*fours, strict=True)):
            for _ in range(len(fours).bit_length() - 1):
                pairs = [self._both(one, other, even, 4) for one, other in zip(values[::2], values[1::2], strict=True)]
                values = [half for halves in zip(*pairs, strict=True) for half in halves]
            columns.append(values)
        return [Vector(self, value) for values in zip(*columns, strict=True) for value in values]

    def _turned(self, rows: list[Vector]) -> list[Any]:
        """Return four vectors; every four lanes of them are the columns of these lanes of four rows."""
        a, b, c, d = (row.value for row in rows)
        first, other = range(0, self.lanes, 4), self.lanes
        singles = [lane + i for lane in first for i in (0, other, 1, other + 1)]
        pairs = [lane + i for lane in first for i in (0, 1, other, other + 1)]
        upper, lower = (self._both(*two, singles, 2) for two in ((a, b), (c, d)))
        return [half for two in zip(upper, lower, strict=True) for half in self._both(*two, pairs, 2)]

    def _both(self, one: Any, other: Any, lanes: list[int], shift: int) -> tuple[Any, Any]:
        """Return the vector of these lanes of two, and that of those so far behind them."""
        masks = (ir.Constant(self.integers, [lane + by for lane in lanes]) for by in (0, shift))
        low, high = (self.b.shuffle_vector(one, other, mask) for mask in masks)
        return low, high

    def fma(self, a: Vector, b: Vector, c: Vector) -> Vector:
        """Return a · b + c, rounded once."""
        fma = self.function(f"llvm.fma.v{self.lanes}f32", self.vector, *[self.vector] * 3)
        return Vector(self, self.b.call(fma, [a.value, b.value, c.value]))

    def sqrt(self, x: Vector) -> Vector:
        """Return the square roots."""
        sqrt = self.function(f"llvm.sqrt.v{self.lanes}f32", self.vector, self.vector)
        return Vector(self, self.b.call(sqrt, [x.value]))

    def finish(self) -> bytes:
        """Return the function's object code."""
        self.b.ret_void()
        machine = _machine()
        module = llvm.parse_assembly(str(self.module))
        options = llvm.create_pipeline_tuning_options(speed_level=2)
        options.loop_vectorization = options.slp_vectorization = False  # it is written in vectors
        passes = llvm.create_pass_builder(machine, options)
        passes.getModulePassManager().run(module, passes)
        return bytes(machine.emit_object(module))


@dataclass(frozen=True)
class Compiled:
    """A compiled function.

    Attributes:
        address: of its code.
        run: calls it with the address of its words, without the interpreter's lock.
        run_held: the same with the lock, for what takes less time than to come by it again.
        engine: holds the code for as long as it lives.
    """

    address: int
    run: Callable[[int], None]
    run_held: Callable[[int], None]
    engine: Any

    @classmethod
    def of(cls, code: bytes) -> Compiled:
        """Return the function of this object code, in memory."""
        engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
        engine.finalize_object()
        address = engine.get_function_address("run")
        run, run_held = (kind(None, ctypes.c_void_p)(address) for kind in (ctypes.CFUNCTYPE, ctypes.PYFUNCTYPE))
        return cls(address, run, run_held, engine)


class Kernel:
    """A function that is written and compiled when it is first asked for with some arguments, and then kept."""

    def __init__(self, write: Callable[..., None]) -> None:
        """Take what writes the code: a function of the `Code` and of what the kernel is asked for with."""
        self.write = write
        self.kept: dict[tuple[Hashable, ...], Compiled] = {}

    def __call__(self, *arguments: Hashable) -> Compiled:
        """Return the compiled function. Thread-safe."""
        if known := self.kept.get(arguments):  # without the lock, under which another may be compiled just now
            return known
        with _COMPILING:
            if arguments not in self.kept:
                name = f"{self.write.__module__}.{self.write.__qualname__}{arguments}, vectors {vector_shape()}"
                compile_ = partial(self._compiled, arguments)
                # Files are told apart by this package's text.
                own = self.write.__module__.startswith(f"{__package__}.")
                self.kept[arguments] = Compiled.of(objects.kept(name, compile_) if own else compile_())
            return self.kept[arguments]

    def _compiled(self, arguments: tuple[Hashable, ...]) -> bytes:
        code = Code()
        self.write(code, *arguments)
        return code.finish()


@cache
def vector_shape() -> tuple[int, int] | None:
    """Return how many float32 a vector of this processor holds, and how many vectors the processor holds at once.

    None where it does not multiply and add in one step, since this code would be slow there, and where the system lets
    no process make code for itself.
    """
    try:
        llvm.check_jit_execution()
    except OSError:
        return None
    features = llvm.get_host_cpu_features()
    if features.get("avx512f") and features.get("fma"):
        return 16, 32
    if features.get("avx2") and features.get("fma"):
        return 8, 16
    return (4, 32) if features.get("neon") else None


def _machine() -> llvm.TargetMachine:
    """Return this processor as LLVM sees it; a new one, since a compiler owns its own."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    llvm.initialize_native_asmparser()
    # LLVM halves vectors of 512 bits on Intel's processors, for the sake of code that rarely uses them.
    features = llvm.get_host_cpu_features().flatten() + ",-prefer-256-bit"
    target = llvm.Target.from_default_triple()
    return target.create_target_machine(cpu=llvm.get_host_cpu_name(), features=features, opt=2)
