"""From words to what encodes: the same words, the same object, and clear refusals."""

import gc
import importlib.util

import pytest

from tercet import Client, InvalidInputError, connect
from tercet.connect import reference

URL = "http://127.0.0.1:9"


class Encoder:
    def encode(self, model, items, **keywords): ...
    def score(self, model, query, items, **keywords): ...
    def models(self): ...
    def describe(self, model): ...


def test_an_object_is_itself():
    encoder = Encoder()
    assert connect(encoder) is encoder


def test_the_same_words_give_the_same_client(monkeypatch):
    assert isinstance(connect(URL), Client)
    assert connect(URL) is connect(URL, api_key_env=None)
    monkeypatch.setenv("TERCET_TEST_KEY", "secret")
    assert connect(URL, api_key_env="TERCET_TEST_KEY") is not connect(URL)


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="the engine needs torch")
def test_local_is_one_engine_for_each_way_to_run_it():
    assert connect("local", device="cpu") is connect(device="cpu", precision=None)
    assert connect(device="cpu", precision="bfloat16") is not connect(device="cpu")


@pytest.mark.parametrize(
    ("inference", "choices", "message"),
    [
        ("remote", {}, "give 'local', a server's URL"),
        (3, {}, "inference is int"),
        (object(), {}, "inference is object"),
        (Encoder(), {"device": "cpu"}, "device does not belong to an object that encodes; it takes no choices"),
        (URL, {"device": "cpu"}, "device does not belong to a server; it takes api_key_env"),
        ("local", {"api_key_env": "X"}, "api_key_env does not belong to 'local'"),
        (URL, {"api_key_env": "TERCET_NO_SUCH_KEY"}, "TERCET_NO_SUCH_KEY, which is to hold the server's API key"),
        ("object:12", {}, "an object of another process"),
    ],
)
def test_mistakes_say_what_to_do(inference, choices, message):
    with pytest.raises(InvalidInputError, match=message):
        connect(inference, **choices)


def test_an_object_can_be_referred_to_for_as_long_as_it_lives():
    encoder = Encoder()
    name = reference(encoder)
    assert connect(name) is encoder and reference("local") == "local"
    del encoder
    gc.collect()
    with pytest.raises(InvalidInputError, match="object of another process"):
        connect(name)
