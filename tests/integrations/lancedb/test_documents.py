"""What a reader would run: the README's snippets and the example."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.snippets import check_python

ROOT = Path(__file__).parents[3]


@pytest.mark.slow
def test_the_readme_does_as_it_says(tmp_path):
    assert check_python(ROOT / "integrations/lancedb/README.md", {"folder": tmp_path}) == 5


@pytest.mark.slow
def test_the_example_finds_the_right_thing_first():
    script = ROOT / "examples" / "lancedb_hybrid.py"
    done = subprocess.run(
        [sys.executable, script, "what", "was", "changed?"], capture_output=True, text=True, check=True
    )
    shown = done.stdout.splitlines()
    assert len(shown) == 4 and shown[0] == "what was changed?" and shown[1].split()[1] == "difflib.unified_diff:"
