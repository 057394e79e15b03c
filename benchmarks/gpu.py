"""What the scripts for an NVIDIA device have in common: their command line, and facts that name the device."""

from __future__ import annotations

import subprocess
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace

import by_model
from facts import Facts, facts
from harness import Child, Contender, serve, started
from outcome import Row, finish

PRECISION = "bfloat16"
# The least cosine of contenders that agree: both round to bfloat16, not in the same places, and weights drawn so that
# attention is sharp make more of it than trained ones do.
CLOSE = 0.99


def main(
    about: str | None,
    contenders: Mapping[str, Callable[[Namespace], Contender]],
    models: Iterable[str],
    measure: Callable[[str, Namespace], Iterator[Row]],
    packages: Sequence[str],
    **amounts: int,
) -> int:
    """Measure the model that is asked for, or all; return the exit code. A contender is made with what is asked."""
    parser = by_model.command_line(about, contenders, models, **amounts)
    parser.add_argument("--device", default="cuda", help="default cuda; cpu shows that the script runs, nothing else")
    asked = parser.parse_args()
    if asked.child:
        serve(lambda: contenders[asked.child](asked))
        return 0
    made = device_facts(asked.device, packages)
    rows = [row for name in by_model.chosen(asked, models) for row in measure(name, asked)]
    return finish(rows, made, asked.json)


def processes(script: str, contenders: Iterable[str], model: str) -> AbstractContextManager[dict[str, Child]]:
    """Return the contenders' processes, each with this one's options; see `harness.started`."""
    return started(script, contenders, [*sys.argv[1:], "--model", model])


def synchronize(device: str) -> None:
    """Wait until the device has done all that this process gave it."""
    import torch

    if torch.device(device).type == "cuda":
        torch.cuda.synchronize(device)


def device_facts(device: str, packages: Sequence[str]) -> Facts:
    """Return the facts of this run, the device among them; end the script where it is not there."""
    import torch

    made = facts(packages)
    if torch.device(device).type == "cpu":
        return replace(made, processor=f"a trial without a GPU on {made.processor}")
    if not torch.cuda.is_available():
        raise SystemExit("this script needs an NVIDIA device, and torch sees none")
    name = f"{torch.cuda.get_device_name(device)}, driver {_driver()}, CUDA {torch.version.cuda}"
    return replace(made, processor=f"{name}, beside {made.processor}")


def _driver() -> str:
    ask = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        return subprocess.run(ask, capture_output=True, text=True, check=True).stdout.split()[0]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return "unknown"
