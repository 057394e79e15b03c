"""Settings of the whole suite."""

import gc
import signal
from collections import Counter

import pytest
from hypothesis import settings

# A busy machine is no failure: no test here measures time. And a run draws the examples that the one before it drew, so
# that only a change can make it fail; `make fuzz` looks for new ones.
settings.register_profile("same", deadline=None, print_blob=True, derandomize=True)
settings.register_profile("search", deadline=None, print_blob=True)
settings.load_profile("same")

# A shell that starts this in its background has it ignore Ctrl-C, and so would the processes that tests interrupt.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuse tests that share an id: pytest-xdist would run the first of them and count it as all."""
    shared = [name for name, count in Counter(item.nodeid for item in items).items() if count > 1]
    if shared:
        raise pytest.UsageError(f"Several tests have one id: {', '.join(shared)}. Give each its own.")


def pytest_collection_finish() -> None:
    """Have the garbage collector pass over the thousands of tests and modules, which all stay: a tenth of the time."""
    gc.collect()
    gc.freeze()
