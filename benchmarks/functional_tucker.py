"""Responses over coordinates: `FunctionalTuckerRegressor`.

Errors are root mean squared errors on rows that were not fitted, in units of y. Coverage is the share of these in the
intervals of 90 % that include the noise. Boosting is HistGradientBoostingRegressor, the process a
GaussianProcessRegressor with an anisotropic Matérn kernel and noise, both learned. Parameters are those of the text or
defaults; none was chosen on rows that are not fitted. Seconds are those of the processor, for one fit.
"""

import os
import time

import numpy as np
from sklearn.datasets import load_diabetes, make_friedman1
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.linear_model import RidgeCV
from sklearn.neighbors import KNeighborsRegressor

from benchmarks.data import folder, missing
from benchmarks.harness import quietly, rms

TITLE = "Functional Tucker regression"
NU = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5}


def ours(rank=3, **params):
    from sklowrank.tensor import FunctionalTuckerRegressor

    return FunctionalTuckerRegressor(
        rank, **{"device": os.environ["SKLOWRANK_BENCH_DEVICE"], "random_state": 0, **params}
    )


def now():
    """Processor seconds, which other processes do not lengthen; on a GPU those of the clock."""
    return time.process_time() if os.environ["SKLOWRANK_BENCH_DEVICE"] == "cpu" else time.perf_counter()


def process(n_features):
    kernel = ConstantKernel() * Matern(np.full(n_features, 0.3), nu=1.5) + WhiteKernel(1e-2)
    return GaussianProcessRegressor(kernel, normalize_y=True, random_state=0)


PEERS = {
    "HistGradientBoosting": lambda d: HistGradientBoostingRegressor(max_iter=300, random_state=0),
    "HistGradientBoosting, 100 trees": lambda d: HistGradientBoostingRegressor(random_state=0),
    "ExtraTrees": lambda d: ExtraTreesRegressor(30, random_state=0),
    "nearest neighbour": lambda d: KNeighborsRegressor(1),
    "GaussianProcess": process,
    "ridge": lambda d: RidgeCV(np.logspace(-3, 3, 13)),
}


# Data: fitted rows and others, and their responses without noise, where these are known


def temperatures():
    """Yearly means in cities of the United States; cells of latitude, longitude and year are held out whole."""
    file = np.load(folder("us_temp") / "us_temp.npz")
    X, y = file["X"].astype(float), file["y"].astype(float)
    cells, which = np.unique(X, axis=0, return_inverse=True)
    test = (np.random.default_rng(0).random(len(cells)) < 0.2)[which.ravel()]
    return X[~test], y[~test], X[test], y[test]


def air(name):
    """Daily means of a pollutant in Beijing, by temperature, pressure and day."""
    file = np.load(folder("beijing_air") / f"{name}.npz")
    X, y, test = file["X"].astype(float), file["y"].astype(float), file["test_folds"][0]
    return X[~test], y[~test], X[test], y[test]


def product():
    file = np.load(folder("funbat_synthetic") / "simulation_r1.npz")
    return file["X_train"], file["y_train"], file["X_test"], file["y_test"]


def waves(seed, n=1500, noise=0.3, fitted=1000, digits=2):
    """Two wavy functions of each of three coordinates, and a random core; the errors are those without noise."""
    rng = np.random.default_rng(seed)
    X, functions = np.round(rng.uniform(size=(n, 3)), digits), []
    h = np.arange(1, 5)[:, None]
    for k in range(3):
        w, p = rng.normal(size=(4, 2)), rng.uniform(0, 6, size=(4, 2))
        parts = (w[i] * np.sin(2 * h[i] * X[:, k, None] + p[i]) for i in range(4))
        functions.append(sum(parts))
    clean = np.einsum("na,nb,nc,abc->n", *functions, rng.normal(size=(2, 2, 2)))
    y = clean + noise * clean.std() * rng.normal(size=n)
    return X[:fitted], y[:fitted], X[fitted:], y[fitted:], clean[fitted:]


def steps(n=1500):
    """Levels that jump at the borders of boxes."""
    rng = np.random.default_rng(0)
    X = np.round(rng.uniform(size=(n, 3)), 2)
    boxes = (
        (X[:, 0] > 0.6) * 1.0 + 2.0 * ((X[:, 1] > 0.3) & (X[:, 2] < 0.5)) - 1.5 * ((X[:, 0] < 0.3) & (X[:, 2] > 0.7))
    )
    return _halves(X, boxes + 0.1 * rng.normal(size=n), boxes)


def diagonal_waves(n=600):
    """A wave along the diagonal of two coordinates of short length: many products of functions."""
    rng = np.random.default_rng(0)
    X = np.round(rng.uniform(size=(n, 2)), 2)
    clean = np.sin(25 * np.hypot(X[:, 0] - 0.3, X[:, 1] - 0.2))
    return _halves(X, clean + 0.1 * rng.normal(size=n), clean)


def friedman():
    """Five columns matter out of ten."""
    X, y = make_friedman1(1500, noise=1.0, random_state=0)
    return _halves(np.round(X, 2), y, make_friedman1(1500, noise=0.0, random_state=0)[1])


def diabetes():
    X, y = load_diabetes(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y))
    return _halves(X[order], y[order], y[order])


def _halves(X, y, clean):
    n = 2 * len(y) // 3
    return X[:n], y[:n], X[n:], y[n:], clean[n:]


DATA = {f.__name__: f for f in (temperatures, air, product, waves, steps, diagonal_waves, friedman, diabetes)}


# Measured functions: each runs in a fresh process


def fitted(data, args, params):
    """Ours: error, coverage, sweeps and the largest relative rise of the loss."""
    X, y, X_new, y_new, *clean = DATA[data](*args)
    model = ours(**params)  # torch is imported here
    start = now()
    quietly(model.fit, X, y)
    seconds = now() - start
    mean, std = model.predict(X_new, return_std=True)
    loss = np.asarray(model.loss_curve_)
    coverage = np.mean(np.abs(mean - y_new) < 1.6449 * std)
    return {
        "error": rms(mean - (clean[0] if clean else y_new)),
        "seconds": seconds,
        "coverage": coverage,
        "rise": max(0.0, (np.diff(loss) / np.abs(loss[1:])).max()),
        "remark": f"90 % intervals cover {coverage:.3f}; {model.n_iter_} sweeps",
    }


def latent_coverage(seed):
    """Share of the responses without noise in the intervals of 90 % of the function alone."""
    X, y, X_new, _, clean = waves(seed)
    model = quietly(ours(2, n_init=2, max_iter=30).fit, X, y)
    mean, std = model.predict(X_new, return_std="latent")
    return {"coverage": np.mean(np.abs(mean - clean) < 1.6449 * std)}


def peer(name, data, args, most=None):
    """A regressor of scikit-learn, fitted to some of the rows where its time grows with their cube."""
    X, y, X_new, y_new, *clean = DATA[data](*args)
    rows = np.random.default_rng(0).permutation(len(y))[:most]
    low, span = X.min(0), np.ptp(X, axis=0) + (np.ptp(X, axis=0) == 0)
    start = now()
    model = quietly(PEERS[name](X.shape[1]).fit, (X[rows] - low) / span, y[rows])
    seconds = now() - start
    guess = model.predict((X_new - low) / span)
    return {
        "error": rms(guess - (clean[0] if clean else y_new)),
        "seconds": seconds,
        "remark": f"{most} rows" if most and most < len(y) else "",
    }


def against_a_dense_process(kernel):
    """Largest differences of mean and latent standard deviation to GaussianProcessRegressor, 40 points, 43 queries."""
    rng = np.random.default_rng(0)
    x = np.sort(rng.uniform(size=40))[:, None]
    y = np.sin(8 * x[:, 0]) + 0.2 * rng.normal(size=40) + 3
    query = np.r_[np.linspace(-0.5, 1.5, 41), x[3, 0], x[0, 0] - 1e-3][:, None]
    model = ours(2, core="cp", kernel=kernel, tol=0, max_iter=150, optimize_hyperparameters=False)
    quietly(model.fit, x, y)
    alpha = model.noise_variance_ / model.scale_**2
    dense = GaussianProcessRegressor(ConstantKernel(2) * Matern(0.3, nu=NU[kernel]), optimizer=None, alpha=alpha)
    low, span = x.min(), np.ptp(x)
    dense.fit((x - low) / span, (y - model.intercept_) / model.scale_)
    want, wide = dense.predict((query - low) / span, return_std=True)
    mean, std = model.predict(query, return_std="latent")
    off = np.abs(mean - model.intercept_ - model.scale_ * want).max(), np.abs(std - model.scale_ * wide).max()
    return {"error": max(off)}


def many_rows(n, distinct=200):
    """Seconds of a sweep: three coordinates of so many distinct values, rank 3."""
    rng = np.random.default_rng(0)
    X = rng.integers(0, distinct, (n, 3)) / distinct
    y = np.sin(5 * X[:, 0]) * np.cos(4 * X[:, 1]) + X[:, 2] + 0.1 * rng.normal(size=n)
    model = ours(max_iter=1)
    start = now()
    quietly(model.fit, X, y)
    between = now()
    model = quietly(ours(max_iter=7, tol=0).fit, X, y)
    end = now()
    sweep = ((end - between) - (between - start)) / 6
    queries = now()
    model.predict(X[:100_000], return_std=True)
    new = 1e6 * (now() - queries) / min(n, 100_000)
    return {
        "seconds": end - between,
        "sweep": sweep,
        "remark": f"{sweep:.3g} s a sweep; {new:.3g} s for 1e6 predictions",
    }


def boosting_rows(n, distinct=200):
    rng = np.random.default_rng(0)
    X = rng.integers(0, distinct, (n, 3)) / distinct
    y = np.sin(5 * X[:, 0]) * np.cos(4 * X[:, 1]) + X[:, 2] + 0.1 * rng.normal(size=n)
    start = now()
    HistGradientBoostingRegressor(max_iter=300, random_state=0).fit(X, y)
    return {"seconds": now() - start, "remark": "300 trees"}


def many_coordinates(T):
    """Seconds of a sweep over one coordinate of T distinct values, and one of ten; rank 2."""
    rng = np.random.default_rng(0)
    X = np.c_[rng.permutation(T), rng.integers(0, 10, T)].astype(float)
    y = np.sin(X[:, 0] / T * 9) * (1 + X[:, 1]) + 0.1 * rng.normal(size=T)
    model = ours(2, max_iter=7, tol=0)
    start = now()
    quietly(model.fit, X, y)
    seconds = now() - start
    return {"seconds": seconds, "remark": f"{seconds / 7:.3g} s a sweep, two of seven with search of lengths"}


# Cases


def one_coordinate(bench):
    """one coordinate: mean and standard deviation against a dense process with the same kernel and noise."""
    for kernel in NU:
        found = bench.measure(f"ours, {kernel}", against_a_dense_process, kernel)
        bench.claim(f"{kernel}: largest difference", found.error, at_most=1e-8)


def product_surface(bench):
    """noiseless product: 675 rows of a product of two waves; a dense process is the better choice here."""
    if missing("funbat_synthetic"):
        return bench.skip(missing("funbat_synthetic"))
    process_, boosting = (
        bench.measure(name, peer, name, "product", ())
        for name in ("GaussianProcess", "HistGradientBoosting, 100 trees")
    )
    for name, params in (("cp, rank 1", {"rank": 1, "core": "cp"}), ("tucker, rank 2", {"rank": 2})):
        found = bench.measure(f"ours, {name}", fitted, "product", (), params)
        bench.claim(f"{name}: error", found.error, at_most=0.004)
        bench.claim(f"{name}: coverage of 90 % intervals", found.coverage, at_least=0.85, at_most=0.99)
        bench.claim(f"{name}: against boosting", found.error, boosting.error, at_most=0.5)
        bench.claim(f"{name}: largest rise of the loss, relative", found.rise, at_most=1e-6)
    bench.note("a dense process is better", f"by a factor {found.error / process_.error:.1f}")


def us_temperatures(bench):
    """US temperatures: 44,755 rows in 15,742 cells; the standard deviation within a cell is 0.79."""
    if missing("us_temp"):
        return bench.skip(missing("us_temp"))
    names = ("HistGradientBoosting", "ExtraTrees", "nearest neighbour")
    peers = {name: bench.measure(name, peer, name, "temperatures", ()) for name in names}
    peers["GaussianProcess"] = bench.measure("GaussianProcess", peer, "GaussianProcess", "temperatures", (), 500)
    settings = {"kernel": "matern12", "fit_intercept": False}
    two = bench.measure("ours, rank 2, 20 sweeps", fitted, "temperatures", (), {"rank": 2, "max_iter": 20, **settings})
    three = bench.measure("ours, rank 3", fitted, "temperatures", (), {"rank": 3, **settings})
    bench.measure("ours, rank 3, all else by default", fitted, "temperatures", (), {})
    boosting = peers["HistGradientBoosting"]
    bench.claim("rank 2: error", two.error, at_most=1.32)
    bench.claim("rank 2: below boosting by", boosting.error - two.error, at_least=0.05)
    bench.claim("rank 2: coverage of 90 % intervals", two.coverage, at_least=0.88, at_most=0.97)
    bench.claim("rank 3: against the best peer", three.error, min(p.error for p in peers.values()), at_most=0.85)
    bench.claim("rank 3: coverage of 90 % intervals", three.coverage, at_least=0.88, at_most=0.97)
    bench.claim("rank 2: seconds against boosting", two.seconds, boosting.seconds, at_most=2)


def beijing_air(bench):
    """Beijing air: 13,572 rows; whole days are not held out, so this is interpolation."""
    if missing("beijing_air"):
        return bench.skip(missing("beijing_air"))
    needs = {"pm25": (0.33, 0.6), "so2": (0.38, 0.75), "pm10": (0.4, 0.75)}
    for name, (need, share) in needs.items():
        found = {
            p: bench.measure(f"{name}: {p}", peer, p, "air", (name,))
            for p in ("HistGradientBoosting, 100 trees", "ExtraTrees")
        }
        boosting = found["HistGradientBoosting, 100 trees"].error
        settings = {"rank": 2, "core": "tucker", "kernel": "matern12", "length_scale": 0.1, "max_iter": 10}
        model = bench.measure(f"{name}: ours, rank 2, 10 sweeps", fitted, "air", (name,), settings)
        bench.claim(f"{name}: error", model.error, at_most=need)
        bench.claim(f"{name}: against boosting", model.error, boosting, at_most=share)
        bench.claim(f"{name}: coverage of 90 % intervals", model.coverage, at_least=0.85, at_most=0.95)
        bench.claim(f"{name}: largest rise of the loss, relative", model.rise, at_most=1e-6)


def of_the_models_kind(bench):
    """data of the model's kind: 1,000 rows, noise of 0.3 of the standard deviation, three seeds."""
    seeds = (40, 41, 42)
    models = [
        bench.measure(f"ours, {s}", fitted, "waves", (s,), {"rank": 2, "n_init": 2, "max_iter": 30}) for s in seeds
    ]
    boosted = [bench.measure(f"boosting, {s}", peer, "HistGradientBoosting, 100 trees", "waves", (s,)) for s in seeds]
    dense = [bench.measure(f"process, {s}", peer, "GaussianProcess", "waves", (s,), 300) for s in seeds]
    bench.claim(
        "coverage of 90 % intervals, mean", float(np.mean([m.coverage for m in models])), at_least=0.86, at_most=0.94
    )
    for name, others, need in (("boosting", boosted, 0.4), ("a process on 300 rows", dense, 1.0)):
        ratio = float(np.median([m.error / o.error for m, o in zip(models, others)]))
        bench.claim(f"median error over that of {name}", ratio, at_most=need)


def latent_intervals(bench):
    """latent intervals: those of 90 % of the function without noise; the same three tables of waves."""
    found = [bench.measure(f"ours, {seed}", latent_coverage, seed).coverage for seed in (40, 41, 42)]
    bench.note("share of the function in them", ", ".join(f"{share:.3f}" for share in found))


def where_others_win(bench):
    """not of the model's kind: jumps, a wave of many products, and two tables of ten columns; nothing is claimed."""
    for data in ("steps", "diagonal_waves", "friedman", "diabetes"):
        found = {"ours": bench.measure(f"{data}: ours, 30 sweeps", fitted, data, (), {"max_iter": 30}).error}
        for name in ("HistGradientBoosting, 100 trees", "GaussianProcess", "ridge"):
            found[name] = bench.measure(
                f"{data}: {name}", peer, name, data, (), 300 if name == "GaussianProcess" else None
            ).error
        best = min(found, key=found.get)
        bench.note(f"{data}: best", f"{best}; ours has {found['ours'] / found[best]:.2f} of its error")


def scale_in_rows(bench):
    """rows: three coordinates of 200 values, rank 3, seven sweeps and one more."""
    sizes = (10_000, 100_000, 1_000_000)
    found = [bench.measure(f"ours, {n:,}", many_rows, n) for n in sizes]
    for n in sizes[:2]:
        bench.measure(f"boosting, {n:,}", boosting_rows, n)
    slope = float(np.log10(found[2].sweep / found[1].sweep))
    bench.claim("slope of a sweep over the last tenfold of rows", slope, at_most=1.15)
    bench.claim("memory for 1,000,000 rows, MB more than for 10,000", found[2].peak - found[0].peak, at_most=600)


def scale_in_coordinates(bench):
    """distinct coordinates: as many rows as values of the first coordinate."""
    sizes = (1_000, 10_000, 100_000)
    found = [bench.measure(f"ours, {T:,}", many_coordinates, T) for T in sizes]
    slope = float(np.log10(found[2].seconds / found[1].seconds))
    bench.claim("slope over the last tenfold of values", slope, at_most=1.15)
    bench.claim("memory for 100,000 values, MB more than for 1,000", found[2].peak - found[0].peak, at_most=1500)


CASES = [
    one_coordinate,
    product_surface,
    us_temperatures,
    beijing_air,
    of_the_models_kind,
    latent_intervals,
    where_others_win,
    scale_in_rows,
    scale_in_coordinates,
]
