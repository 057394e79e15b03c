"""The page at `/`: what it asks the server for, and the whole of it in a real browser."""

import re
from importlib.resources import files

import numpy as np
import pytest

from support.browser import chromium
from support.loopback import loopback
from support.servers import client_of, in_process
from tercet import Engine
from tercet_server.app import create_app
from tercet_server.settings import Settings

anyio = pytest.mark.anyio
MODEL = "sentence-transformers/all-MiniLM-L6-v2"
PAGE = files("tercet_server").joinpath("page")


# ── what the server answers ──────────────────────────────────────────────────────────────────────────────────────────


@anyio
async def test_every_part_of_the_page_is_served(engine):
    async with client_of(create_app(engine, Settings(api_keys=("read secret-key",)))) as client:
        answer = await client.get("/")
        assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/html")
        policy = dict(part.strip().split(" ", 1) for part in answer.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == "'none'" and policy["script-src"] == policy["connect-src"] == "'self'"
        wanted = set(re.findall(r'(?:href|src)="(page/[^"]+)"', answer.text))
        names = {f"page/{file.name}" for file in PAGE.iterdir() if file.suffix in (".js", ".css", ".svg")}
        assert wanted < names
        for name in names:
            part = await client.get(f"/{name}")
            assert part.status_code == 200 and part.headers["x-content-type-options"] == "nosniff"
            assert ("javascript" in part.headers["content-type"]) == name.endswith(".js")
            imported = set(re.findall(r'from "\./([^"]+)"', part.text)) if name.endswith(".js") else set()
            assert {f"page/{other}" for other in imported} <= names


@pytest.mark.parametrize("name", [file.name for file in PAGE.iterdir() if file.suffix in (".js", ".css", ".html")])
def test_the_page_names_no_other_host(name):
    text = PAGE.joinpath(name).read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|//[a-z]+\.", text)


def test_nothing_in_the_page_is_inline():
    text = PAGE.joinpath("index.html").read_text(encoding="utf-8")
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]*\ssrc=)", text)


@anyio
async def test_status_tells_of_models_before_they_are_opened(tiny):
    with Engine(device="cpu", precision="float32") as engine:
        async with client_of(create_app(engine, Settings(aliases={"a": tiny, "b": tiny}))) as client:
            status = (await client.get("/v1/status")).json()
            (model,) = status["models"]
            assert (model["id"], model["state"], model["aliases"], model["outputs"]) == (
                tiny,
                "available",
                ["a", "b"],
                [],
            )
            await client.post("/v1/encode/a", json={"items": ["a"]})
            status = (await client.get("/v1/status")).json()
        (model,) = status["models"]
        assert (model["state"], model["loads"]) == ("resident", 1) and "dense" in model["outputs"]
        assert model["resident_bytes"] == status["memory"]["used_bytes"] > 0
        assert status["totals"]["requests"] == 1 and status["totals"]["tokens"] > 0


@anyio
async def test_tokens_are_those_of_the_vocabulary(engine, settings, tiny):
    checkpoint = engine.checkpoint(tiny)
    async with in_process(engine, settings) as client:
        answer = await client.post("/v1/tokens/tiny", json={"ids": [5, 6, 10**6]})
        assert answer.json()["tokens"] == [*checkpoint.tokens([5, 6]), None]
        wrong = await client.post("/v1/tokens/tiny", json={"ids": [-1]})
        assert wrong.status_code == 400
        row = engine.encode("bm25", "swift foxes jump", output_types=["sparse"])["sparse"]
        body = {"ids": row.indices.tolist(), "text": "swift foxes jump"}
        found = (await client.post("/v1/tokens/bm25", json=body)).json()["tokens"]
        assert sorted(found) == ["foxes", "jump", "swift"]
        refused = await client.post("/v1/tokens/bm25", json={"text": "a"})
        assert refused.status_code == 400 and refused.json()["error"]["code"] == "unsupported_operation"


def similarities(engine, model, query, document):
    """Return the engine's matrix, (tokens of the query, tokens of the document)."""
    asked = engine.encode(model, query, is_query=True, output_types=["multivector"])["multivector"]
    return asked @ engine.encode(model, document, output_types=["multivector"])["multivector"].T


@anyio
async def test_an_interaction_is_the_engines_maxsim(engine, settings, tiny):
    query, document = "the lazy dog", "hello world, numbers and words"
    async with in_process(engine, settings) as client:
        body = {"query": query, "document": document}
        answer = (await client.post("/v1/interaction/tiny", json=body)).json()
        named = (await client.post("/v1/tokens/tiny", json={"text": document})).json()["tokens"]
    matrix = similarities(engine, tiny, query, document)
    np.testing.assert_array_equal(np.array(answer["similarities"], np.float32), matrix)
    assert matrix.shape == (len(answer["query_tokens"]), len(answer["document_tokens"]))
    assert answer["document_tokens"] == named
    score = engine.score(tiny, query, [document], options={"scoring": "maxsim"}).scores[0]
    assert answer["score"] == pytest.approx(score, rel=1e-6) and answer["over_query"] == "sum"


# ── in a browser ─────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("browser") / "profile") as browser:
        yield browser


@pytest.fixture(scope="module")
def minilm():
    with Engine(device="cpu", precision="float32") as engine:
        yield engine


@pytest.fixture(scope="module")
def url(minilm):
    with loopback(create_app(minilm, Settings(models=(MODEL, "bm25"), aliases={"minilm": MODEL}))) as url:
        yield url


@pytest.fixture
def page(browser, url):
    """Return the page, ready; at the end nothing has been complained about and nobody else was asked."""
    page = browser.page()
    page.open(f"{url}/")
    page.until("document.querySelectorAll('#model option').length === 2")
    page.until("document.querySelector('#state').textContent === 'ready'")
    yield page
    assert page.complaints == []
    assert page.requests and all(asked.startswith(f"{url}/") for asked in page.requests)


def put(page, place, text):
    page.run(f"document.querySelector({place!r}).focus(), document.querySelector({place!r}).select()")
    page.type(text)


def choose(page, model):
    page.run(f"$model = document.querySelector('#model'), $model.value = {model!r}")
    page.run("$model.dispatchEvent(new Event('change'))")


def texts(page, place):
    return page.run(f"[...document.querySelectorAll({place!r})].map(node => node.textContent)")


@pytest.mark.slow
def test_the_page_shows_what_the_server_does(page, minilm):
    page.until("document.querySelectorAll('#models tr').length === 2")
    rows = texts(page, "#models tr")
    (info,) = [info for info in minilm.models() if info.id == MODEL]
    assert any(MODEL in row and "resident" in row and "also minilm" in row for row in rows)
    assert f"{info.size_bytes / 2**20:.1f} MiB" in texts(page, "#memory")
    assert page.run("document.querySelectorAll('#budget i').length") == 1
    page.until("document.querySelector('#requests-rate').textContent !== '–'")
    before = page.run("document.querySelector('#tokens-note').textContent")
    page.run("document.querySelector('#encode').requestSubmit()")
    page.until(f"document.querySelector('#tokens-note').textContent !== {before!r}")


@pytest.mark.slow
def test_texts_are_encoded(page, minilm):
    assert page.run("[...document.querySelectorAll('[name=output]')].map(box => [box.checked, box.disabled])") == [
        [True, False], [False, True], [True, False]]  # fmt: skip
    put(page, "#encode-text", "swift foxes")
    page.run("document.querySelector('#encode').requestSubmit()")
    page.until("document.querySelectorAll('#encode .tokens .token').length")
    vector = minilm.encode(MODEL, "swift foxes")["dense"]
    titles = page.run("[...document.querySelectorAll('#encode .vector')[0].children].map(cell => cell.title)")
    assert titles == [f"{i}: {value:.4f}" for i, value in enumerate(vector.tolist())]
    count = len(minilm.encode(MODEL, "swift foxes", output_types=["multivector"])["multivector"])
    assert texts(page, "#encode .token") == ["[CLS]", "swift", "foxes", "[SEP]"] and count == 4


@pytest.mark.slow
def test_sparse_terms_have_their_words(page, minilm):
    choose(page, "bm25")
    put(page, "#encode-text", "jumping foxes, foxes everywhere")
    page.run("document.querySelector('#encode').requestSubmit()")
    page.until("document.querySelector('#sparse-terms')")
    row = minilm.encode("bm25", "jumping foxes, foxes everywhere", output_types=["sparse"])["sparse"]
    words, weights = texts(page, "#sparse-terms .token"), texts(page, "#sparse-terms .number")
    assert words[0] == "foxes" and sorted(words) == ["everywhere", "foxes", "jumping"]
    assert weights == [f"{value:.3f}" for value in sorted(row.values.tolist(), reverse=True)]


@pytest.mark.slow
def test_documents_are_reranked(page, minilm):
    documents = ["bread and butter", "an animal that barks", "tax law"]
    page.run("document.querySelector('#tab-rerank').click()")
    put(page, "#rerank-query", "dog")
    put(page, "#rerank-documents", "\n".join(documents))
    page.run("document.querySelector('#rerank').requestSubmit()")
    page.until("document.querySelectorAll('.ranking li').length === 3")
    scores = minilm.score(MODEL, "dog", documents)
    shown = page.run("[...document.querySelectorAll('.ranking li')].map(li => [+li.dataset.index, +li.dataset.score])")
    assert [index for index, _ in shown] == [score.index for score in scores]
    np.testing.assert_allclose([score for _, score in shown], [score.score for score in scores], atol=1e-6)
    page.run("document.querySelector('.ranking button').click()")
    page.until("document.querySelector('.heat td.best')")
    assert page.run("document.querySelector('#interaction-document').value") == documents[scores[0].index]


@pytest.mark.slow
def test_the_heat_map_is_the_engines_maxsim(page, minilm):
    query, document = "which birds cannot fly?", "Penguins never leave the ground."
    page.run("document.querySelector('#tab-interaction').click()")
    put(page, "#interaction-query", query)
    put(page, "#interaction-document", document)
    page.run("document.querySelector('#interaction').requestSubmit()")
    page.until("document.querySelector('.heat td.best')")
    rows = "[...document.querySelectorAll('.heat tbody tr')]"
    cells = page.run(f"{rows}.map(row => [...row.querySelectorAll('[data-value]')].map(cell => +cell.dataset.value))")
    matrix = similarities(minilm, MODEL, query, document)
    np.testing.assert_array_equal(np.array(cells, np.float32), matrix)
    best = page.run(f"{rows}.map(row => [...row.querySelectorAll('td')].findIndex(cell => cell.matches('.best')))")
    assert best == matrix.argmax(1).tolist()
    assert texts(page, ".heat .sum") == [f"{value:.3f}" for value in matrix.max(1).tolist()]
    score = page.run("+document.querySelector('#interaction [data-score]').dataset.score")
    maxsim = minilm.score(MODEL, query, [document], options={"scoring": "maxsim"}).scores[0]
    assert score == pytest.approx(float(maxsim), rel=1e-6)
    assert texts(page, ".heat tbody th") == ["[CLS]", "which", "birds", "cannot", "fly", "?", "[SEP]"]


@pytest.mark.slow
def test_mistakes_are_told_in_place(page):
    put(page, "#encode-text", " ")
    page.run("document.querySelector('[name=output]').click()")
    page.run("[...document.querySelectorAll('[name=output]')].forEach(box => { box.checked = false })")
    page.run("document.querySelector('#encode').requestSubmit()")
    page.until("document.querySelector('#encode .fault')")
    assert texts(page, "#encode .fault") == ["choose at least one output"]
    assert not page.run("document.querySelector('#encode button.main').disabled")


@pytest.mark.slow
def test_the_keyboard_is_enough(page):
    page.run("document.querySelector('#tab-encode').focus()")
    for key, code, chosen in (("ArrowRight", 39, "rerank"), ("End", 35, "interaction"), ("ArrowRight", 39, "encode")):
        page.press(key, code)
        assert page.run("document.activeElement.id") == f"tab-{chosen}"
        assert page.run("[...document.querySelectorAll('[role=tabpanel]')].filter(p => !p.hidden).map(p => p.id)") == [
            chosen
        ]
    unnamed = "[...document.querySelectorAll('input, textarea, select')].filter(field => !field.labels.length).length"
    assert page.run(unnamed) == 0


@pytest.mark.slow
def test_dark_and_light_are_two_grounds(browser, url):
    grounds = []
    for scheme in ("light", "dark"):
        page = browser.page(scheme=scheme)
        page.open(f"{url}/")
        page.until("document.querySelector('#state').textContent === 'ready'")
        grounds.append(page.run("getComputedStyle(document.body).backgroundColor"))
    assert len(set(grounds)) == 2


@pytest.mark.slow
def test_a_key_is_asked_for_and_kept_in_memory_alone(browser, minilm):
    with loopback(create_app(minilm, Settings(models=(MODEL,), api_keys=("read secret-key",)))) as url:
        page = browser.page()
        page.open(f"{url}/")
        page.until("!document.querySelector('#key-form').hidden")
        assert page.run("document.querySelector('#models').textContent") == "…"
        put(page, "#key", "secret-key")
        page.press("Enter", 13)
        page.until("document.querySelector('#state').textContent === 'ready'")
        page.run("document.querySelector('#encode').requestSubmit()")
        page.until("document.querySelectorAll('#encode .vector').length")
        kept = page.run("[localStorage.length, sessionStorage.length, document.cookie, location.href]")
        assert kept == [0, 0, "", f"{url}/"]
        assert [text for text in page.complaints if "401" not in text] == []
