"""Features that keep what X says about random objects: `FrechetSDR`, and its kernel and linear companions.

The error of a reduction of generated data is one minus the distance correlation between the features of 1,000 new rows
and the functions of X that y depends on; 1,000 rows are fitted, means of two seeds. SIR and SAVE slice the natural
number of a response: itself, the mean of a distribution, the logarithm of a determinant, the height of a direction. The
distance-covariance network has the layers, the whitening and the early stopping of one of ours, and responses as
vectors, whose chords or logarithms have the right distances. Seconds are those of one fit. Ours runs with its defaults
unless settings are named.
"""

import os
import time
import warnings

import numpy as np
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import train_test_split
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.preprocessing import StandardScaler

from benchmarks.data import bundled, ink, logarithms
from benchmarks.harness import clock, quietly
from benchmarks.peers import Reduced, cumulative_covariance_by_loops, distance_covariance_net, sliced

TITLE = "Fréchet sufficient dimension reduction"
MODELS = {  # response of the generator, metric, share of rows that are moved far out
    "E1": ("number", "euclidean", 0),
    "E2": ("heavy_tails", "euclidean", 0),
    "W1": ("location", "wasserstein", 0),
    "W2": ("location_scale", "wasserstein", 0),
    "S2": ("matrix", "spd_log", 0),
    "SP": ("direction", "sphere", 0),
    "E1c": ("number", "euclidean", 0.1),
    "W1c": ("location", "wasserstein", 0.1),
}
NEEDS = {"E1": 0.95, "E2": 0.91, "W1": 0.93, "W2": 0.90, "S2": 0.87, "SP": 0.93, "W1c": 0.91}


# Data


def model(name, seed, n_samples=1000, n_features=10):
    """Fitted and new rows: X, y, S."""
    from sklowrank.datasets import make_frechet_regression

    response, _, share = MODELS[name]
    X, y, S = make_frechet_regression(n_samples, n_features, response=response, random_state=seed)
    if share:
        rng = np.random.default_rng(seed + 7)
        hit = rng.random(n_samples) < share
        y[hit] += (30 * rng.standard_t(1, size=hit.sum())).reshape(-1, *[1] * (y.ndim - 1))
    return (X, y, S), make_frechet_regression(1000, n_features, response=response, random_state=100 + seed)


def vectors(y, metric):
    """Vectors whose Euclidean distances are those of the responses; chords for directions."""
    if metric == "wasserstein":
        return np.sort(y, axis=1) / y.shape[1] ** 0.5
    return logarithms(y) if metric == "spd_log" else y.reshape(len(y), -1)


def number_of(y, metric):
    """The natural number of a response."""
    if metric == "wasserstein":
        return y.mean(1)
    if metric == "spd_log":
        return np.linalg.slogdet(y)[1]
    return y[:, 2] if metric == "sphere" else y


# Methods


def ours(name, d, metric, **settings):
    from sklowrank import dimension_reduction

    estimator = getattr(dimension_reduction, name)(d, metric=metric, **settings)
    estimator.set_params(device=os.environ["SKLOWRANK_BENCH_DEVICE"])
    return estimator


def reduction(name, settings, X, y, d, metric, seed):
    """A function from rows to features, fitted."""
    if name in ("SIR", "SAVE"):
        return sliced(X, number_of(y, metric), d, name)
    if name == "PLSRegression":
        Y = vectors(y, metric)
        return PLSRegression(min(d, Y.shape[1])).fit(X, Y).transform
    if name == "distance-covariance network":
        return distance_covariance_net(X, vectors(y, metric), d, seed)
    seeded = {"random_state": seed} if name != "LinearFrechetSDR" else {}
    return ours(name, d, metric, **seeded, **settings).fit(X, y).transform


# Measured functions: each runs in a fresh process


def warmed_up():
    """Load what the first fit of a process loads."""
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        ours("FrechetSDR", 1, "euclidean", max_iter=1).fit(rng.normal(size=(60, 2)), rng.normal(size=60))


def generated(name, method, settings, seeds=2, n_samples=1000, n_features=10):
    """Error of a method on a generated model."""
    from sklowrank.metrics import distance_correlation

    warmed_up()
    metric, found, times = MODELS[name][1], [], []
    for seed in range(seeds):
        (X, y, S), (X_new, _, S_new) = model(name, seed, n_samples, n_features)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            start = time.perf_counter()
            features = reduction(method, settings, X, y, S.shape[1], metric, seed)
            seconds = time.perf_counter() - start
        found.append(distance_correlation(features(X_new), S_new))
        times.append(seconds)
    return {"error": 1 - np.mean(found), "right": np.mean(found), "seconds": min(times)} | {
        "remark": "seeds " + ", ".join(f"{value:.3f}" for value in found)
    }


def neighbours(data, name, d, n_neighbors=10, seeds=5, **settings):
    """Error of nearest neighbours on d features of a bundled table: one minus R², or share of wrong classes."""
    X, y = bundled(data)
    X, numbers = X[:, X.std(0) > 0], data == "diabetes"
    near = KNeighborsRegressor(n_neighbors) if numbers else KNeighborsClassifier(n_neighbors)
    warmed_up()
    right, start = [], time.perf_counter()
    for seed in range(seeds):
        stratify = None if numbers else y
        X_fit, X_new, y_fit, y_new = train_test_split(X, y, test_size=0.3, random_state=seed, stratify=stratify)
        scaler = StandardScaler().fit(X_fit)
        if name == "linear model":
            model = Reduced("all columns", d, LinearRegression() if numbers else LinearDiscriminantAnalysis())
        elif name.endswith("FrechetSDR"):
            seeded = {"random_state": seed} if name != "LinearFrechetSDR" else {}
            model = Reduced(ours(name, d, "euclidean" if numbers else "discrete", **{**seeded, **settings}), d, near)
        else:
            model = Reduced(name, d, near)
        right.append(quietly(model.fit, scaler.transform(X_fit), y_fit).score(scaler.transform(X_new), y_new))
    seconds = (time.perf_counter() - start) / seeds
    return {"error": 1 - np.mean(right), "right": np.mean(right), "first": right[0], "seconds": seconds}


def shapes(name, d, seeds=3):
    """Mean distance between matrices and their prediction, the mean of 15 neighbours in the features of half digits."""
    X, S = ink()
    T = logarithms(S)
    warmed_up()
    errors, start = [], time.perf_counter()
    for seed in range(seeds):
        fit, new = train_test_split(np.arange(len(X)), test_size=0.4, random_state=seed)
        scaler = StandardScaler().fit(X[fit])
        rows, rows_new = scaler.transform(X[fit]), scaler.transform(X[new])
        if name == "mean of all":
            predicted = np.repeat(T[fit].mean(0, keepdims=True), len(new), axis=0)
        else:
            if name == "PCA":
                features = PCA(d).fit(rows).transform
            elif name == "all columns":
                features = np.asarray
            else:
                features = reduction(name, {}, rows, S[fit], d, "spd_log", seed)
            predicted = KNeighborsRegressor(15).fit(features(rows), T[fit]).predict(features(rows_new))
        errors.append(np.linalg.norm(predicted - T[new], axis=1).mean())
    seconds = (time.perf_counter() - start) / seeds
    return {"error": np.mean(errors), "seconds": seconds, "remark": f"worst of {seeds} splits {max(errors):.3f}"}


def exactness():
    """Relative differences of the measure from its definition and from its kernel form, with ties."""
    from sklowrank.dimension_reduction import frechet_cumulative_covariance

    rng = np.random.default_rng(0)
    U, y = rng.normal(size=(60, 2)), rng.integers(0, 7, 60).astype(float)
    D = np.abs(y[:, None] - y)
    value, slow = frechet_cumulative_covariance(U, y), cumulative_covariance_by_loops(U, D)
    r = (D[:, None, :] >= D[:, :, None]).sum(2) / 60
    K, Uc = np.minimum(r[:, :, None], r[:, None, :]).mean(0), U - U.mean(0)
    kernel = np.trace(Uc.T @ K @ Uc) / 60**2
    increasing = [frechet_cumulative_covariance(U, f(D), metric="precomputed") for f in (np.asarray, np.exp, np.square)]
    return {
        "error": abs(value / slow - 1),
        "kernel": abs(value / kernel - 1),
        "increasing": max(increasing) - min(increasing),
    }


def exact_cost(n_samples):
    """Seconds of the exact measure."""
    from sklowrank.dimension_reduction import frechet_cumulative_covariance

    rng = np.random.default_rng(0)
    U, y = rng.normal(size=(n_samples, 2)), rng.normal(size=n_samples)
    frechet_cumulative_covariance(U[:100], y[:100])
    value, seconds = clock(lambda: frechet_cumulative_covariance(U, y))
    return {"seconds": seconds, "remark": f"value {value:.3g}"}


def of_numbers(function, n_samples, all_pairs):
    """Seconds of a measure of dependence of two columns; `all_pairs` by a column of zeros beside the second one."""
    from sklowrank.dimension_reduction import frechet_cumulative_covariance
    from sklowrank.metrics import distance_correlation

    call = {"cumulative covariance": frechet_cumulative_covariance, "distance correlation": distance_correlation}[
        function
    ]
    rng = np.random.default_rng(0)
    y = rng.normal(size=n_samples)
    U = np.tanh(y) + rng.normal(size=n_samples)
    y = np.column_stack([y, np.zeros(n_samples)]) if all_pairs else y
    call(U[:100], y[:100])
    value, seconds = clock(lambda: call(U, y))
    return {"seconds": seconds, "value": value, "remark": f"value {value:.9f}"}


def landmarks(name):
    """Relative difference of the measure with 64 landmarks from the exact one."""
    from sklowrank.dimension_reduction import frechet_cumulative_covariance

    (_, y, S), _ = model(name, 0, 400)
    exact, some = (
        frechet_cumulative_covariance(S, y, metric=MODELS[name][1], n_landmarks=m, random_state=0) for m in (None, 64)
    )
    return {"error": abs(some / exact - 1)}


def direction(method, relation):
    """One minus the cosine of the direction found with that of a relation of one column."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(500, 10))
    noise = 0.1 * rng.normal(size=500)
    y = (X[:, 0] if relation == "linear" else X[:, 0] ** 2) + noise
    sdr, seconds = clock(lambda: ours("LinearFrechetSDR", 1, "euclidean", method=method).fit(X, y))
    b = sdr.components_[0]
    cosine = abs(b[0]) / np.linalg.norm(b)
    return {"error": 1 - cosine, "right": cosine, "seconds": seconds}


def wire_formula():
    """The smallest cosine of directions of "wire" with those of the formula."""
    (X, y, _), _ = model("W2", 0)
    B = ours("LinearFrechetSDR", 2, "wasserstein").fit(X, y).components_
    Xc, Y = X - X.mean(0), vectors(y, "wasserstein")
    e, V = np.linalg.eigh(Xc.T @ Xc / len(X))
    W = (V / np.sqrt(e)) @ V.T
    D = np.sqrt(np.maximum((Y**2).sum(1)[:, None] + (Y**2).sum(1) - 2 * Y @ Y.T, 0))
    e, V = np.linalg.eigh(-(Xc @ W).T @ D @ (Xc @ W) / len(X) ** 2)
    A = (W @ V[:, np.argsort(-np.abs(e))[:2]]).T
    cosines = [abs(a @ b) / np.linalg.norm(a) / np.linalg.norm(b) for a, b in zip(A, B)]
    return {"error": 1 - min(cosines), "right": min(cosines)}


def fit_time(name, n_samples, settings, repeats=1):
    """Seconds of a fit to E1, and the score on new rows."""
    warmed_up()
    (X, y, _), (X_new, y_new, _) = model("E1", 0, n_samples)
    seeded = {"random_state": 0} if name != "LinearFrechetSDR" else {}
    times = []
    for _ in range(repeats):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            sdr, seconds = clock(lambda: ours(name, 1, "euclidean", **seeded, **settings).fit(X, y))
        times.append(seconds)
    steps = f", {sdr.n_iter_} passes" if hasattr(sdr, "n_iter_") else ""
    return {"seconds": min(times), "remark": f"explains {sdr.score(X_new, y_new):.3f} of new rows{steps}"}


def abreast(n_samples, together):
    """Seconds of a pass of five networks, side by side or one after another."""
    warmed_up()
    (X, y, _), _ = model("E1", 0, n_samples)
    passes = 40 if n_samples < 10_000 else 3
    settings = {"max_iter": passes, "tol": 0.0, "random_state": 0, "n_estimators": 5 if together else 1}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        idle = clock(lambda: ours("FrechetSDR", 1, "euclidean", **{**settings, "max_iter": 1}).fit(X, y))[1]
        seconds = clock(lambda: ours("FrechetSDR", 1, "euclidean", **settings).fit(X, y))[1]
    return {"seconds": (seconds - idle) / (passes - 1) * (1 if together else 5)}


def digits_of_ours(d):
    """Five nearest neighbours on features of the digits, one seed for all splits."""
    return neighbours("digits", "FrechetSDR", d, 5, 3, random_state=0)


# Cases


def models(bench):
    """Models: numbers, distributions, matrices and directions; error is one minus the distance correlation"""
    for name in MODELS:
        for method in ("SIR", "SAVE", "PLSRegression"):
            bench.measure(f"{name}, {method}", generated, name, method, {})
        for method in ("wire", "second"):
            bench.measure(
                f"{name}, LinearFrechetSDR, {method}", generated, name, "LinearFrechetSDR", {"method": method}
            )
        kernel = bench.measure(f"{name}, KernelFrechetSDR", generated, name, "KernelFrechetSDR", {})
        rival = bench.measure(
            f"{name}, distance-covariance network", generated, name, "distance-covariance network", {}
        )
        single = {"n_estimators": 1}
        bench.measure(f"{name}, FrechetSDR, one network", generated, name, "FrechetSDR", single)
        found = bench.measure(f"{name}, FrechetSDR", generated, name, "FrechetSDR", {})
        if name in NEEDS:
            bench.claim(f"{name}: distance correlation", found.right, at_least=NEEDS[name])
        if name in ("E1", "SP"):
            bench.claim(f"{name}: KernelFrechetSDR", kernel.right, at_least={"E1": 0.90, "SP": 0.92}[name])
            bench.claim(f"{name}: above the distance-covariance network", found.right - rival.right, at_least=0)
        if name == "W1c":
            bench.claim("W1c: above the distance-covariance network", found.right - rival.right, at_least=0.25)


def other_sizes(bench):
    """Other sizes: fewer rows, fewer and more columns, of which two matter; three seeds, no claim is made"""
    for name in ("E1", "SP"):
        for n, p in ((1000, 4), (1000, 40), (80, 10)):
            methods = {"LinearFrechetSDR, second": {"method": "second"}, "KernelFrechetSDR": {}, "FrechetSDR": {}}
            for label, settings in methods.items():
                row = f"{name}, {n:,} rows, {p} columns, {label}"
                bench.measure(row, generated, name, label.split(",")[0], settings, 3, n, p)


def digits(bench):
    """Digits: classes, five nearest neighbours on 9 and on 5 features, three splits"""
    for d in (9, 5):
        names = ["PCA", "PLSRegression", "LinearDiscriminantAnalysis", "NeighborhoodComponentsAnalysis"]
        for name in names + ["all columns"] * (d == 9):
            label = name if name == "all columns" else f"{name}, {d} features"
            bench.measure(label, neighbours, "digits", name, d, 5, 3)
        found = bench.measure(f"ours, {d} features", digits_of_ours, d)
        if d == 9:
            bench.claim("accuracy with 9 features, first split", found.first, at_least=0.975)


def half_digits(bench):
    """Half digits: how the ink of a digit spreads, a 2 x 2 matrix, from the left half of its pixels; nothing tuned"""
    for name in ("mean of all", "all columns"):
        bench.measure(name, shapes, name, 0)
    for d in (2, 3):
        plain = [bench.measure(f"{name}, {d} features", shapes, name, d) for name in ("PCA", "PLSRegression")]
        for name in ("LinearFrechetSDR", "KernelFrechetSDR"):
            bench.measure(f"{name}, {d} features", shapes, name, d)
        found = bench.measure(f"FrechetSDR, {d} features", shapes, "FrechetSDR", d)
        best = min(part.error for part in plain)
        bench.claim(f"{d} features: error over that of the better of PCA and PLS", found.error, best, at_most=1.0)


def tables(bench):
    """Bundled tables: ten nearest neighbours on two features, five splits; no claim is made"""
    for data in ("diabetes", "breast cancer", "wine"):
        names = ("linear model", "all columns", "PCA", "PLSRegression", "LinearFrechetSDR", "KernelFrechetSDR")
        for name in (*names, "FrechetSDR"):
            bench.measure(f"{data}, {name}", neighbours, data, name, 2)


def measure(bench):
    """Measure: frechet_cumulative_covariance against its definition, relative differences"""
    found = bench.measure("60 rows with ties", exactness)
    bench.claim("difference from the loops", found.error, at_most=1e-12)
    bench.claim("difference from the kernel form", found.kernel, at_most=1e-12)
    bench.claim("difference after increasing functions of the distance", found.increasing, at_most=0)
    for name in ("E1", "W2", "S2", "SP"):
        some = bench.measure(f"{name}, 400 rows, 64 landmarks", landmarks, name)
        bench.claim(f"{name}: 64 landmarks off the exact value", some.error, at_most=0.15)
    bench.claim("seconds of 3,000 rows", bench.measure("3,000 rows", exact_cost, 3000).seconds, at_most=3)


def numbers(bench):
    """Numbers: dependence of two columns, from cumulative sums and from all pairs of rows"""
    for function, least in (("cumulative covariance", 5), ("distance correlation", 5)):
        pairs = bench.measure(f"{function}, 3,000 rows, all pairs", of_numbers, function, 3000, True)
        fast = bench.measure(f"{function}, 3,000 rows", of_numbers, function, 3000, False)
        bench.measure(f"{function}, 20,000 rows", of_numbers, function, 20_000, False)
        bench.claim(f"{function}: relative difference", abs(fast.value / pairs.value - 1), at_most=1e-10)
        bench.claim(f"{function}, 3,000 rows: times faster", fast.seconds, pairs.seconds, at_least=least)


def linear(bench):
    """Linear: directions of 500 rows and 10 columns; error is one minus the cosine"""
    for method in ("wire", "fccov"):
        found = bench.measure(f"{method}, y = x + noise", direction, method, "linear")
        bench.claim(f"{method}: cosine for y = x + noise", found.right, at_least=0.99)
    found = bench.measure("second, y = x² + noise", direction, "second", "square")
    bench.claim("second: cosine for y = x² + noise", found.right, at_least=0.95)
    found = bench.measure("wire, y = x² + noise", direction, "wire", "square")
    bench.claim("wire: cosine for y = x² + noise, which it cannot see", found.right, at_most=0.7)
    found = bench.measure("wire against its formula, W2", wire_formula)
    bench.claim("wire: smallest cosine with the formula", found.right, at_least=0.9999)


def speed(bench):
    """Speed: E1; and five networks side by side, seconds of a pass"""
    small = bench.measure("FrechetSDR, 1,000 rows", fit_time, "FrechetSDR", 1000, {}, 3)
    bench.claim("seconds of 1,000 rows", small.seconds, at_most=4)
    large = bench.measure("FrechetSDR, 100,000 rows", fit_time, "FrechetSDR", 100_000, {})
    bench.claim("seconds of 100,000 rows against 1,000", large.seconds, small.seconds, at_most=60)
    bench.claim("peak memory of 100,000 rows in MB", large.peak, at_most=2000)
    for n in (1000, 5000, 100_000):
        bench.measure(f"KernelFrechetSDR, {n:,} rows", fit_time, "KernelFrechetSDR", n, {})
    for method in ("wire", "fccov", "second"):
        for n in (1000, 10_000):
            settings = {"method": method}
            bench.measure(f"LinearFrechetSDR, {method}, {n:,} rows", fit_time, "LinearFrechetSDR", n, settings)
    for n in (1000, 20_000):
        together = bench.measure(f"five networks side by side, {n:,} rows", abreast, n, True)
        after = bench.measure(f"five networks one after another, {n:,} rows", abreast, n, False)
        bench.claim(f"five networks at once, {n:,} rows: times faster", together.seconds, after.seconds, at_least=1)


CASES = [models, other_sizes, digits, half_digits, tables, measure, numbers, linear, speed]
