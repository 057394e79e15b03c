"""How a thread waits in compiled code: it looks again and again, and now and then offers its core to others."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from llvmlite import ir

from tercet.nn.jit.code import Code
from tercet.nn.jit.values import INT, Int

_WORD = ir.IntType(64)
_LOOKS = 1 << 10  # before a thread offers its core to others: 20 to 50 µs


def wait_while(code: Code, waits: Callable[[], Any], most: int | Int | None = None) -> None:
    """Write a wait for as long as a condition holds, for `most` looks if given: 20,000 to 50,000 a millisecond.

    Args:
        waits: writes what looks, and returns the condition.
    """
    b = code.b
    head, again, after = (b.append_basic_block() for _ in range(3))
    before = b.block
    b.branch(head)
    b.position_at_end(head)
    looks = b.phi(_WORD)
    looks.add_incoming(ir.Constant(_WORD, 1), before)
    waiting = waits()
    if most is not None:
        waiting = b.and_(waiting, b.icmp_unsigned("<=", looks, code.number(most).value))
    b.cbranch(waiting, again, after)
    b.position_at_end(again)
    _pause(code)
    with b.if_then(b.icmp_unsigned("==", b.urem(looks, ir.Constant(_WORD, _LOOKS)), ir.Constant(_WORD, 0))):
        _yield(code)
    looks.add_incoming(b.add(looks, ir.Constant(_WORD, 1)), b.block)
    b.branch(head)
    b.position_at_end(after)


def fewer_than(code: Code, address: Any, wanted: Int) -> Any:
    """Return the condition that the word at an address, which other threads count up, is still below a number."""
    counted = code.b.load_atomic(address, "acquire", 8, typ=_WORD)
    return code.b.icmp_signed("<", counted, wanted.value)


def _pause(code: Code) -> None:
    """Let the core's other thread have it for a moment."""
    x86 = code.lanes > 4
    name, arguments = ("llvm.x86.sse2.pause", []) if x86 else ("llvm.aarch64.hint", [ir.Constant(INT, 1)])
    code.b.call(code.function(name, ir.VoidType(), *(argument.type for argument in arguments)), arguments)


def _yield(code: Code) -> None:
    """Let another thread have the core, where the system has a way to say so."""
    if hasattr(os, "sched_yield"):
        code.b.call(code.function("sched_yield", INT), [])
