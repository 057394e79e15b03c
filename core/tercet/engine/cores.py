"""Cores: with how many of them a thread of the engine computes."""

from __future__ import annotations

import torch
from threadpoolctl import threadpool_limits


def compute_alone() -> None:
    """Let the calling thread compute without helper threads, for good, and change nothing for any other thread.

    OpenMP keeps a team of helpers for every thread that computes in parallel. Once all teams together outnumber the
    cores, helpers sleep between operations instead of spinning: measured on two cores, a short query then takes 5.5 ms
    instead of 3. So of all the engine's threads only the one that runs batches has a team.
    """
    torch.get_num_threads()  # makes torch settle this thread's own number now, and not over the next line's
    threadpool_limits(1, user_api="openmp")
