"""Run the CPU set, or the GPU set, one script after the other and write the report; a missed bar stops nothing.

Ends with 1 where a script ended without a result; the report names it.

    python benchmarks/run.py [--gpu] [--rounds 5] [--only encode swap-minilm] [--small]

With --small every script takes seconds and docs/ is left alone: it shows that the set runs, not how fast anything is.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from cache import CACHE
from facts import ROOT
from outcome import Outcome

RESULTS, TRIAL = CACHE / "results", CACHE / "trial"


@dataclass(frozen=True, slots=True)
class Run:
    """A script with its arguments; `small` are more of them for a trial."""

    script: str
    arguments: tuple[str, ...] = ()
    small: tuple[str, ...] = ("--texts", "20")


_LAYERS = ("MiniLM", "base", "large")
_MODELS = ("bge-base", "bge-m3", "modernbert-base", "splade")
_FEW = ("--texts", "400")  # three contenders each, and what a store adds shows in few

RUNS = {
    "encode": Run("encode.py", small=("--texts", "20", "--queries", "5")),
    **{f"models-{name}": Run("models.py", ("--model", name), ("--texts", "2")) for name in _MODELS},
    "models-modernbert-base-long": Run("models.py", ("--model", "modernbert-base-long"), ("--texts", "1")),
    "models-ms-marco-minilm": Run("models.py", ("--model", "ms-marco-minilm"), ("--texts", "1")),
    **{f"gemm-{name.lower()}": Run("gemm.py", ("--model", name), ("--texts", "2")) for name in _LAYERS},
    **{f"swap-{name.lower()}": Run("swap.py", ("--model", name), ()) for name in ("MiniLM", "bge-base")},
    "memory": Run("memory.py", small=("--texts", "200")),
    "serve": Run("serve.py", small=("--requests", "40")),
    **{f"ingest-{store}": Run(f"ingest_{store}.py", _FEW) for store in ("qdrant", "lancedb", "chroma", "weaviate")},
}  # fmt: skip

_GPU_MODELS = ("minilm", "bge-base", "bge-m3", "modernbert-base", "splade")
_GPU_SMALL = ("--texts", "64", "--queries", "5")

# What needs an NVIDIA device.
GPU_RUNS = {
    **{f"gpu-bulk-{name}": Run("gpu_bulk.py", ("--model", name), _GPU_SMALL) for name in _GPU_MODELS},
    "gpu-bulk-ms-marco-minilm": Run("gpu_bulk.py", ("--model", "ms-marco-minilm"), ("--texts", "2")),
    **{f"gpu-gemm-{name}": Run("gpu_gemm.py", ("--model", name), ("--texts", "64")) for name in ("base", "large")},
    **{f"gpu-swap-{name}": Run("gpu_swap.py", ("--model", name), ()) for name in ("bge-base", "bge-m3")},
    "gpu-parts": Run("gpu_parts.py", (), ()),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--gpu", action="store_true", help="the GPU set, which needs an NVIDIA device")
    parser.add_argument("--only", nargs="+", help="default all of the set")
    parser.add_argument("--small", action="store_true")
    asked = parser.parse_args()
    results = TRIAL if asked.small else RESULTS
    runs = GPU_RUNS if asked.gpu else RUNS
    names = asked.only or list(runs)
    if unknown := [name for name in names if name not in runs]:
        parser.error(f"not in the set: {', '.join(unknown)}; it holds {', '.join(runs)}")
    finished = [measured(name, runs[name], results, asked.rounds, asked.small) for name in names]
    more = [*(["--gpu"] if asked.gpu else []), *([] if asked.small else ["--write"])]
    report = [sys.executable, "benchmarks/report.py", "--results", str(results), *more]
    reported = subprocess.run(report, cwd=ROOT).returncode == 0
    return 0 if reported and all(finished) else 1


def measured(name: str, run: Run, results: Path, rounds: int, small: bool) -> bool:
    """Run one script and return whether it ended with a result; keep that it failed if not."""
    kept = results / f"{name}.json"
    kept.unlink(missing_ok=True)
    arguments = [*run.arguments, "--rounds", str(rounds), *(run.small if small else ())]
    print(f"── {name}", flush=True)
    command = [sys.executable, f"benchmarks/{run.script}", *arguments, "--json", str(kept)]
    status = subprocess.run(command, cwd=ROOT).returncode
    if kept.exists():
        return True
    Outcome(name, [], failure=f"ended with status {status} and no result").write(kept)
    return False


if __name__ == "__main__":
    raise SystemExit(main())
