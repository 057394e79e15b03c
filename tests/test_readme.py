"""The README's Python runs and prints what it says; its commands exist."""

import re
import shlex
from pathlib import Path

import pytest

from support.servers import live_server
from support.snippets import check_python
from tercet_server.cli import main

ROOT = Path(__file__).parents[1]
MINILM = "sentence-transformers/all-MiniLM-L6-v2"
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_snippets_print_what_the_readme_says() -> None:
    assert check_python(ROOT / "README.md", but="Over HTTP") >= 8


@pytest.mark.slow
def test_the_minute_over_http_is_as_the_readme_says() -> None:
    with live_server({"models": (MINILM,)}) as server:
        replaced = {"http://127.0.0.1:8080": server.url}
        assert check_python(ROOT / "README.md", only="Over HTTP", replaced=replaced) == 3


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    named = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"demo", "test", "check"} <= named <= targets


@pytest.mark.parametrize("command", sorted(set(re.findall(r"`(tercet [^`]+)`", README))))
def test_commands_exist(command: str) -> None:
    assert main([*shlex.split(command)[1:2], "--help"]) == 0


def test_links_lead_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)]+)\)", README) if "://" not in target]
    assert targets
    assert all((ROOT / target).exists() for target in targets)
