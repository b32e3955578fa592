"""What a training step of each rule costs."""

import os

import numpy as np

from benchmarks.harness import peak, seconds_of_steps

N_BATCHES, BATCH = 20, 64

# Each rule at its defaults but for what is needed to compare it; one note says what the step has beyond a plain one.
RULES = {
    "OrderedRank": ({}, "layers in ordered factors, a prefix of them drawn at each step"),
    "TrainedRankPruning": ({}, "truncations and projections of gradients at some steps"),
    "SparseSpectralTraining": ({}, "singular vectors of a part of the components, and all singular values"),
    "RandomSubspace": ({}, "a projection of all gradients to few numbers, and back"),
    "SharpnessAware": ({}, "a second pass forward and back at moved weights, and one forward at noised inputs"),
}


def step(rule, params, epochs=4):
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
    seconds = min(seconds_of_steps(model, X, y)) / N_BATCHES
    added = peak() - before
    return {"seconds": seconds, "added": added, "remark": f"{1000 * seconds:.1f} ms a step, {added:.0f} MB added"}


def steps(bench):
    """steps at width 1,024: time of a training step of each rule, and memory that a fit adds, 4 epochs of 20 batches.

    The memory is the rise of the highest memory of the process: weights, gradients, the optimizer's state, activations
    and the snapshot that each epoch leaves.
    """
    from sklowrank import neural

    plain = bench.measure("plain training", step, None, {})
    for rule, (params, what) in RULES.items():
        if not hasattr(neural, rule):
            continue
        found = bench.measure(rule, step, rule, params)
        time, memory = found.seconds / plain.seconds, found.added / plain.added
        bench.note(f"{rule}, against plain", f"{time:.2f} times the time, {memory:.2f} times the memory; {what}")


CASES = [steps]
