"""A dispatcher with models that add numbers, to see what runs when."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch

from tercet.engine.calls import Call
from tercet.engine.device import Device
from tercet.engine.dispatcher import Dispatcher
from tercet.engine.queue import BatchKey, Lane, Work
from tercet.engine.residency import Residency
from tercet.nn.batch import TokenSequence


class Sums:
    """A model whose row is the sequence's first token plus an offset; `gate` holds it up."""

    multiplied_weights = 0

    def __init__(self, offset=0.0, gate=None):
        self.offset, self.gate, self.batches = offset, gate, []

    def rows(self, batch, outputs):
        if self.gate is not None:
            assert self.gate.wait(10)
        self.batches.append([int(s.input_ids[0]) for s in batch.sequences])
        values = np.array([[s.input_ids[0] + self.offset] for s in batch.sequences], np.float32)
        return dict.fromkeys(outputs, values)


class Column:
    def __init__(self, size):
        self.values = np.full(size, np.nan, np.float32)

    def put(self, indices, rows):
        self.values[indices] = np.asarray(rows["dense"])[:, 0]


class Rig:
    def __init__(self, budget=10, max_queue_tokens=10**6, max_batch_tokens=64, workers=1):
        self.pool = ThreadPoolExecutor(2)
        self.residency = Residency(budget)
        device = Device(torch.device("cpu"), "float32", budget, max_batch_tokens, workers)
        self.dispatcher = Dispatcher(device, self.residency, self.pool, max_queue_tokens=max_queue_tokens)

    def model(self, name, model, size=1):
        def load():
            if isinstance(model, Exception):
                raise model
            return model

        self.residency.add(name, size, load)

    def call(self, model, ids, length=4, lane=Lane.INTERACTIVE, here=False):
        call = Call(len(ids), Column(len(ids)), here=here)
        sequences = [TokenSequence(np.full(length, i, np.int64)) for i in ids]
        self.dispatcher.admit(call, length * len(ids))
        call.begin(0, sequences)
        works = [Work(call, i, sequence, time.monotonic()) for i, sequence in enumerate(sequences)]
        self.dispatcher.put(BatchKey(model, ("dense",), lane), works)
        return call

    def close(self, drain_s=5.0):
        self.dispatcher.close(drain_s)
        self.residency.close()
        self.pool.shutdown()
