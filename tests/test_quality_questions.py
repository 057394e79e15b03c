"""The questions behind docs/quality.md: their answers exist, and each kind is what it says it is."""

import re
import tomllib
from collections import Counter
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

import tercet
from tercet_server.demo.passages import read_passages, standard_library

FILE = Path(__file__).parents[1] / "benchmarks" / "questions.toml"
KINDS = {"keyword", "paraphrase", "mixed"}
STOPWORDS = (Path(tercet.__file__).parent / "checkpoints" / "stopwords" / "english.txt").read_text("utf-8").split()
RARE = 0.01  # of the passages


class Question(NamedTuple):
    kind: str
    id: str
    text: str
    answers: dict[str, int]


QUESTIONS = [
    Question(kind, id_, **question)
    for kind, questions in tomllib.loads(FILE.read_text("utf-8")).items()
    for id_, question in questions.items()
]


def of_kind(kind: str) -> list[Question]:
    return [question for question in QUESTIONS if question.kind == kind]


@cache
def texts() -> dict[str, str]:
    return {passage.path: passage.text for passage in read_passages(standard_library())}


@cache
def holding() -> Counter[str]:
    """Return how many passages hold each stem."""
    return Counter(stem for text in texts().values() for stem in stems(text))


def stems(text: str) -> set[str]:
    """Return the stems of the words, of an identifier's parts too, without stopwords and lone letters."""
    parted = re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", text)
    words = set(re.findall(r"\w+", f"{text} {parted}".lower())) - set(STOPWORDS)
    return {stem(word) for word in words if len(word) > 1}


def stem(word: str) -> str:
    """Return the word without its ending: `sorted` and `sorting` give `sort`, `copy` and `copies` give `cop`."""
    endings = r"(?:at)?(?:ions?|ings?|edly|ed|ors?|e)|ers?|es|ies|ly|al|ment|y|(?<!s)s"
    shorter = re.sub(rf"(?<=\w{{3}})(?:{endings})$", "", word)
    return shorter[:-1] if re.search(r"([^aeioulsz])\1$", shorter) else shorter  # `stopp` of `stopped`


def test_there_are_enough_of_each_kind() -> None:
    assert {question.kind for question in QUESTIONS} == KINDS
    assert len(QUESTIONS) >= 60
    assert all(len(of_kind(kind)) >= 24 for kind in KINDS)


def test_no_question_is_asked_twice() -> None:
    assert (
        len({question.id for question in QUESTIONS}) == len({question.text for question in QUESTIONS}) == len(QUESTIONS)
    )


@pytest.mark.slow
def test_every_answer_is_in_the_corpus_and_graded() -> None:
    answers = [(name, grade) for question in QUESTIONS for name, grade in question.answers.items()]
    assert [name for name, _ in answers if name not in texts()] == []
    assert {grade for _, grade in answers} == {1, 2}
    assert [question.id for question in QUESTIONS if 2 not in question.answers.values()] == []


@pytest.mark.parametrize("question", of_kind("keyword"), ids=lambda question: question.id)
def test_keyword_questions_hold_a_rare_word_of_each_answer(question: Question) -> None:
    rare = {word for word in stems(question.text) if holding()[word] <= RARE * len(texts())}
    assert [name for name, grade in question.answers.items() if grade == 2 and not rare & stems(texts()[name])] == []


@pytest.mark.parametrize("question", of_kind("paraphrase"), ids=lambda question: question.id)
def test_paraphrases_share_no_word_with_an_answer(question: Question) -> None:
    shared = {name: stems(question.text) & stems(texts()[name]) for name in question.answers}
    assert {name: words for name, words in shared.items() if words} == {}


@pytest.mark.parametrize(
    ("one", "other"),
    [("sorting", "sorts"), ("copies", "copy"), ("stopped", "stop"), ("passes", "pass"), ("create", "creation")],
)
def test_stems_join_the_forms_of_a_word(one: str, other: str) -> None:
    assert stems(one) == stems(other)


def test_stems_see_the_parts_of_an_identifier() -> None:
    assert {"dict", "read"} <= stems("csv.DictReader")
    assert {"set", "pasv"} <= stems("set_pasv")
