"""Triton's kernels on a CPU, by Triton's own interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

# Where `make test` installs it: it is large, and an environment without a GPU is to be as users have it.
FOLDER = Path(__file__).parents[2] / ".triton"

needs_triton = pytest.mark.skipif(
    not FOLDER.is_dir() and find_spec("triton") is None,
    reason="Triton is not installed; `make .triton/.installed` does",
)


def interpret(program: str) -> None:
    """Run a program in a process of its own: Triton decides when it is imported whether it interprets."""
    paths = [str(FOLDER), *sys.path]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(paths)}
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment)
    assert ran.returncode == 0, ran.stderr
