"""The catalogue is well formed, and says only what it may."""

from __future__ import annotations

import re

import pytest

from tercet.checkpoints.catalog import Catalog, SidePrompts, catalog


def test_every_id_is_a_hub_id() -> None:
    for model in catalog().ids:
        assert re.fullmatch(r"([\w.-]+/)?[\w.-]+", model), model


def test_models_are_listed_once() -> None:
    listed = [model for models in catalog().models.values() for model in models]
    assert len(listed) == len(set(listed))


def test_packages_declare_a_digest_for_their_weights() -> None:
    for package in catalog().packages.values():
        assert package.sha256
        assert all(re.fullmatch(r"[0-9a-f]{64}", digest) for digest in package.sha256.values())
        assert "/" in package.ids[0], "the first id is the hub's"


def test_prompts_reach_every_id_of_their_entry() -> None:
    prompts = catalog().prompts
    assert prompts["intfloat/e5-base-v2"] == SidePrompts(query="query: ", document="passage: ")
    assert prompts["BAAI/bge-small-en-v1.5"].document is None
    assert all(side.query or side.document for side in prompts.values())


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ('[surprise]\nx = "y"', TypeError),
        ('[[prompts]]\nids = ["a"]\nquary = "q"', TypeError),
        ('[[pairs]]\nids = ["a"]\nstrategy = "x"\n[[pairs]]\nids = ["a"]\nstrategy = "y"', ValueError),
        ('[[prompts]]\nquery = "q"', KeyError),
    ],
)
def test_a_malformed_catalogue_is_refused(text: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        Catalog.from_toml(text)
