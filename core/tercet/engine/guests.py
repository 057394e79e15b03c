"""Guests: threads at work for an engine that are not its own, so that it cannot have them end."""

from __future__ import annotations

import threading

from tercet.errors import EngineClosedError


class Guests:
    """Who is at work just now; a thread comes in by `with`. Thread-safe.

    No process may end meanwhile: Python ends a thread that wants the interpreter's lock from then on, and amid torch's
    code or the tokenizers' that is the abort of the process.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # reentrant, as a signal may close the engine here
        self._inside: dict[int, int] = {}  # how often each thread has come in: again, from a callback
        self._closed = False

    def __enter__(self) -> None:
        """Come in.

        Raises:
            EngineClosedError: nobody does any more.
        """
        with self._changed:
            if self._closed:
                raise EngineClosedError()
            own = threading.get_ident()
            self._inside[own] = self._inside.get(own, 0) + 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            own = threading.get_ident()
            if self._inside[own] > 1:
                self._inside[own] -= 1
                return
            del self._inside[own]
            if self._closed:
                self._changed.notify_all()

    def leave(self, seconds: float) -> bool:
        """Let nobody in, and wait, so long at most, until all but the calling thread have left; return whether so."""
        own = threading.get_ident()
        with self._changed:
            self._closed = True
            return self._changed.wait_for(lambda: not self._inside.keys() - {own}, seconds)
