"""Vector fields on clouds of points: `ManifoldVectorFieldRegressor` against Gaussian processes on the coordinates.

Labels are vectors with noise of standard deviation 0.1 in each coordinate, and every score is that of points without a
label against the field without noise: "error" is 1 - r2, with r2 over all coordinates. The baseline in the same run is
scikit-learn's `GaussianProcessRegressor` with a constant times a Matérn kernel of smoothness 3/2 and white noise. In
"columns one by one" our kernel on the graph Laplacian takes each coordinate by itself. Nothing is tuned on points
without a label. Figures are means over seeds. On bundled tables the error is the share of wrong classes, or 1 - r2.
"""

import os
import time

import numpy as np
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.neighbors import NearestNeighbors
from sklearn.preprocessing import scale
from sklearn.semi_supervised import LabelSpreading
from sklearn.svm import SVC

from benchmarks.data import bundled
from benchmarks.harness import peak, quietly

TITLE = "Vector fields on manifolds"
NOISE = 0.1
BARE = {"kernel": "rbf", "ambient": None}
COLUMNS = {"signal": "scalar", "ambient": None}
NARROW = {"tangent_neighbors": 1.5}


# Data


def sphere_points(random, n, n_features=3):
    X = random.randn(n, 3)
    X = X / np.linalg.norm(X, axis=1, keepdims=True)
    return np.pad(X, ((0, 0), (0, n_features - 3)))


def torus_points(random, n):
    a, b = 2 * np.pi * random.rand(2, n)
    return np.c_[(1 + 0.4 * np.cos(b)) * np.cos(a), (1 + 0.4 * np.cos(b)) * np.sin(a), 0.4 * np.sin(b)]


def connection(X, k=10, wide=15):
    """The connection Laplacian and the frames in plain numpy: of the field's recipe, and a reference."""
    near = NearestNeighbors(n_neighbors=wide).fit(X).kneighbors(return_distance=False)
    T = np.array([np.linalg.svd((X[near[i]] - X[i]).T)[0][:, :2] for i in range(len(X))])
    W = np.zeros((len(X), len(X)))
    for i in range(len(X)):
        W[i, near[i, :k]] = W[near[i, :k], i] = 1
    L = np.diag(np.repeat(W.sum(1), 2))
    for i, j in zip(*np.nonzero(W)):
        U, _, Vh = np.linalg.svd(T[i].T @ T[j])
        L[2 * i : 2 * i + 2, 2 * j : 2 * j + 2] = -U @ Vh
    return L, T


def diffused(random, X):
    """Random unit tangent vectors, smoothed by exp(-100 L): the recipe of the paper; unit root mean square."""
    L, T = connection(X)
    w, V = np.linalg.eigh(L)
    z = random.randn(len(X), 2)
    z /= np.linalg.norm(z, axis=1, keepdims=True)
    F = np.einsum("nDd,nd->nD", T, ((V * np.exp(-100 * w)) @ (V.T @ z.ravel())).reshape(-1, 2))
    return F / np.sqrt((F**2).sum(1).mean())


def rolled(random, n, gap):
    """A sheet of height 2 whose turns are `gap` apart, and a field of unit vectors that turns along it."""
    a = gap / (2 * np.pi)
    t, h = np.sqrt(15 * random.rand(n) + 1) * np.pi, 2 * random.rand(n)
    X = np.c_[a * t * np.cos(t), h, a * t * np.sin(t)]
    along = np.c_[np.cos(t) - t * np.sin(t), 0 * t, np.sin(t) + t * np.cos(t)]
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    angle = (a * 0.5 * (t * np.sqrt(1 + t * t) + np.arcsinh(t)) + 0.8 * h)[:, None]
    return X, np.cos(angle) * along + np.sin(angle) * np.array([0, 1.0, 0])


def cloud(kind, seed, n=600):
    """Points, field and the generator that labels are drawn from next."""
    random = np.random.RandomState(seed)
    if kind.startswith("analytic"):
        X = sphere_points(random, n)
        F = np.cross([0, 0, 1.0], X) + 0.8 * (np.array([1.0, 0, 0]) - X[:, :1] * X)
        if kind == "analytic in 10-D":
            X, F = (np.pad(part, ((0, 0), (0, 7))) for part in (X, F))
            X = X + 0.03 * random.randn(*X.shape)
        return X, F, random
    if kind.startswith("roll"):
        return *rolled(random, n, float(kind.split()[1])), random
    X = torus_points(random, n) if kind == "torus" else sphere_points(random, n, 20 if kind == "sphere in 20-D" else 3)
    F = diffused(random, X)
    return X + (0.03 * random.randn(*X.shape) if kind == "sphere in 20-D" else 0), F, random


def labelled(F, random, n_labels):
    """Noisy vectors at some points and NaN elsewhere, and which are given."""
    given = np.zeros(len(F), dtype=bool)
    given[random.choice(len(F), n_labels, replace=False)] = True
    y = F + NOISE * random.randn(*F.shape)
    y[~given] = np.nan
    return y, given


# Methods


def ours(**settings):
    from sklowrank.manifold import ManifoldVectorFieldRegressor

    return ManifoldVectorFieldRegressor(device=os.environ["SKLOWRANK_BENCH_DEVICE"], random_state=0, **settings)


def by_coordinates(X, y, **settings):
    kernel = ConstantKernel() * Matern(nu=1.5) + WhiteKernel(0.01)
    return quietly(GaussianProcessRegressor(kernel, random_state=0, **settings).fit, X, y)


def lost(guess, F):
    return ((guess - F) ** 2).sum() / ((F - F.mean(0)) ** 2).sum()


# Measured functions: each runs in a fresh process


def completed(kind, n, n_labels, seeds, settings):
    """Error at points without a label, seconds of fit and prediction; settings None is the baseline."""
    errors, times, spread = [], [], []
    for seed in seeds:
        X, F, random = cloud(kind, seed, n)
        y, given = labelled(F, random, n_labels)
        start = time.process_time()
        if settings is None:
            model = by_coordinates(X[given], y[given])
        else:
            model = ours(**settings).fit(X, y)
        guess, std = model.predict(X, return_std=True)
        times.append(time.process_time() - start)
        errors.append(lost(guess[~given], F[~given]))
        if settings is not None:
            seen = (F + NOISE * random.randn(*F.shape) - guess)[~given]
            spread.append((seen**2 / (std[~given] ** 2 + NOISE**2)).mean())
    figures = {"error": np.mean(errors), "r2": 1 - np.mean(errors), "seconds": np.mean(times)}
    remark = f"r2 {1 - np.mean(errors):.4f}, from {1 - max(errors):.4f} to {1 - min(errors):.4f}"
    return {**figures, "spread": np.mean(spread) if spread else np.nan, "remark": remark}


def unseen(method):
    """Error at points that the fit has not seen: 1000 points with 150 labels, 300 new ones."""
    X, F, random = cloud("roll 0.3", 5, 1300)
    y = F + NOISE * random.randn(*F.shape)
    y[150:] = np.nan
    if method == "baseline":
        guess = by_coordinates(X[:150], y[:150]).predict(X[1000:])
    else:
        model = ours().fit(X[:1000], y[:1000])
        guess = model.predict(X[1000:])
    figures = {"error": lost(guess, F[1000:]), "r2": 1 - lost(guess, F[1000:])}
    if method != "baseline":
        beside = np.abs(model.predict(X[:1000] + 1e-7) - model.predict(X[:1000]))
        figures |= {"median": np.median(beside), "largest": beside.max()}
    return {**figures, "remark": f"r2 {figures['r2']:.4f}"}


def invariance(ambient):
    """Largest changes of means and deviations, and distances from references in plain numpy."""
    X, F, random = cloud("sphere", 3, 300)
    y, _ = labelled(F, random, 90)
    fixed = {"optimizer": None, "length_scale": 20.0, "noise_variance": 0.01, "kernel": "rbf", "n_eigenpairs": 40}

    def answers(X_fit, y_fit, X_new, turn=1.0):
        mean, std = ours(ambient=ambient, **fixed).fit(X_fit, y_fit).predict(X_new, return_std=True)
        return mean @ turn if np.ndim(turn) else mean / turn, np.sqrt((std**2).sum(1))

    mean, std = answers(X, y, X)
    Q, order = np.linalg.qr(random.randn(3, 3))[0], random.permutation(300)
    others = {
        "turned": answers(X @ Q, y @ Q, X @ Q, Q.T),
        "order": answers(X[order], y[order], X),
        "units of X": answers(50 * X + 7, y, 50 * X + 7),
        "units of y": tuple(part / 1000 if i else part for i, part in enumerate(answers(X, 1000 * y, X, 1000.0))),
    }
    off = {name: max(np.abs(m - mean).max(), np.abs(s - std).max()) for name, (m, s) in others.items()}
    model = ours(ambient=ambient, **fixed).fit(X, y)
    L, T = connection(X)
    w, V = np.linalg.eigh(L)
    code = (T @ V[:, :40].reshape(300, 2, 40)) * np.sqrt(600)
    found, slow = (np.einsum("aik,k,bjk->aibj", E, np.exp(-30 * w[:40]), E) for E in (model.eigenvectors_, code))
    figures = {
        "eigenvalues": np.abs(model.eigenvalues_ - w[:40]).max(),
        "kernel": np.abs(found - slow).max() / slow.max(),
    }
    return {"error": max(off.values()), **figures, "remark": ", ".join(f"{k} {v:.0e}" for k, v in off.items())}


def few_classes(method, n_labels):
    """Share of wrong classes of digits, all images known and some labels; classes as ten columns of 0 and 1."""
    X, y = bundled("digits")
    X, wrong, times = X / 16, [], []
    for seed in range(5):
        random = np.random.RandomState(seed)
        given = np.zeros(len(X), dtype=bool)
        given[random.choice(len(X), n_labels, replace=False)] = True
        columns = np.where(given[:, None], np.eye(10)[y], np.nan)
        start = time.process_time()
        if method == "LabelSpreading":
            model = LabelSpreading(kernel="knn", n_neighbors=10, alpha=0.2)
            guess = quietly(model.fit, X, np.where(given, y, -1)).transduction_
        elif method == "SVC":
            guess = SVC(C=10).fit(X[given], y[given]).predict(X)
        elif method == "baseline":
            guess = by_coordinates(X[given], columns[given]).predict(X).argmax(1)
        else:
            guess = ours(**method).fit(X, columns).predict(X).argmax(1)
        times.append(time.process_time() - start)
        wrong.append((guess[~given] != y[~given]).mean())
    remark = f"{min(wrong):.3f} to {max(wrong):.3f} over 5 draws"
    return {"error": np.mean(wrong), "seconds": np.mean(times), "remark": remark}


def table(method, n_labels):
    """1 - r2 of the progression of diabetes: all patients known, some labels; standardised columns."""
    X, y = bundled("diabetes")
    X, errors = scale(X), []
    for seed in range(10):
        random = np.random.RandomState(seed)
        given = np.zeros(len(X), dtype=bool)
        given[random.choice(len(X), n_labels, replace=False)] = True
        if method == "baseline":
            guess = by_coordinates(X[given], y[given], normalize_y=True, n_restarts_optimizer=2).predict(X)
        else:
            guess = ours().fit(X, np.where(given, y, np.nan)).predict(X)
        errors.append(lost(guess[~given], y[~given]))
    return {"error": np.mean(errors), "remark": f"r2 {1 - np.mean(errors):.3f}"}


def many(kind, n, n_labels, settings):
    """One fit of many points, prediction at all of them, and the memory that these add."""
    X, F, random = cloud(kind, 0, n)
    y, given = labelled(F, random, n_labels)
    before, start = peak(), time.process_time()
    if settings is None:
        model = by_coordinates(X[given], y[given])
        fitted = time.process_time() - start
        guess = model.predict(X)
    else:
        model = ours(**settings).fit(X, y)
        fitted = time.process_time() - start
        guess = model.predict(X, return_std=True)[0]
    after = time.process_time() - start - fitted
    hidden = ~given if n_labels < n else given
    error, added = lost(guess[hidden], F[hidden]), peak() - before
    remark = f"r2 {1 - error:.4f}; predictions {after:.1f} s; {added:.0f} MB added"
    return {"error": error, "r2": 1 - error, "seconds": fitted, "added": added, "remark": remark}


# Cases


def compare(bench, label, kind, n, n_labels, seeds, **others):
    """Measure our default, others of ours, and the baseline."""
    args, named = (completed, kind, n, n_labels, seeds), {"default": {}, **others, "GaussianProcessRegressor": None}
    return [bench.measure(f"{label}{name}", *args, settings) for name, settings in named.items()]


def recipe(bench):
    """The paper's recipe: 600 points, 120 labels, random tangent vectors smoothed by the model's own operator"""
    for kind in ("sphere", "torus"):
        named = {"rbf, ambient=None": BARE, "columns one by one": COLUMNS}
        found, bare, columns, plain = compare(bench, f"{kind}, ", kind, 600, 120, (0, 1), **named)
        bench.claim(f"{kind}, rbf, ambient=None: r2", bare.r2, at_least=0.99)
        bench.claim(f"{kind}, rbf, ambient=None: r2 above the baseline", bare.r2 - plain.r2, at_least=0.012)
        bench.claim(f"{kind}, default: r2", found.r2, at_least=0.99)
        bench.claim(f"{kind}, default: r2 above the baseline", found.r2 - plain.r2, at_least=0.006)
        bench.claim(f"{kind}, default: r2 above columns one by one", found.r2 - columns.r2, at_least=0.015)
        bench.claim(f"{kind}, variance of standardised residuals", bare.spread, at_least=0.6, at_most=1.6)


def smooth(bench):
    """A smooth field: on a sphere, given by a formula, 600 points, 120 labels; the baseline wins"""
    found, bare, plain = compare(bench, "", "analytic", 600, 120, (0, 1, 2), **{"ambient=None": {"ambient": None}})
    bench.claim("default: r2 below the baseline by", plain.r2 - found.r2, at_most=0.004)
    bench.claim("ambient=None: r2", bare.r2, at_least=0.975)


def tight(bench):
    """A tight roll: turns 0.2 apart, 1000 points, 80 labels"""
    found, columns, plain = compare(bench, "", "roll 0.2", 1000, 80, (0, 1, 2), **{"columns one by one": COLUMNS})
    bench.claim("default: r2", found.r2, at_least=0.92)
    bench.claim("default: r2 above the baseline", found.r2 - plain.r2, at_least=0.05)
    bench.claim("default: r2 above columns one by one", found.r2 - columns.r2, at_least=0.02)


def new_points(bench):
    """New points: turns 0.3 apart, 1000 points, 150 labels, 300 points that the fit has not seen"""
    found, plain = (
        bench.measure("default", unseen, "ours"),
        bench.measure("GaussianProcessRegressor", unseen, "baseline"),
    )
    bench.claim("default: r2", found.r2, at_least=0.96)
    bench.claim("default: r2 above the baseline", found.r2 - plain.r2, at_least=0.005)
    bench.claim("median step between known points and 1e-7 beside them", found.median, at_most=0.03)
    bench.claim("largest step", found.largest, at_most=0.6)


def limits(bench):
    """Where coordinates suffice: wide turns, turns closer than points, spheres with noise in all coordinates"""
    for label, kind, n_labels in (
        ("turns 0.6 apart", "roll 0.6", 120),
        ("turns closer than points", "roll 0.05", 300),
        ("20 coordinates", "sphere in 20-D", 120),
        ("10 coordinates, smooth field", "analytic in 10-D", 120),
    ):
        settings = {"ambient=None": {"ambient": None}, "tangent_neighbors=1.5": NARROW}
        found, _, narrow, plain = compare(bench, f"{label}, ", kind, 600, n_labels, (0, 1), **settings)
        bench.claim(f"{label}, default: r2 below the baseline by", plain.r2 - found.r2, at_most=0.005)
        bench.note(f"{label}, tangent_neighbors=1.5", f"r2 above the baseline by {narrow.r2 - plain.r2:.4f}")


def bases(bench):
    """Bases, order and units: 300 points on a sphere, fixed hyperparameters; largest change of means and deviations"""
    for ambient in (None, "matern"):
        found = bench.measure(f"ambient={ambient}", invariance, ambient)
        bench.claim(f"ambient={ambient}: largest change", found.error, at_most=1e-6)
        bench.claim(f"ambient={ambient}: eigenvalues off those of a dense reference", found.eigenvalues, at_most=1e-6)
        bench.claim(f"ambient={ambient}: kernel off that of a dense reference, relative", found.kernel, at_most=1e-6)


def digits(bench):
    """Digits: 1797 images known, few of their classes; classes as ten columns of numbers"""
    for n_labels in (50, 100, 400):
        found = bench.measure(f"{n_labels} labels, default", few_classes, {}, n_labels)
        bench.measure(f"{n_labels} labels, ambient=None", few_classes, {"ambient": None}, n_labels)
        plain = bench.measure(f"{n_labels} labels, GaussianProcessRegressor", few_classes, "baseline", n_labels)
        bench.measure(f"{n_labels} labels, LabelSpreading, 10 neighbours", few_classes, "LabelSpreading", n_labels)
        bench.measure(f"{n_labels} labels, SVC, C=10", few_classes, "SVC", n_labels)
        bench.claim(f"{n_labels} labels: errors against the baseline", found.error, plain.error, at_most=1)


def diabetes(bench):
    """Diabetes: a plain table of 442 rows, one column of numbers, ten draws of the labels"""
    for n_labels in (50, 200):
        found = bench.measure(f"{n_labels} labels, default", table, "ours", n_labels)
        plain = bench.measure(f"{n_labels} labels, GaussianProcessRegressor", table, "baseline", n_labels)
        bench.claim(f"{n_labels} labels: errors against the baseline", found.error, plain.error, at_most=1.02)


def large(bench):
    """Many points: seconds of processor time of a fit on one core"""
    found = bench.measure("roll, 20,000 points, 400 labels", many, "roll 0.1", 20_000, 400, {})
    plain = bench.measure("roll, 400 labels, GaussianProcessRegressor", many, "roll 0.1", 20_000, 400, None)
    bench.claim("r2 above the baseline", found.r2 - plain.r2, at_least=0.005)
    bench.claim("GB added, 20,000 points; a matrix of order 20,000 has 3.2", found.added / 1000, at_most=0.6)
    bench.claim("seconds, 20,000 points, 400 labels", found.seconds, at_most=20)
    labels = bench.measure("sphere, 20,000 points, 1,000 labels", many, "analytic", 20_000, 1000, {})
    plain = bench.measure("sphere, 1,000 labels, GaussianProcessRegressor", many, "analytic", 20_000, 1000, None)
    bench.claim("1,000 labels: r2 below the baseline by", plain.r2 - labels.r2, at_most=0.005)
    bench.note("sphere, 1,000 labels", f"seconds {labels.seconds / plain.seconds:.1f} times those of the baseline")
    full = bench.measure("sphere, 20,000 points, as many labels", many, "analytic", 20_000, 20_000, {})
    bench.claim("GB added, 20,000 labels; the matrix of the baseline has 3.2", full.added / 1000, at_most=1.2)


CASES = [recipe, smooth, tight, new_points, limits, bases, digits, diabetes, large]
