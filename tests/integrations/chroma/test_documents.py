"""What the README and the example say is what happens."""

import runpy
import sys
from pathlib import Path

import pytest

import tercet_chroma
from support.snippets import check_python

ROOT = Path(__file__).parents[3]
README = ROOT / "integrations" / "chroma" / "README.md"
EXAMPLE = ROOT / "examples" / "chroma_hybrid.py"


@pytest.mark.slow
def test_snippets_print_what_the_readme_says():
    assert check_python(README) >= 5


def test_every_public_name_is_told_of():
    text = README.read_text(encoding="utf-8")
    untold = [name for name in tercet_chroma.__all__ if name not in text]
    assert untold == ["RankedResult"], "which queries return and nobody makes"


@pytest.mark.slow
def test_the_example_finds_what_was_asked_for(tmp_path, monkeypatch, capsys):
    assert len(EXAMPLE.read_text(encoding="utf-8").splitlines()) < 60
    arguments = ["compare two lists of lines and show the differences", "--path", str(tmp_path / "chroma")]
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), *arguments, "--modules", "difflib,glob,sched"])
    for _ in range(2):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
        lines = capsys.readouterr().out.splitlines()
        assert lines[0] == "hybrid" and lines[4] == "hybrid + MaxSim"
        assert "difflib." in lines[1] and "difflib." in lines[5]
