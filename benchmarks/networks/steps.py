"""What a training step of each rule costs."""

import os
import time

import numpy as np

from benchmarks.harness import Steps, peak, quietly

N_BATCHES, BATCH = 20, 64

RULES = {  # at their defaults: what a step has beyond one of plain training
    "OrderedRank": "a second pass with one layer cut to a random rank, and a penalty on the tails of the factors",
    "TrainedRankPruning": "a singular value decomposition of each layer every few steps",
    "SparseSpectralTraining": "gradients of all singular values and of some singular vectors, which change with time",
    "RandomSubspace": "the weights computed from a point of the subspace, and their gradient projected on it",
    "SharpnessAware": "a second forward and backward pass, and a forward pass with noise in the inputs",
}


class Epochs(Steps):
    """Notes the time when each epoch ended: that of the processor, which other processes do not change, on a CPU."""

    def on_fit_task_end(self, estimator, context):
        on_cpu = os.environ["SKLOWRANK_BENCH_DEVICE"] == "cpu"
        if context.parent is not None:
            self.times.append(time.process_time() if on_cpu else time.perf_counter())


def step(rule, params, epochs=7):
    """Time of a training step, and memory that the training adds: two hidden layers of 1,024, batches of 64 rows."""
    from sklowrank import neural

    rng = np.random.default_rng(0)
    X = rng.normal(size=(N_BATCHES * BATCH, 64)).astype(np.float32)
    y = rng.integers(0, 10, size=len(X))
    training = None if rule is None else getattr(neural, rule)(**params)
    options = {"batch_size": BATCH, "tol": 0, "random_state": 0, "device": os.environ["SKLOWRANK_BENCH_DEVICE"]}
    small = neural.NetworkClassifier((8, 8), max_iter=1, **options)
    small.fit(X, y)  # what is imported and set up once is not the rule's
    before = peak()
    model = neural.NetworkClassifier((1024, 1024), training=training, max_iter=epochs, **options)
    epochs = Epochs()
    quietly(model.set_callbacks(epochs).fit, X, y)
    seconds = np.mean(np.diff(epochs.times)) / N_BATCHES  # with what a rule does now and then
    added = peak() - before
    return {"seconds": seconds, "added": added, "remark": f"{1000 * seconds:.1f} ms a step, {added:.0f} MB added"}


def steps(bench):
    """steps at width 1,024: time of a training step of each rule, and memory that a fit adds, 7 epochs of 20 batches.

    The time is that of the processor, a mean over the epochs but the first. The memory is the rise of the process's
    highest memory: weights, gradients, the optimizer's state, activations and the snapshot that each epoch leaves.
    """
    from sklowrank import neural

    plain = bench.measure("plain training", step, None, {})
    for rule, what in RULES.items():
        if not hasattr(neural, rule):
            continue
        found = bench.measure(rule, step, rule, {})
        time, memory = found.seconds / plain.seconds, found.added / plain.added
        bench.note(f"{rule}, against plain", f"{time:.2f} times the time, {memory:.2f} times the memory; {what}")


CASES = [steps]
