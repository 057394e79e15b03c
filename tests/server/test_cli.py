import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tercet.version import __version__
from tercet_server.cli import main
from tercet_server.commands import COMMANDS, tercet
from tercet_server.commands.reference import MARK, reference, write

ROOT = Path(__file__).parents[2]
CALL = "import sys; from tercet_server.cli import main; sys.exit(main(sys.argv[1:]))"


def without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `tercet` where a module is not installed."""
    script = f"import sys; sys.modules[{module!r}] = None\n{CALL}"
    return subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"tercet, version {__version__}\n"


def test_help_names_the_commands_and_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    listed = re.findall(r"^  (\w+)  +(\S.*)$", out.partition("Commands:")[2], re.MULTILINE)
    assert [name for name, _ in listed][: len(COMMANDS)] == [command.name for command in COMMANDS]
    assert not any(line.endswith("...") for _, line in listed) and "130 interrupted" in out
    assert main(["demo", "--help"]) == 0
    assert "[QUESTION]..." in capsys.readouterr().out


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.name)
def test_every_option_is_documented(command: click.Command) -> None:
    assert command.help
    options = [parameter for parameter in command.params if isinstance(parameter, click.Option)]
    assert options and [option.name for option in options if not option.help] == []


def test_the_manual_is_that_of_the_commands(tmp_path: Path) -> None:
    manual = ROOT / "docs" / "cli.md"
    text = manual.read_text(encoding="utf-8")
    assert text.endswith(reference()), f"run {MARK.strip()}"
    copy = tmp_path / "cli.md"
    copy.write_text("# Before\n" + MARK + "old")
    write(copy)
    assert copy.read_text(encoding="utf-8") == "# Before\n" + reference()


@pytest.mark.parametrize(
    "arguments", [["frobnicate"], ["demo", "--top", "0"], ["demo", "--frob"], ["--frob"], ["encode"]]
)
def test_wrong_usage_is_2_and_says_what_is_wrong(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    assert "Error:" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["click", "rich", "torch"])
def test_what_is_missing_is_named_with_the_command_that_installs_it(module: str) -> None:
    done = without(module, "demo")
    assert done.returncode == 1
    assert done.stderr == f"tercet: {module} is not installed: pip install 'tercet[demo]'\n"


@pytest.mark.slow
def test_servers_and_files_need_another_extra_than_the_demo() -> None:
    assert without("msgspec", "serve").stderr == "tercet: msgspec is not installed: pip install 'tercet[server]'\n"
    assert "pip install 'tercet[server]'" in without("orjson", "encode", "bm25").stderr


@pytest.mark.parametrize("module", ["torch", "rich", "orjson", "pyarrow", "uvicorn"])
def test_help_needs_nothing_but_click(module: str) -> None:
    script = f"""
import sys; sys.modules[{module!r}] = None
from tercet_server.cli import main
sys.exit(max(main([*names, "--help"]) for names in {[[], *([name] for name in tercet.commands)]!r}))
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, check=False).returncode == 0


def completed(words: str) -> list[str]:
    """Return what bash is offered for the last of the words."""
    environment = {"_TERCET_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    done = subprocess.run(
        [sys.executable, "-c", CALL], env={**os.environ, **environment}, capture_output=True, text=True, check=True
    )
    return [line.partition(",")[2] for line in done.stdout.splitlines()]


@pytest.mark.slow
def test_bash_completes_commands_options_values_and_models() -> None:
    assert completed("tercet en") == ["encode"]
    assert "--output-type" in completed("tercet encode --out")
    assert completed("tercet encode --output-type s") == ["sparse"]
    assert completed("tercet encode BAAI/bge-m") == ["BAAI/bge-m3"]


def test_bash_takes_the_completion_script() -> None:
    manual = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8")
    (line,) = re.findall(r"^(eval .*bash_source tercet\)\")", manual, re.MULTILINE)
    folder = Path(sys.executable).parent
    script = f"PATH={folder}:$PATH; set -e; {line}; complete -p tercet"
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("complete ") and done.stdout.endswith(" tercet\n")


@pytest.mark.slow
def test_interrupting_the_demo_is_130_without_a_traceback() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-c", CALL, "demo"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )
    try:
        assert demo.stdout.readline()  # the passages are read, encoding begins
        demo.send_signal(signal.SIGINT)
        out, err = demo.communicate(timeout=120)
    finally:
        demo.kill()
    assert demo.returncode == 130
    assert err.strip() == "tercet: interrupted" and out == ""


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_whole_demo_finds_the_dict_reader() -> None:
    question = "read a csv file into dictionaries"
    done = subprocess.run(
        [sys.executable, "-c", CALL, "demo", question], capture_output=True, text=True, check=True, timeout=1200
    )
    header, *_ = [i for i, line in enumerate(done.stdout.splitlines()) if "hybrid + rerank" in line]
    first = done.stdout.splitlines()[header + 3].split()
    assert first[0] == "csv.DictReader" and first.count("csv.DictReader") >= 3
    assert done.stderr == ""
