"""Profile: which kernels take the time of mixed texts, with the bundled all-MiniLM-L6-v2, on this machine.

Texts are given in one call, or by so many callers at once, each a text at a time as a server's connections do. It needs
Linux's perf, Debian's package linux-perf.

    python benchmarks/kernels.py [--texts 800] [--callers 0] [--precision float32]
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from corpus import mixed_texts
from encode import MODEL
from facts import facts
from harness import options

from tercet import Engine
from tercet.nn.jit.code import Kernel

_LEAST = 0.5  # percent that is worth a line
_LARGEST = 1 << 18  # bytes of a kernel
_PAUSE_S = 2.0


def main() -> int:
    parser = options(__doc__, (), texts=800, callers=0)
    parser.add_argument("--precision", default="float32", choices=("float32", "bfloat16", "int8"))
    asked = parser.parse_args()
    if shutil.which("perf") is None:
        parser.error("there is no perf here; on Debian the package linux-perf has it")
    texts = mixed_texts(asked.texts)
    with Engine(precision=asked.precision, device="cpu") as engine, ThreadPoolExecutor(asked.callers or 1) as callers:

        def encode() -> None:
            if asked.callers:
                list(callers.map(lambda text: engine.encode(MODEL, [text]), texts))
            else:
                engine.encode(MODEL, texts)

        encode()  # once unseen: kernels are compiled, and weights laid out in the pause
        time.sleep(_PAUSE_S)
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder, "perf.data")
            with _watched(found):
                start, before = time.perf_counter(), _computed_s()
                encode()
                taken, computed = time.perf_counter() - start, _computed_s() - before
            with _named():
                shares = _shares(found)
    print(f"{len(texts) / taken:.1f} texts/s, {computed / len(texts) * 1e3:.2f} ms of a core for each")
    for share, name in shares:
        print(f"{share:6.1f} %{share / 100 * computed / len(texts) * 1e3:8.2f} ms  {name}")
    print(facts(["tercet", "torch"]))
    return 0


@contextmanager
def _named() -> Iterator[None]:
    """Tell perf the names of the kernels that are compiled so far, in the file where it looks for them."""
    modules = [module for name, module in sys.modules.items() if name.startswith("tercet.nn.")]
    kernels = {value for module in modules for value in vars(module).values() if isinstance(value, Kernel)}
    places = sorted(
        (compiled.address, f"{kernel.write.__name__}{arguments}")
        for kernel in kernels
        for arguments, compiled in kernel.kept.items()
    )
    ends = [address for address, _ in places[1:]] + [places[-1][0] + _LARGEST]
    names = Path(f"/tmp/perf-{os.getpid()}.map")
    lines = (f"{at:x} {min(end - at, _LARGEST):x} {name}\n" for (at, name), end in zip(places, ends, strict=True))
    names.write_text("".join(lines))
    try:
        yield
    finally:
        names.unlink()


@contextmanager
def _watched(found: Path) -> Iterator[None]:
    """Have perf look a thousand times a second at what this process does."""
    command = ["perf", "record", "-e", "cpu-clock", "-F", "999", "-o", str(found), "-p", str(os.getpid())]
    watcher = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    time.sleep(0.5)  # until it looks
    try:
        yield
    finally:
        watcher.send_signal(signal.SIGINT)
        _, said = watcher.communicate()
    if not found.exists():
        raise SystemExit(f"perf recorded nothing:\n{said}")


def _shares(found: Path) -> Sequence[tuple[float, str]]:
    """Return the percent of each function, the largest first."""
    command = ["perf", "report", "--stdio", "-i", str(found), "-F", "overhead,symbol", "--percent-limit", str(_LEAST)]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    lines = [line.split(None, 1) for line in report.splitlines() if line.strip() and not line.startswith("#")]
    return [(float(share.rstrip("%")), name.partition("] ")[2]) for share, name in lines]


def _computed_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    raise SystemExit(main())
