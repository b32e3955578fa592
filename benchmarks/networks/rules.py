"""All training rules on one task: digits divided by 16, moved by -0.3, two hidden layers of 128 units, 60 epochs."""

import time

import numpy as np
from sklearn.model_selection import train_test_split

from benchmarks.data import bundled
from benchmarks.harness import over_seeds, quietly

SIZES, EPOCHS, SEEDS = (128, 128), 60, 3


def rules():
    from sklowrank import neural

    return {
        "none": (None, 1e-3),
        "OrderedRank": (neural.OrderedRank(), 3e-3),
        "TrainedRankPruning": (neural.TrainedRankPruning(energy=0.98, period=5, nuclear_weight=1e-2), 1e-3),
        "SparseSpectralTraining": (neural.SparseSpectralTraining(), 1e-3),
        "RandomSubspace": (neural.RandomSubspace(subspace_dim=400), 1e-2),
        "SharpnessAware": (neural.SharpnessAware(), 1e-3),
    }


def trained(name):
    """Accuracy, accuracy under noise of standard deviation 0.25, size and processor time of fits with a rule."""
    from sklowrank.neural import NetworkClassifier

    X, y = bundled("digits")
    X, X_new, y, y_new = train_test_split(X / 16 - 0.3, y, test_size=0.3, stratify=y, random_state=0)
    noise = 0.25 * np.random.default_rng(0).normal(size=X_new.shape)
    rule, rate = rules()[name]
    right, noisy, sizes, times = [], [], [], []
    for seed in range(SEEDS):
        model = NetworkClassifier(
            SIZES, training=rule, learning_rate=rate, max_iter=EPOCHS, tol=0, standardize=False, random_state=seed
        )
        start = time.process_time()
        quietly(model.fit, X, y)
        times.append(time.process_time() - start)
        right.append(model.score(X_new, y_new))
        noisy.append(model.score(X_new + noise, y_new))
        sizes.append(model.n_parameters_)
    size = f"parameters {np.median(sizes):,.0f} of {model.n_dense_parameters_:,}, ranks {model.ranks_}"
    remark = f"{size}, {over_seeds(right)}, with noise {np.median(noisy):.3f}"
    return {"error": 1 - np.median(right), "seconds": min(times), "remark": remark}


def one_task(bench):
    """Rules on one task: error, processor time of a fit, size; medians of three seeds, no claim is made"""
    for name in rules():
        bench.measure(name, trained, name)


CASES = [one_task]
