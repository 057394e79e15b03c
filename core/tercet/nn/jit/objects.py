"""Compiled kernels in files, so that only the first process on a machine compiles them.

A process compiles for six tenths of a second until its first vector; to read what another compiled takes milliseconds.
The files lie in `$XDG_CACHE_HOME/tercet/kernels`, by default below `~/.cache`, and may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm

_SUM_BYTES = hashlib.sha256().digest_size


def kept(name: str, compile_: Callable[[], bytes]) -> bytes:
    """Return a kernel's object code: from its file, or made and kept there if it can be.

    Args:
        name: of the kernel, and what it is compiled for.
    """
    if (folder := directory()) is None:
        return compile_()
    file = folder / f"{hashlib.sha256(f'{_maker()} {name}'.encode()).hexdigest()}.o"
    if (known := _read(file)) is not None:
        return known
    made = compile_()
    with suppress(OSError):  # nowhere to write: then each process compiles
        _write(file, made)
    return made


def directory() -> Path | None:
    """Return where the files lie, which may not be there yet; None for a user without a home, as in some containers."""
    try:
        home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError:
        return None
    return Path(home) / "tercet" / "kernels"


def _read(file: Path) -> bytes | None:
    """Return what a file holds after its checksum; None without a file that is whole, and this user's."""
    try:
        with file.open("rb") as opened:
            own = not hasattr(os, "getuid") or os.fstat(opened.fileno()).st_uid == os.getuid()
            content = opened.read()
    except OSError:
        return None
    code = content[_SUM_BYTES:]
    return code if own and code and hashlib.sha256(code).digest() == content[:_SUM_BYTES] else None


def _write(file: Path, code: bytes) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=file.parent)
    try:
        with os.fdopen(handle, "wb") as opened:
            opened.write(hashlib.sha256(code).digest() + code)
        Path(name).replace(file)  # at once, whoever else writes or reads it
    except OSError:
        Path(name).unlink()
        raise


@cache
def _maker() -> str:
    """Return what stands for everything else that the code depends on: this package's text, LLVM, the processor."""
    text = hashlib.sha256()
    for file in sorted(Path(__file__).parent.glob("*.py")):
        text.update(file.read_bytes())
    features = llvm.get_host_cpu_features().flatten()
    return f"{text.hexdigest()} {llvmlite.__version__} {llvm.llvm_version_info} {llvm.get_host_cpu_name()} {features}"
