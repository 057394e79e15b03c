"""Programs: functions that run one after the other, on all threads of a team, without the interpreter between them.

Threads share out each function's units of work and go on when all units are done, whoever did them. So a thread that
comes late, or whose core is taken for a while, is waited for only where it has begun a unit.
"""

from __future__ import annotations

from typing import NamedTuple

from llvmlite import ir

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.values import Int
from tercet.nn.jit.waiting import fewer_than, wait_while

_WORD, _POINTER = ir.IntType(64), ir.PointerType()


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
    with code.loop(code.word(word.functions)) as step:
        function, words, units = (steps(step * 3 + i) for i in range(3))
        code.call(function.value, words.value)
        _wait(code, units)


def _wait(code: Code, address: Int) -> None:
    """Wait until as many units are done as there are."""
    units = code.b.inttoptr(address.value, _POINTER)
    wanted = Int(code, code.b.load(units, typ=_WORD))
    done = code.b.gep(units, [ir.Constant(_WORD, 2)], source_etype=_WORD)
    wait_while(code, lambda: fewer_than(code, done, wanted))
