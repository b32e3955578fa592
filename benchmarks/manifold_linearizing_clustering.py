"""Clusters that are curved sheets: `ManifoldLinearizingClustering`.

The error of a clustering is the share of rows outside the best matching of clusters to classes, one minus
`clustering_accuracy`. No method sees classes, and every method is told their number. Where several seeds are run, the
error is that of the median, the seconds are the least. Ours runs with its defaults unless settings are named. Digits
are used as bundled, images are divided by 255, tables have standardised columns, for peers as for ours. Objects and
faces are read from the folder that `SKLOWRANK_DATA` names.
"""

import os
import time
import warnings
from pathlib import Path

import numpy as np
from sklearn.cluster import HDBSCAN, KMeans, SpectralClustering
from sklearn.datasets import (
    load_breast_cancer,
    load_digits,
    load_iris,
    load_wine,
    make_blobs,
    make_circles,
    make_moons,
)
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NearestNeighbors
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler, scale

from benchmarks.harness import clock

TITLE = "Manifold linearizing and clustering"
MOONS = {"view_noise": 0.02, "n_neighbors": 10, "n_epochs": (250, 20), "batch_size": 128}


# Data


def load(name):
    """A data set and its classes."""
    if name == "digits":
        return load_digits(return_X_y=True)
    bundled = {"breast cancer": load_breast_cancer, "wine": load_wine, "iris": load_iris}
    if name in bundled:
        X, y = bundled[name](return_X_y=True)
        return scale(X), y
    if name == "moons":
        return make_moons(600, noise=0.06, random_state=0)
    if name.startswith("round"):  # three of them, of the sizes that the name says
        sizes = [int(size) for size in name.split()[1].split("/")]
        return make_blobs(sizes, 10, cluster_std=1.0, random_state=0)
    if name == "circles":
        return make_circles(600, factor=0.5, noise=0.05, random_state=0)
    file = np.load(next((Path(os.environ["SKLOWRANK_DATA"]) / name.split()[0]).glob("*.npz")))
    kept = slice(None)
    if " " in name:  # classes from one to another
        low, high = (int(part) for part in name.split()[1].split("-"))
        kept = (file["y"] >= low) & (file["y"] <= high)
    return file["X"][kept].astype(float) / 255, file["y"][kept]


def many_digits(n_samples):
    """Digits, enlarged: points between a row and one of its five nearest of the same class, some noise; float32."""
    X, y = load_digits(return_X_y=True)
    rng = np.random.RandomState(0)
    near = np.empty((len(X), 5), dtype=int)
    for k in range(10):
        rows = np.flatnonzero(y == k)
        near[rows] = rows[NearestNeighbors(n_neighbors=5).fit(X[rows]).kneighbors(return_distance=False)]
    first = rng.randint(len(X), size=n_samples)
    second = near[first, rng.randint(5, size=n_samples)]
    share = rng.rand(n_samples, 1).astype(np.float32)
    X, rows = X.astype(np.float32), X.astype(np.float32)[first]
    return rows + share * (X[second] - rows) + 0.5 * rng.randn(n_samples, 64).astype(np.float32), y[first]


# Methods


def ours(n_clusters, **settings):
    from sklowrank.cluster import ManifoldLinearizingClustering

    return ManifoldLinearizingClustering(n_clusters, device=os.environ["SKLOWRANK_BENCH_DEVICE"], **settings)


def peer(name, n_clusters, n_features):
    makers = {
        "KMeans": lambda: KMeans(n_clusters, n_init=10),
        "SpectralClustering": lambda: SpectralClustering(n_clusters, affinity="nearest_neighbors", n_neighbors=10),
        "SpectralClustering, 5 neighbours": lambda: SpectralClustering(
            n_clusters, affinity="nearest_neighbors", n_neighbors=5
        ),
        "SpectralClustering, 5 neighbours, unit rows": lambda: make_pipeline(
            Normalizer(), SpectralClustering(n_clusters, affinity="nearest_neighbors", n_neighbors=5)
        ),
        "GaussianMixture after PCA": lambda: make_pipeline(
            PCA(min(20, n_features)), GaussianMixture(n_clusters, n_init=3)
        ),
        "HDBSCAN": lambda: HDBSCAN(min_cluster_size=20, copy=True),
    }
    return makers[name]()


def make(name, settings, n_clusters, n_features, seed):
    """Ours, or where `settings` is None a peer."""
    method = peer(name, n_clusters, n_features) if settings is None else ours(n_clusters, **settings)
    return method.set_params(**{key: seed for key in method.get_params() if key.endswith("random_state")})


def accuracy(y, labels):
    from sklowrank.metrics import clustering_accuracy

    return clustering_accuracy(y, labels)


def summary(right, times):
    span = f"accuracy {min(right):.3f} to {max(right):.3f} over {len(right)} seeds" if len(right) > 1 else "one seed"
    return {"error": 1 - np.median(right), "right": np.median(right), "least": min(right), "seconds": min(times)} | {
        "remark": span
    }


# Measured functions: each runs in a fresh process


def cluster(data, name, settings=None, seeds=3):
    """Labels of a data set by ours or a peer."""
    X, y = load(data)
    right, times, found = [], [], {}
    for seed in range(seeds):
        method = make(name, settings, len(np.unique(y)), X.shape[1], seed)
        start = time.perf_counter()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            labels = method.fit_predict(X)
        times.append(time.perf_counter() - start)
        right.append(accuracy(y, labels))
        if seed == 0 and len(getattr(method, "coding_rates_", [])):
            found = training(method, X)
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
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics.cluster import contingency_matrix

    X, y = load_digits(return_X_y=True)
    seen, new = [], []
    for seed in range(5):
        order = np.random.RandomState(seed).permutation(len(X))
        old, fresh = order[: len(X) // 2], order[len(X) // 2 :]
        method = make(name, settings, 10, 64, 0).fit(X[old])
        labels = method.predict(X[old])
        _, name_of = linear_sum_assignment(-contingency_matrix(y[old], labels).T)
        seen.append(np.mean(name_of[labels] == y[old]))
        new.append(np.mean(name_of[method.predict(X[fresh])] == y[fresh]))
    remark = f"fitted half {np.mean(seen):.3f}; five splits, worst {min(new):.3f}"
    return {"error": 1 - np.mean(new), "right": np.mean(new), "loss": max(np.subtract(seen, new)), "remark": remark}


def seeds_on_new_rows(settings, seeds=10):
    """Accuracy on the odd rows of the digits, which the fit has not seen, for several seeds."""
    X, y = load_digits(return_X_y=True)
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
    X, y = load_digits(return_X_y=True)
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
    G, seconds = clock(lambda: project(kernel_of(C, C, eta, "signed"), 30)[0])
    return {"error": float((G.sum(1) - 1).abs().max()), "seconds": seconds}


def steps(n_samples, stage):
    """Seconds of a step of one stage: their mean, the first epoch aside, in the fastest of three fits."""
    X, _ = many_digits(n_samples)
    per_epoch = n_samples // 256
    lengths = [0, 0]
    lengths[stage] = max(2, 200 // per_epoch)
    best = np.inf
    for _ in range(3):
        watch = Watch([])
        settings = {"positives": "noise", "n_epochs": lengths}
        ours(10, random_state=0, **settings).set_callbacks(watch).fit(X)
        best = min(best, np.diff(watch.marks)[1 : lengths[stage]].mean() / per_epoch)
    return {"seconds": best, "remark": f"epochs of {per_epoch} steps"}


class Watch:
    """A callback that notes when each epoch ends."""

    def __init__(self, marks):
        self.marks = marks

    def setup(self, estimator, context):
        self.marks.append(time.perf_counter())

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.marks.append(time.perf_counter())


def small_table(n_samples, n_clusters):
    """A default fit of few rows of noise, and of digits."""
    X, _ = load_digits(return_X_y=True)
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
    if not os.environ.get("SKLOWRANK_DATA"):
        return bench.skip("set SKLOWRANK_DATA to a folder with coil20 in it")
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
    if not os.environ.get("SKLOWRANK_DATA"):
        return bench.skip("set SKLOWRANK_DATA to a folder with orl32 and yaleb32 in it")
    for data in ("orl32", "yaleb32 0-9", "yaleb32 20-29"):
        for name in ("KMeans", "SpectralClustering", "GaussianMixture after PCA"):
            bench.measure(f"{data}, {name}", cluster, data, name)
        bench.measure(f"{data}, ours", cluster, data, "ours", {})


def numbers(bench):
    """Number of clusters: with n_clusters="auto", from 2 to 25; no claim is made"""
    names = ["digits", "iris", "wine", "moons"] + ["coil20"] * bool(os.environ.get("SKLOWRANK_DATA"))
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
