"""A gate: where one thread opens a function that shares its work out, and others join it for as long as it is open.

Nobody is waited for that has not come in, and nobody comes in once the gate is closed. So a thread that sleeps, or is
late, costs nothing, and the words of the function may be used anew as soon as the one who opened it is back.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir

from tercet.nn.jit.code import Code, Kernel
from tercet.nn.jit.waiting import wait_while

_WORD = ir.IntType(64)
_ZERO, _ONE = (ir.Constant(_WORD, number) for number in (0, 1))


class Gate(NamedTuple):
    """The words of a gate, each the first of a line of the cache of its own.

    Attributes:
        state: how often it was opened and closed; odd while it is open.
        inside: how many have come in, beside the one who opened it.
        function, words: addresses of what is run, and of what it is given. wanted: how many may come in.
    """

    state: int = 0
    inside: int = 0
    function: int = 0
    words: int = 0
    wanted: int = 0


LINE = 8  # words


class LeadWords(NamedTuple):
    """The words of `lead_kernel`.

    Attributes:
        gate: address of a `Gate`. function, words, wanted: what it is to have.
    """

    gate: int
    function: int
    words: int
    wanted: int


class HelpWords(NamedTuple):
    """The words of `help_kernel`.

    Attributes:
        gate: address of a `Gate`. place: of this helper among all; those below what is wanted come in.
        looks: at a closed gate before it gives up.
        seen: the last state of the gate in which it came in, at first 0.
    """

    gate: int
    place: int
    looks: int
    seen: int = 0


@Kernel
def lead_kernel(code: Code) -> None:
    """Write what opens the gate, runs the function, closes the gate, and waits for those who are inside."""
    word, b = LeadWords(*range(len(LeadWords._fields))), code.b
    gate = _places(code, word.gate)
    for place, at in ((gate.function, word.function), (gate.words, word.words), (gate.wanted, word.wanted)):
        b.store(code.word(at).value, place)
    b.atomic_rmw("add", gate.state, _ONE, "seq_cst")
    code.call(code.word(word.function).value, code.word(word.words).value)
    b.atomic_rmw("add", gate.state, _ONE, "seq_cst")
    wait_while(code, lambda: b.icmp_signed("!=", _look(code, gate.inside), _ZERO))


@Kernel
def help_kernel(code: Code) -> None:
    """Write what comes in whenever the gate opens, and returns when it has not for so many looks."""
    word, b = HelpWords(*range(len(HelpWords._fields))), code.b
    gate, seen, looks = _places(code, word.gate), code.place(word.seen), code.word(word.looks)
    head, opened, after = (b.append_basic_block() for _ in range(3))
    b.branch(head)
    b.position_at_end(head)
    wait_while(code, lambda: b.not_(_is_news(code, _look(code, gate.state), seen)), looks)
    state = _look(code, gate.state)
    b.cbranch(_is_news(code, state, seen), opened, after)
    b.position_at_end(opened)
    b.store(state, seen)
    with code.when(b.icmp_signed("<", code.word(word.place).value, b.load(gate.wanted, typ=_WORD))):
        b.atomic_rmw("add", gate.inside, _ONE, "seq_cst")
        with code.when(b.icmp_signed("==", _look(code, gate.state), state)):  # or it was closed, or is another's
            code.call(*(b.load(place, typ=_WORD) for place in (gate.function, gate.words)))
        b.atomic_rmw("sub", gate.inside, _ONE, "seq_cst")
    b.branch(head)
    b.position_at_end(after)


def _places(code: Code, index: int) -> Any:
    """Return a `Gate` of the addresses of its words, their first being one of the argument's words."""
    base = code.pointer(index)
    return Gate(*(code.place(place * LINE, base) for place in range(len(Gate._fields))))


def _look(code: Code, place: Any) -> Any:
    return code.b.load_atomic(place, "seq_cst", 8, typ=_WORD)


def _is_news(code: Code, state: Any, seen: Any) -> Any:
    """Return whether the gate is open in this state, and has not been seen so."""
    b = code.b
    return b.and_(b.trunc(state, ir.IntType(1)), b.icmp_signed("!=", state, b.load(seen, typ=_WORD)))
