"""Models that the dialects' tests share: one with three outputs, one with prompts, a reranker."""

import json

import pytest

from support.servers import in_process
from support.tiny_models import save_bert, save_m3
from tercet_server.settings import Settings


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The directory of each model by its name; `m3` and `reranker` are loaded at the start."""
    made = {name: tmp_path_factory.mktemp(name) for name in ("m3", "prompted", "reranker")}
    save_m3(made["m3"])
    save_bert(made["prompted"], seed=1)
    prompts = {"query": "find: ", "document": "a page: ", "clustering": "group: "}
    (made["prompted"] / "config_sentence_transformers.json").write_text(json.dumps({"prompts": prompts}))
    save_bert(made["reranker"], seed=2, architecture="BertForSequenceClassification", num_labels=1)
    return {name: str(folder) for name, folder in made.items()}


@pytest.fixture(scope="session")
def served(models):
    """Settings under which they have their names, the reranker last."""
    return Settings(models=(models["m3"], models["reranker"]), aliases=models)


@pytest.fixture
async def client(engine, served):
    async with in_process(engine, served) as client:
        yield client
