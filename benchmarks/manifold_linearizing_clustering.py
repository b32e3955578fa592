"""Nonlinear clusters: `ManifoldLinearizingClustering`.

The error of a clustering is the share of rows outside the best matching of clusters to classes, one minus
`clustering_accuracy`. No method sees classes, and every method is given their number. Where several seeds are run, the
error is that of the median, the seconds are the least. Ours runs with its defaults unless settings are named. Digits
are used as bundled, images are divided by 255, tables have standardised columns, for peers as for ours. Objects and
faces are read from the folder that `SKLOWRANK_DATA` names.
"""

import os
import time
from functools import partial

import numpy as np
from sklearn.cluster import KMeans
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler, scale

from benchmarks.data import bundled, many_digits, missing, of_classes, toy_clusters
from benchmarks.harness import accuracy, by_seed, clock, over_seeds, seconds_of_steps
from benchmarks.peers import clusterer

TITLE = "Manifold linearizing and clustering"
MOONS = {"view_noise": 0.02, "n_neighbors": 10, "n_epochs": (250, 20), "batch_size": 128}


# Data


def load(name):
    """A data set and its classes: digits as bundled, images divided by 255, tables with standardised columns."""
    if name in ("digits", "breast cancer", "wine", "iris"):
        X, y = bundled(name)
        return (X if name == "digits" else scale(X)), y
    if name in ("moons", "circles") or name.startswith("round"):
        return toy_clusters(name)
    X, y = of_classes(name)
    return X / 255, y


# Methods


def ours(n_clusters, **settings):
    from sklowrank.cluster import ManifoldLinearizingClustering

    return ManifoldLinearizingClustering(n_clusters, device=os.environ["SKLOWRANK_BENCH_DEVICE"], **settings)


def make(name, settings, n_clusters, n_features, seed):
    """Ours, or where `settings` is None a peer."""
    method = clusterer(name, n_clusters, min(20, n_features)) if settings is None else ours(n_clusters, **settings)
    return method.set_params(**{key: seed for key in method.get_params() if key.endswith("random_state")})


def summary(right, times):
    figures = {"error": 1 - np.median(right), "right": np.median(right), "least": min(right), "seconds": min(times)}
    return {**figures, "remark": over_seeds(right)}


# Measured functions: each runs in a fresh process


def cluster(data, name, settings=None, seeds=3):
    """Labels of a data set by ours or a peer."""
    X, y = load(data)
    seeded = partial(make, name, settings, len(np.unique(y)), X.shape[1])
    right, times, first = by_seed(lambda: seeded(0), X, y, seeds)
    found = training(first, X) if len(getattr(first, "coding_rates_", [])) else {}
    return {**summary(right, times), **found, "slowest": max(times)}


def training(model, X):
    """What the second stage did, in figures."""
    R, R_c = (np.concatenate([part[:3], part[-3:]]).reshape(2, 3).mean(1) for part in model.coding_rates_.T)
    Z = model.transform(X)
    G = np.abs(Z @ Z.T)
    same = model.labels_[:, None] == model.labels_
    return {"fall": R_c[1] / R_c[0], "change": abs(R[1] / R[0] - 1), "cosines": G[~same].mean() / G[same].mean()}


def new_rows(name, settings):
    """Labels of the half that was not fitted, by the names that clusters have in the half that was; five splits."""
    X, y = load("digits")
    seen, new = [], []
    for seed in range(5):
        old, fresh = np.array_split(np.random.RandomState(seed).permutation(len(X)), [len(X) // 2])
        method = make(name, settings, 10, 64, 0).fit(X[old])
        labels = method.predict(X[old])
        seen.append(named_accuracy(y[old], labels, y[old], labels))
        new.append(named_accuracy(y[old], labels, y[fresh], method.predict(X[fresh])))
    remark = f"fitted half {np.mean(seen):.3f}; five splits, worst {min(new):.3f}"
    return {"error": 1 - np.mean(new), "right": np.mean(new), "loss": max(np.subtract(seen, new)), "remark": remark}


def seeds_on_new_rows(settings, seeds=10):
    """Accuracy on the odd rows of the digits, which the fit has not seen, for several seeds."""
    X, y = load("digits")
    right, times = [], []
    for seed in range(seeds):
        method = make("ours", settings, 10, 64, seed)
        start = time.perf_counter()
        labels = method.fit(X[::2]).labels_
        times.append(time.perf_counter() - start)
        right.append(named_accuracy(y[::2], labels, y[1::2], method.predict(X[1::2])))
    return summary(right, times)


def named_accuracy(y, labels, y_new, labels_new):
    """Share of new rows whose cluster has the name of their class; clusters get their names from the fitted rows."""
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    _, name_of = linear_sum_assignment(-contingency_matrix(y, labels).T)
    return np.mean(name_of[labels_new] == y_new)


def probe(features):
    """A linear classifier of digits that sees few classes: 50 labelled rows, on features of all rows; ten draws."""
    X, y = load("digits")
    makers = {  # each with the scaling that suits it best
        "pixels": StandardScaler(),
        "PCA": PCA(32, random_state=0),
        "ours": make_pipeline(ours(10, random_state=0), StandardScaler()),
    }
    Z = makers[features].fit_transform(X)
    right = []
    for seed in range(10):
        some = np.random.RandomState(seed).permutation(len(X))
        model = LogisticRegression(max_iter=2000).fit(Z[some[:50]], y[some[:50]])
        right.append(model.score(Z[some[50:]], y[some[50:]]))
    return {"error": 1 - np.mean(right), "right": np.mean(right), "remark": "ten draws of 50 labelled rows"}


def projected(eta, dtype, spread):
    """How far sums are from one after 30 sweeps."""
    import torch

    from sklowrank.cluster._membership import kernel_of, project

    rng = np.random.RandomState(0)
    C = rng.randn(300, 16)
    if spread:
        C = rng.randn(10, 16)[rng.randint(10, size=300)] + spread * C
    C = torch.from_numpy(C / np.linalg.norm(C, axis=1, keepdims=True)).to(getattr(torch, dtype))
    G, seconds = clock(lambda: project(kernel_of(C, eta, "signed"), 30)[0])
    return {"error": float((G.sum(1) - 1).abs().max()), "seconds": seconds}


def steps(n_samples, stage):
    """Seconds of a step of one stage: their mean, the first epoch aside, in the fastest of three fits."""
    X, _ = many_digits(n_samples)
    per_epoch = n_samples // 256
    lengths = [0, 0]
    lengths[stage] = max(2, 200 // per_epoch)
    best = np.inf
    for _ in range(3):
        settings = {"positives": "noise", "n_epochs": lengths}
        best = min(best, seconds_of_steps(ours(10, random_state=0, **settings), X).mean() / per_epoch)
    return {"seconds": best, "remark": f"epochs of {per_epoch} steps"}


def small_table(n_samples, n_clusters):
    """A default fit of few rows of noise, and of digits."""
    X, _ = load("digits")
    _, digits = clock(lambda: ours(n_clusters, random_state=0).fit(X[:n_samples]))
    rows = np.random.RandomState(0).randn(n_samples, 6)
    _, noise = clock(lambda: ours(n_clusters, random_state=0).fit(rows))
    return {"seconds": max(digits, noise), "remark": f"digits {digits:.2f} s, noise in 6 columns {noise:.2f} s"}


def many_rows(n_samples):
    X, y = many_digits(n_samples)
    start = time.perf_counter()
    model = ours(10, random_state=0).fit(X)
    seconds = time.perf_counter() - start
    return {"error": 1 - accuracy(y, model.labels_), "right": accuracy(y, model.labels_), "seconds": seconds}


def many_rows_by_k_means(n_samples):
    X, y = many_digits(n_samples)
    model, seconds = clock(lambda: KMeans(10, n_init=10, random_state=0).fit(X))
    return {"error": 1 - accuracy(y, model.labels_), "seconds": seconds}


def number(data, n_clusters):
    """The number of clusters that the fit chooses."""
    X, y = load(data)
    model = ours("auto", random_state=0).fit(X) if n_clusters is None else ours(n_clusters, random_state=0).fit(X)
    found = model.estimate_n_clusters(X, range(2, 26))
    return {"found": found, "remark": f"{found} found, {len(np.unique(y))} classes"}


# Cases


def projection(bench):
    """Projection: 300 unit codes in 16 dimensions, error of the sums after 30 sweeps"""
    for dtype, bound in (("float32", 1e-5), ("float64", 1e-8)):
        worst = 0.0
        for eta in (0.02, 0.05, 0.2, 1.0):
            for spread, name in ((0, "random"), (0.1, "tight")):
                found = bench.measure(f"{dtype}, eta={eta}, {name} codes", projected, eta, dtype, spread)
                worst = max(worst, found.error)
        bench.claim(f"sums after 30 sweeps off one, {dtype}", worst, at_most=bound)


def digits(bench):
    """Digits: bundled with scikit-learn, ten clusters"""
    plain = bench.measure("KMeans", cluster, "digits", "KMeans")
    names = ["SpectralClustering", *(f"SpectralClustering, 5 neighbours{rows}" for rows in ("", ", unit rows"))]
    for name in (*names, "GaussianMixture after PCA", "HDBSCAN"):
        bench.measure(name, cluster, "digits", name)
    found = bench.measure("ours", cluster, "digits", "ours", {})
    bench.measure("ours, first stage alone", cluster, "digits", "ours", {"n_epochs": 0})
    bench.measure("ours, kernel='absolute'", cluster, "digits", "ours", {"kernel": "absolute"})
    for positives in ("noise", "mask"):
        bench.measure(f"ours, positives='{positives}'", cluster, "digits", "ours", {"positives": positives})
    bench.claim("accuracy, median of three seeds", found.right, at_least=0.90)
    bench.claim("accuracy above KMeans", found.right - plain.right, at_least=0.10)
    bench.claim("seconds of a fit, the slowest of three", found.slowest, at_most=12)
    bench.claim("second stage: rate of the clusters, last against first steps", found.fall, at_most=0.92)
    bench.claim("second stage: change of the rate of all rows", found.change, at_most=0.05)
    bench.claim("mean |cosine| between clusters against within", found.cosines, at_most=0.3)


def objects(bench):
    """Objects: coil20, 20 objects turning before a camera, 72 images each of 32 x 32 pixels"""
    if why := missing("coil20"):
        return bench.skip(why)
    plain = bench.measure("KMeans", cluster, "coil20", "KMeans")
    for name in ("SpectralClustering", "SpectralClustering, 5 neighbours", "GaussianMixture after PCA"):
        bench.measure(name, cluster, "coil20", name)
    found = bench.measure("ours", cluster, "coil20", "ours", {})
    bench.claim("accuracy, median of three seeds", found.right, at_least=0.82)
    bench.claim("accuracy above KMeans", found.right - plain.right, at_least=0.08)
    bench.claim("seconds of a fit, the slowest of three", found.slowest, at_most=60)


def small_tables(bench):
    """Small tables: standardised columns, two seeds; moons with settings of their own, circles with the same"""
    for data, least in (("breast cancer", 0.92), ("wine", 0.88), ("iris", 0.80)):
        for name in ("KMeans", "SpectralClustering", "GaussianMixture after PCA"):
            bench.measure(f"{data}, {name}", cluster, data, name, None, 2)
        found = bench.measure(f"{data}, ours", cluster, data, "ours", {}, 2)
        bench.claim(f"{data}: accuracy, the worse of two seeds", found.least, at_least=least)
    for data in ("moons", "circles"):
        for name in ("KMeans", "SpectralClustering", "HDBSCAN"):
            bench.measure(f"{data}, {name}", cluster, data, name, None, 2)
        found = bench.measure(f"{data}, ours", cluster, data, "ours", MOONS, 2)
        if data == "moons":
            bench.measure("moons, ours, defaults", cluster, data, "ours", {}, 2)
            bench.claim("moons: accuracy, the worse of two seeds", found.least, at_least=0.95)


def unseen(bench):
    """New rows: a random half of the digits to fit, the other half to predict"""
    for name in ("KMeans", "GaussianMixture after PCA"):
        bench.measure(name, new_rows, name, None)
    found = bench.measure("ours", new_rows, "ours", {})
    bench.claim("accuracy on new rows, mean of five splits", found.right, at_least=0.80)
    bench.claim("loss from fitted to new rows, the largest of five", found.loss, at_most=0.06)


def seeds(bench):
    """Seeds: every second digit to fit, the others new, ten seeds"""
    found = bench.measure("ours", seeds_on_new_rows, {})
    bench.claim("accuracy on new rows, median of ten seeds", found.right, at_least=0.85)


def unbalanced(bench):
    """Unbalanced: three round clusters in ten columns, of equal and of unequal size; five seeds, no claim is made"""
    for sizes in ("100/100/100", "270/20/10"):
        for name in ("KMeans", "SpectralClustering", "GaussianMixture after PCA"):
            bench.measure(f"{sizes} rows, {name}", cluster, f"round {sizes}", name, None, 5)
        bench.measure(f"{sizes} rows, ours", cluster, f"round {sizes}", "ours", {}, 5)


def features(bench):
    """Features: logistic regression on 50 labelled digits, features from all rows without classes"""
    best = max(bench.measure(name, probe, name).right for name in ("pixels", "PCA"))
    bench.claim("accuracy above the better of both", bench.measure("ours", probe, "ours").right - best, at_least=0)


def other_data(bench):
    """Other data: on which nothing in the library was chosen; defaults"""
    if why := missing("orl32", "yaleb32"):
        return bench.skip(why)
    for data in ("orl32", "yaleb32 0-9", "yaleb32 20-29"):
        for name in ("KMeans", "SpectralClustering", "GaussianMixture after PCA"):
            bench.measure(f"{data}, {name}", cluster, data, name)
        bench.measure(f"{data}, ours", cluster, data, "ours", {})


def numbers(bench):
    """Number of clusters: with n_clusters="auto", from 2 to 25; no claim is made"""
    names = ["digits", "iris", "wine", "moons"] + ["coil20"] * (not missing("coil20"))
    for data in names:
        bench.measure(data, number, data, None)


def growth(bench):
    """Growth: digits, enlarged by points between near rows of a class; seconds of a step, and of whole fits"""
    for stage, name in ((0, "first stage"), (1, "second stage")):
        small = bench.measure(f"a step, {name}, 2,000 rows", steps, 2000, stage)
        large = bench.measure(f"a step, {name}, 100,000 rows", steps, 100_000, stage)
        bench.claim(f"seconds of a step, {name}, 100,000 rows against 2,000", large.seconds, small.seconds, at_most=1.3)
    for n in (2000, 20_000, 100_000):
        bench.measure(f"KMeans, {n:,} rows", many_rows_by_k_means, n)
        bench.measure(f"ours, {n:,} rows", many_rows, n)
    found = bench.measure("ours, 100 rows, 8 clusters", small_table, 100, 8)
    bench.claim("seconds of a default fit of 100 rows", found.seconds, at_most=2)


CASES = [projection, digits, objects, small_tables, unseen, seeds, unbalanced, features, other_data, numbers, growth]
