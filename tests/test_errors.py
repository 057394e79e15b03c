import inspect
import pickle
import re

import pytest

import tercet
from tercet import errors
from tercet.errors import TercetError

CLASSES = [c for _, c in inspect.getmembers(errors, inspect.isclass) if c.__module__ == errors.__name__]


@pytest.mark.parametrize("kind", CLASSES)
def test_each_class_survives_a_process_boundary(kind: type[TercetError]) -> None:
    error = pickle.loads(pickle.dumps(kind("what happened", retry_after_s=1.5)))
    assert type(error) is kind and str(error) == error.message == "what happened" and error.retry_after_s == 1.5


def test_codes_are_unique_and_statuses_are_http() -> None:
    assert len({kind.code for kind in CLASSES}) == len(CLASSES)
    assert all(kind.status == 0 or 400 <= kind.status < 600 for kind in CLASSES)
    assert {kind.status for kind in CLASSES if kind.retryable} == {0, 429, 503, 504}


def test_the_tree_in_the_docstring_is_the_tree() -> None:
    drawn = set(re.findall(r"[├└] (\w+)", errors.__doc__))
    assert drawn == {kind.__name__ for kind in CLASSES} - {"TercetError"}
    assert all(kind.__mro__[1] is TercetError for kind in CLASSES if kind is not TercetError)


def test_every_error_is_exported() -> None:
    assert {kind.__name__ for kind in CLASSES} <= set(tercet.__all__)


def test_a_message_that_quotes_too_much_loses_its_middle() -> None:
    error = errors.InvalidInputError(f"got {'x' * 10**6}; give less")
    assert len(error.message) <= 2_000 and str(error) == error.message
    assert error.message.startswith("got xxx") and error.message.endswith("xxx; give less")
    assert pickle.loads(pickle.dumps(error)).message == error.message
