"""Jobs side by side: all results, the first error, and a process that can end."""

import subprocess
import sys
import threading

import pytest

from tercet.threads import is_deep, side_by_side, start_deep

NEVER_ENDING = """
import threading, sys
from tercet.threads import side_by_side

def fail():
    raise ValueError("the first error")

for _ in side_by_side([threading.Event().wait, fail], 2):
    pass
"""


def test_every_result_comes_with_its_place():
    jobs = [lambda n=n: n * n for n in range(20)]
    assert dict(side_by_side(jobs, 3)) == {n: n * n for n in range(20)}
    assert list(side_by_side([], 3)) == []


def test_no_more_run_at_once_than_allowed():
    running, most, lock = 0, 0, threading.Lock()

    def job():
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.01)
        with lock:
            running -= 1

    assert len(list(side_by_side([job] * 12, 3))) == 12
    assert most <= 3


def test_the_first_error_ends_it_and_the_rest_never_begins():
    begun = []

    def job(n):
        begun.append(n)
        if n == 1:
            raise ValueError("bad")
        return n

    with pytest.raises(ValueError, match="bad"):
        list(side_by_side([lambda n=n: job(n) for n in range(10)], 1))
    assert begun == [0, 1]


def test_a_job_that_never_ends_does_not_keep_the_process():
    done = subprocess.run([sys.executable, "-c", NEVER_ENDING], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1 and "the first error" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="this system does not say how deep a stack is")
def test_a_thread_with_a_deep_stack_amid_shallow_ones():
    depths = []

    def ended(start):
        thread = threading.Thread(target=lambda: depths.append(is_deep()))
        start(thread)
        thread.join()

    before = threading.stack_size(256 << 10)
    try:
        ended(threading.Thread.start)
        ended(start_deep)
        ended(threading.Thread.start)
        assert threading.stack_size() == 256 << 10
    finally:
        threading.stack_size(before)
    assert depths == [False, True, False]
