"""Programs: functions that run one after the other, on all threads of a team, without the interpreter between them.

Threads share out each function's units of work and go on when all units are done, whoever did them. So a thread that
comes late, or whose core is taken for a while, is waited for only where it has begun a unit.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from llvmlite import ir

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.values import INT, Int

_WORD, _POINTER = ir.IntType(64), ir.PointerType()
_SPINS = 1 << 10  # looks before a thread offers its core to others: some 50 µs


class ProgramWords(NamedTuple):
    """The words of `program_kernel`.

    Attributes:
        steps: address of (functions, 3) words: a function's address, that of its words, and that of `units` among them.
        functions: how many.
        units, next, done: see `words.Words`; a unit is a thread's own way through the steps, so the last two are idle.
    """

    steps: int
    functions: int
    units: int
    next: int = 0
    done: int = 0


class LinkWords(NamedTuple):
    """The words of `links_kernel`.

    Attributes:
        table: address of (links, 3) words: a word's address, which of the values it takes, and how many times that.
        links: how many. values: address of words.
    """

    table: int
    links: int
    values: int


@Kernel
def links_kernel(code: Code) -> None:
    """Write values into words all over the place."""
    word = LinkWords(*range(len(LinkWords._fields)))
    table, values = code.words(word.table), code.words(word.values)
    with code.loop(code.word(word.links)) as link:
        address, which, times = (table(link * 3 + i) for i in range(3))
        code.b.store((values(which) * times).value, code.b.inttoptr(address.value, _POINTER))


@Kernel
def program_kernel(code: Code) -> None:
    """Write the program."""
    word = ProgramWords(*range(len(ProgramWords._fields)))
    steps = code.words(word.steps)
    kind = ir.FunctionType(ir.VoidType(), [_POINTER])
    with code.loop(code.word(word.functions)) as step:
        function, words, units = (steps(step * 3 + i) for i in range(3))
        called = code.b.inttoptr(function.value, kind.as_pointer())
        code.b.call(called, [code.b.inttoptr(words.value, _POINTER)])
        _wait(code, units)


def _wait(code: Code, address: Int) -> None:
    """Wait until as many units are done as there are."""
    b = code.b
    units = b.inttoptr(address.value, _POINTER)
    wanted = b.load(units, typ=_WORD)
    done = b.gep(units, [ir.Constant(_WORD, 2)], source_etype=_WORD)
    head, again, after = (b.append_basic_block() for _ in range(3))
    before = b.block
    b.branch(head)
    b.position_at_end(head)
    looks = b.phi(_WORD)
    looks.add_incoming(ir.Constant(_WORD, 1), before)
    b.cbranch(b.icmp_signed("<", b.load_atomic(done, "acquire", 8, typ=_WORD), wanted), again, after)
    b.position_at_end(again)
    _pause(code)
    with b.if_then(b.icmp_unsigned("==", b.urem(looks, ir.Constant(_WORD, _SPINS)), ir.Constant(_WORD, 0))):
        _yield(code)
    looks.add_incoming(b.add(looks, ir.Constant(_WORD, 1)), b.block)
    b.branch(head)
    b.position_at_end(after)


def _pause(code: Code) -> None:
    """Let the core's other thread have it for a moment."""
    x86 = code.lanes > 4
    name, arguments = ("llvm.x86.sse2.pause", []) if x86 else ("llvm.aarch64.hint", [ir.Constant(INT, 1)])
    code.b.call(_function(code, name, ir.VoidType(), [argument.type for argument in arguments]), arguments)


def _yield(code: Code) -> None:
    """Let another thread have the core, where the system has a way to say so."""
    if hasattr(os, "sched_yield"):
        code.b.call(_function(code, "sched_yield", INT, []), [])


def _function(code: Code, name: str, returns: Any, takes: list[Any]) -> Any:
    return ir.Function(code.module, ir.FunctionType(returns, takes), name)
