"""Multiparameter persistence vectors: classes of shapes, exactness, stability, and speed against gudhi.

Accuracies are means over five folds of a forest of 200 trees and of a logistic regression (standardised, C=0.1), each
with the settings named and no choice on the folds. Objects are generated from the seeds in the code. "One-parameter"
are Betti curves of the distances in both degrees, a histogram of the distances and one of the measured values.
"Pairs" is the plain histogram of both functions at once: of pairs of points, by distance and difference of values.
"""

import os
import time

import numpy as np
from scipy.spatial.distance import cdist, pdist
from sklearn.datasets import load_digits, load_wine
from sklearn.ensemble import RandomForestClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from benchmarks.harness import peak, quietly

TITLE = "Multiparameter persistence"
T = np.linspace(0, 1, 16)


# Objects


def waves(n=100, points=50, seed=0):
    """Points in a square with a measured value: a noisy wave over the points, shuffled between them in class 1."""
    r, y, X = np.random.RandomState(seed), np.repeat([0, 1], n // 2), []
    for label in y:
        P, k = r.rand(points, 2), r.randn(2)
        k *= r.uniform(3, 5) / np.linalg.norm(k)
        f = ranks(np.cos(P @ k + 6.28 * r.rand()) + 0.3 * r.randn(points))
        X.append(np.c_[P, r.permutation(f) if label else f])
    return X, y


def rings_and_arcs(noise, n=160, points=100, seed=0, gap=np.pi / 1.5):
    """Points in a square whose value is the distance to a hidden ring, or to a ring with a gap of 120 degrees."""
    r, y, X = np.random.RandomState(seed), np.repeat([0, 1], n // 2), []
    for label in y:
        P, radius, centre, start = (
            r.rand(points, 2),
            r.uniform(0.22, 0.34),
            0.5 + r.uniform(-0.1, 0.1, 2),
            6.28 * r.rand(),
        )
        Q = P - centre
        f = np.abs(np.hypot(*Q.T) - radius)
        if label:
            ends = radius * np.array([[np.cos(start), np.sin(start)], [np.cos(start - gap), np.sin(start - gap)]])
            on_arc = (np.arctan2(Q[:, 1], Q[:, 0]) - start) % (2 * np.pi) < 2 * np.pi - gap
            f = np.where(on_arc, f, cdist(Q, ends).min(1))
        X.append(np.c_[P, ranks(f + noise * radius * r.randn(points))])
    return X, y


def ranks(f):
    return f.argsort().argsort() / (len(f) - 1)


def circles(n=72, points=80, outliers=20, seed=0):
    """One circle, two circles or a disc, with outliers."""
    r, y, X = np.random.RandomState(seed), np.repeat([0, 1, 2], n // 3), []
    for label in y:
        a, m = 2 * np.pi * r.rand(points - outliers), points - outliers
        P = np.c_[np.cos(a), np.sin(a)] * (np.sqrt(r.rand(m))[:, None] if label == 2 else 1.0)
        if label == 1:
            P = 0.5 * P + np.where(r.rand(m, 1) < 0.5, 1, -1) * [[0.5, 0]]
        X.append(np.vstack([P + 0.05 * r.randn(m, 2), r.uniform(-1.2, 1.2, (outliers, 2))]))
    return X, y


def periodic(seed=2):
    """Noisy sines, and autoregressions of a comparable period; standardised rows of 60."""
    r, t, y, rows = np.random.RandomState(seed), np.arange(60), np.repeat([0, 1], 40), []
    for label in y:
        if label:
            x = np.sin(2 * np.pi * t / r.uniform(8, 20) + 6.28 * r.rand()) + 0.4 * r.randn(60)
        else:
            phi, e, z = 1.6 * np.cos(2 * np.pi / r.uniform(8, 20)), r.randn(80), [0.0, 0.0]
            for k in range(80):
                z.append(phi * z[-1] - 0.64 * z[-2] + e[k])
            x = np.array(z[-60:])
        rows.append((x - x.mean()) / x.std())
    return np.array(rows), y


def strokes(n=300):
    """Digits as clouds: the place of each pixel with ink, and how much of it there is."""
    X, y = load_digits(return_X_y=True)
    grid = np.stack(np.meshgrid(np.arange(8.0), np.arange(8.0), indexing="ij"), axis=-1).reshape(-1, 2)
    return [np.c_[grid, 16 - row][row > 2] for row in X[:n]], y[:n]


DATA = {
    "waves": waves,
    "rings and arcs, noise 0.15": lambda: rings_and_arcs(0.15),
    "rings and arcs, noise 0.05": lambda: rings_and_arcs(0.05),
    "circles": circles,
    "periodic": periodic,
    "strokes": strokes,
    "wine": lambda: load_wine(return_X_y=True),
}


# Features


def ours(**settings):
    from sklowrank.topology import MultiparameterPersistence

    return MultiparameterPersistence(device=os.environ["SKLOWRANK_BENCH_DEVICE"], **settings)


def bars_of_distances(P, reach):
    """Bars of the distances up to `reach` in degrees 0 and 1, by gudhi, in units of it."""
    import gudhi

    tree = gudhi.RipsComplex(points=P, max_edge_length=reach).create_simplex_tree(max_dimension=2)
    tree.compute_persistence()
    return [tree.persistence_intervals_in_dimension(q).reshape(-1, 2) / reach for q in (0, 1)]


def betti_curves(P, reach):
    return np.ravel([[((b[:, 0] <= s) & (s < b[:, 1])).sum() for s in T] for b in bars_of_distances(P, reach)])


def vector_of_loops(P, reach, sigma=0.08):
    """What our vectors are on one line, of distances alone."""
    birth, death = np.minimum(bars_of_distances(P, reach)[1], 1.5).T[:, :, None]
    depth = np.minimum(T - birth, death - T)
    return ((death - birth) * np.clip(1 + depth / sigma, 0, 1)).sum(0)


def plain(X, kind, measured):
    """Features of a list of clouds by plain means; with `measured` the last column is a value."""
    places = [cloud[:, :-1] if measured else cloud for cloud in X]
    values = [cloud[:, -1] if measured else None for cloud in X]
    reach = np.quantile([cdist(P, P).max(1).min() for P in places], 0.9)
    longest = max(pdist(P).max() for P in places)
    low, high = (min(map(np.min, values)), max(map(np.max, values))) if measured else (0, 1)

    def features(P, f):
        if kind == "value as a coordinate":
            cloud = np.c_[P, f]
            return np.concatenate([betti_curves(cloud, reach), np.histogram(pdist(cloud), 20, (0, longest + 1))[0]])
        distances = pdist(P)
        if kind == "distances":
            return np.histogram(distances, 20, (0, longest))[0]
        if kind == "one-parameter":
            parts = [betti_curves(P, reach), np.histogram(distances, 20, (0, longest))[0]]
            return np.concatenate(parts + ([np.histogram(f, 10, (low, high))[0]] if measured else []))
        if kind == "pairs":
            differences = pdist(f[:, None])
            return np.histogram2d(distances, differences, (12, 8), ((0, longest), (0, high - low)))[0].ravel()
        near = cdist(P, P).argsort(1)[:, 1:]  # Moran's I: do neighbours have like values?
        z = (f - f.mean()) / f.std()
        return [(z[:, None] * z[near[:, :k]]).mean() for k in (1, 3, 6, 12)]

    return np.array([features(P, f) for P, f in zip(places, values)], dtype=float)


# Measured functions


def classified(data, kind, settings=None):
    """Accuracies of a forest and of a logistic regression on features, and the time that the features took."""
    X, y = DATA[data]()
    start = time.process_time()
    if kind == "ours":
        V = ours(**settings).fit_transform(X)
    elif kind == "as they are":
        V = X
    else:
        V = plain(X, kind, data not in ("circles", "wine", "periodic"))
    seconds = time.process_time() - start
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    linear = make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=2000))
    models = RandomForestClassifier(200, random_state=0), linear
    forest, logistic = (quietly(lambda m=model: cross_val_score(m, V, y, cv=folds).mean()) for model in models)
    remark = f"forest {forest:.3f}, logistic regression {logistic:.3f}"
    return {
        "error": 1 - max(forest, logistic),
        "forest": forest,
        "logistic": logistic,
        "seconds": seconds,
        "remark": remark,
    }


def growth_by_outliers(kind):
    """How far outliers move rings, in distances from rings to discs."""
    r = np.random.RandomState(1)
    a = [2 * np.pi * r.rand(40) for _ in range(12)]
    rings = [np.c_[np.cos(t), np.sin(t)] + 0.05 * r.randn(40, 2) for t in a]
    discs = [np.sqrt(r.rand(40, 1)) * np.c_[np.cos(t), np.sin(t)] for t in (2 * np.pi * r.rand(40) for _ in range(12))]
    spoilt = [np.vstack([c, r.uniform(-1.2, 1.2, size=(8, 2))]) for c in rings]
    model = ours(degrees=(1,)).fit(rings + discs)
    if kind == "one parameter":
        A, B, C = (np.array([vector_of_loops(P, model.max_edge_) for P in Z]) for Z in (rings, spoilt, discs))
    else:
        A, B, C = (model.transform(Z) for Z in (rings, spoilt, discs))
    error = np.linalg.norm(A - B, axis=1).mean() / np.linalg.norm(A.mean(0) - C.mean(0))
    return {"error": error, "remark": f"{error:.3f} of the distance from rings to discs"}


def exact(settings):
    """The largest difference from the vectors that gudhi's bars give."""
    X, _ = waves(20, 40, seed=4)
    found = ours(second="column", **settings).fit_transform(X)
    return {"error": np.abs(found - ours(second="column", backend="gudhi", **settings).fit_transform(X)).max()}


def stability(change):
    """By how much vectors change, relative to their norms."""
    X, _ = waves(10, 40, seed=7)
    r = np.random.RandomState(0)
    Q = np.linalg.qr(r.randn(2, 2))[0]
    changed = {
        "moved by 1e-3": lambda c: c + 1e-3 * r.uniform(-1, 1, c.shape),
        "in another order": r.permutation,
        "rotated": lambda c: np.c_[c[:, :2] @ Q + 4, c[:, 2]],
        "in other units": lambda c: np.c_[50 * c[:, :2], 3 * c[:, 2] - 8],
    }[change]
    settings, new = {"second": "column"} | ({} if "units" in change else {"max_edge": 0.45}), [changed(c) for c in X]
    model = ours(**settings).fit(X)
    V, W = model.transform(X), ours(**settings).fit_transform(new) if "units" in change else model.transform(new)
    return {"error": (np.linalg.norm(W - V, axis=1) / np.linalg.norm(V, axis=1)).max()}


def timed(n, points, backend="native", settings=None):
    """Seconds of processor time of `fit_transform` for n clouds, and megabytes that it adds to the peak."""
    X, _ = waves(n, points)
    model = ours(second="column", backend=backend, **(settings or {}))
    model.fit_transform(X[:2])
    before, times = peak(), []
    for _ in range(3 if n * points <= 10_000 else 1):
        start = time.process_time()
        model.fit_transform(X)
        times.append(time.process_time() - start)
    added = peak() - before
    return {
        "seconds": min(times),
        "added": added,
        "remark": f"{1000 * min(times) / n:.2f} ms an object, {added:.0f} MB",
    }


# Cases

PLAIN = ("one-parameter", "pairs", "Moran's I", "distances")
COLUMN = {"second": "column", "max_edge": 0.45}


def joint_structure(bench):
    """joint structure: 100 clouds of 50 points with a measured value, which is a wave or the same values shuffled"""
    found = bench.measure("ours", classified, "waves", "ours", COLUMN)
    bench.measure("ours, degree 0", classified, "waves", "ours", {"degrees": (0,), **COLUMN})
    bench.measure("ours, max_edge='auto'", classified, "waves", "ours", {"second": "column"})
    bench.measure("ours, codensity in its place", classified, "waves", "ours", {"second": lowest})
    by = {kind: bench.measure(kind, classified, "waves", kind) for kind in PLAIN}
    one = by["one-parameter"]
    bench.claim("accuracy, forest", found.forest, at_least=0.88)
    bench.claim("accuracy, logistic regression", found.logistic, at_least=0.86)
    bench.claim("accuracy of one-parameter features, the better of both", 1 - one.error, at_most=0.6)
    ahead = by["pairs"].forest - found.forest
    bench.note("pairs against ours", f"the histogram of pairs is ahead by {ahead:.3f} with the forest")


def lowest(points):
    """Nothing of the value: minus the logarithm of a kernel density of the places alone."""
    D = cdist(points[:, :2], points[:, :2])
    return -np.log(np.exp(-0.5 * (D / 0.125) ** 2).mean(1))


def rings_in_values(bench):
    """rings in values: 160 clouds of 100 points, values low near a ring or near a ring with a gap"""
    for noise in (0.05, 0.15):
        data = f"rings and arcs, noise {noise}"
        found = bench.measure(f"ours, noise {noise}", classified, data, "ours", COLUMN)
        bench.measure(f"ours, max_edge='auto', noise {noise}", classified, data, "ours", {"second": "column"})
        others = [bench.measure(f"{kind}, noise {noise}", classified, data, kind) for kind in PLAIN]
        best = min(others, key=lambda other: other.error)
        bench.claim(f"error against the best plain features, noise {noise}", found.error, best.error, at_most=1)


def value_as_coordinate(bench):
    """value as a coordinate: the clouds of both cases above as points in three dimensions, one-parameter features"""
    for data in ("waves", "rings and arcs, noise 0.05", "rings and arcs, noise 0.15"):
        bench.measure(data, classified, data, "value as a coordinate")


def outliers(bench):
    """outliers: how far 20 % of outliers move the vectors of 12 rings, in distances from rings to discs"""
    two, one = (bench.measure(kind, growth_by_outliers, kind) for kind in ("two parameters", "one parameter"))
    bench.claim("movement, two parameters against one", two.error, one.error, at_most=0.95)


def codensity(bench):
    """codensity: 72 clouds of 80 points, one circle, two circles or a disc, a quarter of the points outliers"""
    bench.measure("ours", classified, "circles", "ours", {})
    one, distances = (bench.measure(kind, classified, "circles", kind) for kind in ("one-parameter", "distances"))
    bench.note("not claimed", f"distances {1 - distances.error:.3f}, one-parameter {1 - one.error:.3f}")


def exactness(bench):
    """exactness: 20 clouds of 40 points, all lines, against the bars of gudhi"""
    cases = ({}, {"degrees": (1,), "resolution": (4, 9), "weight_power": 2.0}, {"degrees": (0,), "weight_power": 0.0})
    for settings in cases:
        found = bench.measure(str(settings), exact, settings, package="gudhi")
        bench.claim(f"largest difference, {settings}", found.error, at_most=1e-9)


def stable(bench):
    """stability: change of vectors over their norm, the largest of 10 clouds"""
    for change, need in (
        ("moved by 1e-3", 0.05),
        ("in another order", 1e-8),
        ("rotated", 1e-8),
        ("in other units", 1e-8),
    ):
        bench.claim(f"points {change}", bench.measure(change, stability, change).error, at_most=need)


def series(bench):
    """series: 80 rows of 60 steps, a noisy sine or an autoregression of a comparable period"""
    settings = {"delay": 3, "max_points": 40, "resolution": (7, 16)}
    found = bench.measure("ours", classified, "periodic", "ours", settings)
    raw = bench.measure("the rows", classified, "periodic", "as they are")
    bench.claim("accuracy, forest", found.forest, at_least=0.75)
    bench.claim("accuracy, forest, above the rows", found.forest - raw.forest, at_least=0.10)


def real_data(bench):
    """real data: 300 digits as clouds of pixels with their ink, wine's rows as series"""
    found = bench.measure("digits, ours", classified, "strokes", "ours", {"second": "column"})
    for kind in PLAIN:
        bench.measure(f"digits, {kind}", classified, "strokes", kind)
    bench.measure("wine, ours", classified, "wine", "ours", {})
    bench.measure("wine, the rows", classified, "wine", "as they are")
    bench.note("not claimed", f"digits: ours {1 - found.error:.3f}; one-parameter features and distances are ahead")


def speed(bench):
    """speed: processor time of `fit_transform` at 15 lines, degrees 0 and 1; gudhi makes one simplex tree a line"""
    cases = ((100, 50, {"max_edge": 0.45}, 1), (40, 50, {}, 3), (10, 100, {}, 3))
    for n, points, settings, need in cases:
        what = f"{n} clouds of {points} points, max_edge={settings.get('max_edge', 'auto')}"
        mine = bench.measure(f"native, {what}", timed, n, points, "native", settings)
        peer = bench.measure(f"gudhi, {what}", timed, n, points, "gudhi", settings, package="gudhi")
        bench.claim(f"times faster than gudhi, {what}", mine.seconds, peer.seconds, at_least=need)
    alone = bench.measure("native, degree 0 alone", timed, 100, 50, "native", {"max_edge": 0.45, "degrees": (0,)})
    bench.claim("seconds of 100 clouds of 50 points, degree 0 alone", alone.seconds, at_most=2.3)


def growth(bench):
    """growth: from 100 to 10,000 clouds of 20 points, and from 25 to 200 points"""
    few, more, many = (bench.measure(f"{n:,} clouds", timed, n, 20) for n in (100, 1000, 10_000))
    bench.claim("seconds, 1,000 clouds over 100", more.seconds, few.seconds, at_most=12)
    bench.claim("seconds, 10,000 clouds over 1,000", many.seconds, more.seconds, at_most=12)
    bench.claim("MB that 10,000 clouds add to the peak, 38 of them the vectors", many.added, at_most=300)
    for points in (25, 50, 100, 200):
        bench.measure(f"4 clouds of {points} points", timed, 4, points, "native", {"max_points": 200})


CASES = [
    value_as_coordinate,
    joint_structure,
    rings_in_values,
    outliers,
    codensity,
    exactness,
    stable,
    series,
    real_data,
    speed,
    growth,
]
