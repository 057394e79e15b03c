"""The same table from an engine in this process and from a server: the same vectors, the same rankings."""

import asyncio

import lancedb
import pytest

from support.lancedb_tables import M3, rows
from support.servers import live_server
from tercet import AuthenticationError, VectorSpec
from tercet_lancedb import LateInteractionReranker, TercetReranker, ahybrid, create_indices, embed_table, hybrid

SPEC = VectorSpec(dense=M3, sparse=M3, multivector=M3)
QUESTIONS = ["lazy dog, note 7", "spring in the city", "hello numbers"]
KEY = "a-key-of-the-test"


@pytest.fixture(scope="module")
def server(cache, tmp_path_factory):
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n")
    flags = {"models": M3, "cache_dir": str(cache), "device": "cpu", "precision": "float32", "api_key_file": str(keys)}
    with live_server(flags) as server:
        yield server


def answers(table, inference, **choices):
    """Return what every kind of search answers."""
    rerankers = [None, LateInteractionReranker.of(table.schema), TercetReranker(M3, inference, **choices)]
    legs = [("dense",), ("sparse",), ("multivector",), ("dense", "sparse", "text")]
    asked = [(q, {"legs": leg}) for q in QUESTIONS for leg in legs] + [
        (q, {"reranker": r}) for q in QUESTIONS for r in rerankers
    ]
    return [hybrid(table, question, 9, **how) for question, how in asked]


@pytest.mark.slow
def test_both_fill_and_ask_alike(engine, server, tmp_path, monkeypatch):
    monkeypatch.setenv("LANCE_TEST_KEY", KEY)
    db = lancedb.connect(tmp_path)
    ours = embed_table(db, "local", rows(60), SPEC, engine, batch_size=32)
    theirs = embed_table(db, "server", rows(60), SPEC, server.url, batch_size=32, api_key_env="LANCE_TEST_KEY")
    assert ours.to_arrow().equals(theirs.to_arrow())
    for table in (ours, theirs):
        create_indices(table)
    expected = answers(ours, engine)
    found = answers(theirs, server.url, api_key_env="LANCE_TEST_KEY")
    assert all(a.equals(b) for a, b in zip(expected, found, strict=True)) and len(expected) == 21
    asked = theirs.search(QUESTIONS[0], vector_column_name="vector").distance_type("cosine").limit(5).to_arrow()
    assert asked.equals(
        ours.search(QUESTIONS[0], vector_column_name="vector").distance_type("cosine").limit(5).to_arrow()
    )

    async def ask(name):
        opened = await (await lancedb.connect_async(tmp_path)).open_table(name)
        return await ahybrid(opened, QUESTIONS[0], 9, reranker=LateInteractionReranker.of(await opened.schema()))

    assert asyncio.run(ask("server")).equals(asyncio.run(ask("local")))
    seen = []
    embed_table(db, "server", rows(60), SPEC, engine, progress=seen.append)
    assert seen[-1].unchanged == 60  # the fingerprints are one
    assert KEY.encode() not in b"".join(theirs.schema.metadata.values())


@pytest.mark.slow
def test_a_key_that_is_missing_is_said_as_it_is(server, db):
    with pytest.raises(AuthenticationError):
        embed_table(db, "docs", rows(3), SPEC, server.url)
