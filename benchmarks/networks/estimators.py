"""`NetworkClassifier` and `NetworkRegressor` without a training rule, against scikit-learn's networks of equal size."""

import os
import time
from itertools import pairwise

import numpy as np
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.data import bundled
from benchmarks.harness import quietly

TABLES = {"digits": ((128, 128), 40), "wine": ((32,), 60), "breast cancer": ((32,), 40), "diabetes": ((32,), 40)}
RATES = {"diabetes": 1e-2}


def ours(name, seed):
    from sklowrank.neural import NetworkClassifier, NetworkRegressor

    (sizes, epochs), device = TABLES[name], os.environ["SKLOWRANK_BENCH_DEVICE"]
    cls = NetworkRegressor if name == "diabetes" else NetworkClassifier
    return cls(sizes, max_iter=epochs, tol=0, learning_rate=RATES.get(name, 1e-3), device=device, random_state=seed)


def theirs(name, seed):
    sizes, epochs = TABLES[name]
    cls = MLPRegressor if name == "diabetes" else MLPClassifier
    settings = {"batch_size": 64, "max_iter": epochs, "tol": 0, "n_iter_no_change": 999, "alpha": 0}
    net = cls(hidden_layer_sizes=sizes, learning_rate_init=RATES.get(name, 1e-3), random_state=seed, **settings)
    return make_pipeline(StandardScaler(), net)


def skorch_net(sizes, n_features, n_classes, epochs, seed):
    """The peer as one writes it by hand: shuffled batches, Adam."""
    import torch
    from skorch import NeuralNetClassifier
    from torch import nn

    torch.manual_seed(seed)
    widths = [n_features, *sizes]
    layers = [part for pair in pairwise(widths) for part in (nn.Linear(*pair), nn.ReLU())]
    return NeuralNetClassifier(
        nn.Sequential(*layers, nn.Linear(widths[-1], n_classes)),
        criterion=nn.CrossEntropyLoss,
        optimizer=torch.optim.Adam,
        lr=1e-3,
        max_epochs=epochs,
        batch_size=64,
        iterator_train__shuffle=True,
        train_split=None,
        verbose=0,
    )


# Measured functions: each runs in a fresh process


def scores(name, make):
    """Mean score on new rows over five splits; targets of regressions are standardised for the peer as for ours."""
    X, y = bundled(name)
    found, start = [], time.perf_counter()
    for seed in range(5):
        classes = None if name == "diabetes" else y
        A, B, a, b = train_test_split(X, y, test_size=0.3, random_state=seed, stratify=classes)
        if name == "diabetes":
            a, b = (a - a.mean()) / a.std(), (b - a.mean()) / a.std()
        found.append(quietly(make(name, seed).fit, A, a).score(B, b))
    seconds = (time.perf_counter() - start) / 5
    return {"score": np.mean(found), "error": 1 - np.mean(found), "seconds": seconds}


def epoch(method, sizes, precision="float64", epochs=20):
    """Processor time of an epoch of 2,000 rows of 64 columns in ten classes: the best of five fits after another."""
    X = np.random.default_rng(0).normal(size=(2000, 64))
    y, times = X[:, :10].argmax(1), []
    X = X.astype(precision)
    for seed in range(6):
        model = _timed(method, sizes, epochs, seed)
        start = time.process_time()
        quietly(model.fit, X.astype("float32") if method == "skorch" else X, y)
        times.append((time.process_time() - start) / epochs)
    return {"seconds": min(times[1:])}


def _timed(method, sizes, epochs, seed):
    from sklowrank.neural import NetworkClassifier

    if method == "ours":
        return NetworkClassifier(sizes, max_iter=epochs, tol=0, random_state=seed)
    if method == "skorch":
        return skorch_net(sizes, 64, 10, epochs, seed)
    return MLPClassifier(sizes, batch_size=64, max_iter=epochs, tol=0, n_iter_no_change=999, random_state=seed)


# Cases


def accuracy_of_the_pair(bench):
    """Scores of the pair: accuracy, R² of diabetes, means over five splits of 70/30; equal sizes, rates and epochs"""
    for name in TABLES:
        best = bench.measure(f"{name}, scikit-learn", scores, name, theirs).score
        found = bench.measure(f"{name}, ours", scores, name, ours).score
        bench.claim(f"{name}: score above scikit-learn's network", found - best, at_least=-0.005)


def seconds_of_an_epoch(bench):
    """Seconds of an epoch: 2,000 rows, 64 columns, batches of 64, one thread"""
    for sizes in ((128, 128), (128,)):
        name = " and ".join(map(str, sizes)) + " units"
        peer = bench.measure(f"{name}, MLPClassifier", epoch, "sklearn", sizes)
        bench.measure(f"{name}, skorch by hand, float32", epoch, "skorch", sizes)
        found = bench.measure(f"{name}, ours", epoch, "ours", sizes)
        bench.claim(f"{name}: seconds of an epoch against MLPClassifier", found.seconds, peer.seconds, at_most=1.0)


CASES = [accuracy_of_the_pair, seconds_of_an_epoch]
