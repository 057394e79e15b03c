"""Settings: where they come from, what is refused, and that each is declared once."""

import signal
from dataclasses import replace
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tercet.errors import InvalidInputError
from tercet_server.options import settings_options
from tercet_server.settings import FIELDS, Settings, Sources, default_of, flag_of, variable_of


def written(folder: Path, text: str) -> str:
    path = folder / "tercet.toml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_flags_go_before_the_environment_and_that_before_the_file(tmp_path):
    config = written(tmp_path, 'port = 1\nhost = "0.0.0.0"\nmodels = ["a/b", "c/d"]\n[aliases]\nx = "a/b"\n')
    environment = {"TERCET_PORT": "2", "TERCET_DEVICE": "cpu", "TERCET_CONFIG": config, "HOME": "/"}
    settings = Sources({"port": "3", "device": None, "models": ()}, environment).read()
    assert (settings.port, settings.host, settings.device) == (3, "0.0.0.0", "cpu")
    assert settings.models == ("a/b", "c/d") and settings.aliases == {"x": "a/b"}
    assert Sources({}, environment).read().port == 2
    assert Sources({"config": config}).read().port == 1
    assert Sources().read() == Settings()


def test_lists_and_tables_are_written_with_commas_in_variables():
    environment = {"TERCET_MODELS": "a/b, c/d", "TERCET_ALIASES": "x=a/b,y=c/d@main", "TERCET_ALLOW_DOWNLOAD": "yes"}
    settings = Sources({}, environment).read()
    assert settings.models == ("a/b", "c/d") and settings.aliases == {"x": "a/b", "y": "c/d@main"}
    assert settings.allow_download is True


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"TERCET_PROT": "1"}, "unknown variable TERCET_PROT; known: TERCET_ALIASES"),
        ({"TERCET_PORT": "eighty"}, "TERCET_PORT='eighty': give a whole number"),
        ({"TERCET_PORT": "-1"}, "TERCET_PORT='-1': the smallest value is 0"),
        ({"TERCET_PORT": "65536"}, "port must be 0 to 65535"),
        ({"TERCET_TIMEOUT_S": "0"}, "number of seconds above 0"),
        ({"TERCET_TIMEOUT_S": "inf"}, "number of seconds above 0"),
        ({"TERCET_ALLOW_DOWNLOAD": "maybe"}, "give one of true"),
        ({"TERCET_MAX_BODY_BYTES": "big"}, "TERCET_MAX_BODY_BYTES: 'big' is not a memory size"),
        ({"TERCET_ALIASES": "x"}, "give NAME=MODEL"),
        ({"TERCET_DEFAULTS": "image=a/b"}, "'image' is not one of dense"),
        ({"TERCET_LOG_LEVEL": "loud"}, "is not one of debug"),
        ({"TERCET_CONFIG": "/nowhere.toml"}, "cannot be read"),
    ],
)
def test_a_wrong_variable_is_named_with_what_is_allowed(environment, message):
    with pytest.raises(InvalidInputError) as caught:
        Sources({}, environment).read()
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("prot = 1", "unknown key 'prot'; known: host, port"),
        ("config = 'x'", "unknown key 'config'"),
        ("port = 'x'", "port='x': give a whole number"),
        ("port = 1.5", "give a whole number"),
        ("port = true", "give a whole number"),
        ("models = [1]", "give texts"),
        ("port = ", "is not TOML"),
    ],
)
def test_a_wrong_file_is_named_with_what_is_allowed(tmp_path, text, message):
    with pytest.raises(InvalidInputError) as caught:
        Sources({"config": written(tmp_path, text)}).read()
    assert message in caught.value.message and "tercet.toml" in caught.value.message


def test_keys_stay_out_of_messages():
    with pytest.raises(InvalidInputError) as caught:
        Sources({"api_keys": 12345678}).read()
    assert "12345678" not in caught.value.message


def command(given):
    @click.command()
    @settings_options
    def serve(**flags):
        given.update(flags)

    return serve


def test_every_setting_but_the_keys_has_an_option_and_its_help_names_its_variable():
    given = {}
    text = " ".join(CliRunner().invoke(command(given), ["--help"], terminal_width=200).output.split())
    for name, item in FIELDS.items():
        assert variable_of(item) == "TERCET_" + name.upper()
        if (flag := flag_of(item)) is None:
            assert name == "api_keys"
            continue
        assert flag in text and f"[{variable_of(item)}]" in text


def test_options_give_settings_and_wrong_ones_are_wrong_usage():
    given = {}
    arguments = [
        "--model",
        "a/b",
        "--model",
        "c/d",
        "--alias",
        "x=a/b",
        "--port",
        "9",
        "--allow-download",
        "--memory-budget",
        "2GiB",
    ]
    result = CliRunner().invoke(command(given), arguments)
    assert result.exit_code == 0, result.output
    settings = Sources(given, {"TERCET_MODELS": "other"}).read()
    expected = {"models": ("a/b", "c/d"), "aliases": {"x": "a/b"}, "port": 9, "memory_budget": "2GiB"}
    assert settings == replace(Settings(), allow_download=True, **expected)
    wrong = CliRunner().invoke(command(given), ["--port", "x"])
    assert wrong.exit_code == 2 and "--port='x': give a whole number" in wrong.output


def test_every_setting_has_help_and_a_default_of_its_own_type():
    for name, item in FIELDS.items():
        assert item.metadata["help"].endswith("."), name
        assert getattr(Settings(), name) == default_of(item)
    assert signal.Signals.SIGHUP  # reloads need it


def test_the_allow_list_says_what_may_be_used_and_downloaded():
    anything = Settings()
    assert anything.may_use("x/y") and not anything.may_download("x/y")
    some = Settings(allow=("BAAI/*",), models=("own/model",), aliases={"a": "other/model"})
    assert some.may_use("BAAI/bge-m3") and some.may_use("own/model") and some.may_use("other/model")
    assert not some.may_use("x/y") and not some.may_use("BAA/x")
    assert some.may_download("BAAI/bge-m3") and not some.may_download("own/model")
    assert replace(some, allow_download=True).may_download("own/model")
