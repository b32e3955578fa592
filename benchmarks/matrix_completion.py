"""Filling tables and predicting ratings: `MatrixCompletionImputer` and `MatrixFactorizationRegressor`.

Errors are relative (Frobenius norm over the hidden cells) for generated matrices of exact rank, standardised root mean
squares (each column divided by its standard deviation) for tables, and plain root mean squares for ratings. Every
method sees the same cells and runs with the same number of threads. The peer `implicit` fits implicit feedback, another
objective, so only its time is compared. MovieLens-100k is read from the folder that `SKLOWRANK_DATA` names.
"""

import os
import time
import warnings
from pathlib import Path

import numpy as np
import scipy.sparse as sp
from scipy.stats import t as student
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_wine
from sklearn.exceptions import ConvergenceWarning
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer

from benchmarks.harness import clock

TITLE = "Matrix completion"
TABLES = {  # loader, number of components, need (ours / IterativeImputer), rounds of IterativeImputer
    "breast_cancer": (load_breast_cancer, 15, 0.97, 10),
    "wine": (load_wine, 8, 0.92, 10),
    "diabetes": (load_diabetes, 9, 1.02, 10),
    "digits": (load_digits, 30, 0.97, 4),
}
SMALL = (1000, 800, 5, 0.1, 0.1, 3)
MOVIES = (6040, 3706, 1_000_000)


# Data


def low_rank(m, n, rank, share, noise, condition, seed=0):
    """A matrix of given rank with entries of mean square one, its noisy observed cells (NaN elsewhere), the holes."""
    rng = np.random.RandomState(seed)
    left = np.linalg.qr(rng.randn(m, rank))[0]
    right = np.linalg.qr(rng.randn(n, rank))[0]
    truth = left * np.geomspace(1, 1 / condition, rank) @ right.T
    truth *= np.sqrt(truth.size) / np.linalg.norm(truth)
    seen = rng.rand(m, n) < share
    table = np.full((m, n), np.nan)
    table[seen] = truth[seen] + noise * rng.randn(seen.sum())
    return truth, table, ~seen


def real_table(name, seed):
    """A bundled table and the same with 30 % of its cells hidden; digits without columns zero in over 95 % of rows."""
    X = TABLES[name][0]().data
    if name == "digits":
        X = X[:, (X > 0).mean(0) > 0.05]
    hole = np.random.RandomState(seed).rand(*X.shape) < 0.3
    return X, np.where(hole, np.nan, X), hole


def images(name, seed):
    """Images of 32 x 32 pixels, averaged to 8 x 8, as a table of 64 columns; 30 % of its cells hidden."""
    folder = Path(os.environ["SKLOWRANK_DATA"]) / name
    X = np.load(next(folder.glob("*.npz")))["X"].reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64)
    hole = np.random.RandomState(seed).rand(*X.shape) < 0.3
    return X, np.where(hole, np.nan, X), hole


def generated_table(rank=8, noise=0.5):
    """A table of 20,000 x 100: signal of variance one, noise, and 30 % holes."""
    rng = np.random.RandomState(0)
    signal = rng.randn(20_000, rank) @ rng.randn(rank, 100) / np.sqrt(rank)
    X = signal + noise * rng.randn(*signal.shape)
    hole = rng.rand(*X.shape) < 0.3
    return signal, X, np.where(hole, np.nan, X), hole


def long_table(n_samples=50_000, n_features=30, rank=5):
    """A table of 50,000 x 30: rank 5, noise of half its standard deviation, and 30 % holes."""
    rng = np.random.RandomState(0)
    X = rng.randn(n_samples, rank) @ rng.randn(rank, n_features)
    X += 0.5 * np.sqrt(rank) * rng.randn(*X.shape)
    hole = rng.rand(*X.shape) < 0.3
    return X, np.where(hole, np.nan, X), hole


def survey(n_samples=1500, n_features=24, n_traits=4):
    """Answers from 1 to 5 to 24 questions, each about one of four traits above all; 25 % are missing."""
    rng = np.random.RandomState(0)
    loadings = 0.3 * rng.randn(n_traits, n_features)
    loadings[np.arange(n_features) % n_traits, np.arange(n_features)] += 1
    X = 3 + 0.8 * rng.randn(n_samples, n_traits) @ loadings + 0.7 * rng.randn(n_samples, n_features)
    X = np.clip(np.round(X), 1, 5)
    hole = rng.rand(*X.shape) < 0.25
    return X, np.where(hole, np.nan, X), hole


def one_factor(seed, at_random, n_samples=1000, n_features=8):
    """Rows of one factor with equal loadings; column 1 has holes at random, or more often where column 0 is large."""
    rng = np.random.default_rng(seed)
    X = np.sqrt(0.5) * (rng.normal(size=(n_samples, 1)) + rng.normal(size=(n_samples, n_features)))
    gone = rng.random(n_samples) < (1 / (1 + np.exp(1 - 2 * X[:, 0])) if at_random else 0.37)
    table = X.copy()
    table[gone, 1] = np.nan
    return X, table, gone


def ratings(m, n, cells, rank=8):
    """Pairs with log-normal popularity of rows and columns, values of given rank with noise, and 200,000 test pairs."""
    rng = np.random.RandomState(0)
    popularity = [rng.lognormal(0, sigma, size) for sigma, size in ((1.2, m), (1.5, n))]
    draw = [np.cumsum(p / p.sum()) for p in popularity]
    key = np.empty(0, np.int64)
    while len(key) < cells:
        rows, cols = (np.searchsorted(c[:-1], rng.rand(cells // 2)) for c in draw)
        key = np.union1d(key, rows * n + cols)
    pairs = np.column_stack(divmod(rng.permutation(key)[:cells], n))
    left, right = rng.randn(m, rank) / np.sqrt(rank), rng.randn(n, rank)
    y = np.empty(cells, np.float32)
    for part in np.array_split(np.arange(cells), 1 + cells // 1_000_000):
        y[part] = np.einsum("ij,ij->i", left[pairs[part, 0]], right[pairs[part, 1]]) + 0.5 * rng.randn(len(part))
    test = np.column_stack([rng.choice(np.unique(pairs[:, i]), 200_000) for i in (0, 1)])
    return pairs, y, test, np.einsum("ij,ij->i", left[test[:, 0]], right[test[:, 1]])


def movielens():
    """MovieLens-100k: the u1 split as (pairs, ratings) twice."""
    folder = Path(os.environ["SKLOWRANK_DATA"]) / "movielens_100k"
    everything, test = (np.loadtxt(folder / name, dtype=int) for name in ("u.data", "u1.test"))
    hidden = set(map(tuple, test[:, :2]))
    train = everything[[tuple(pair) not in hidden for pair in everything[:, :2]]]
    return train[:, :2], train[:, 2].astype(np.float32), test[:, :2], test[:, 2]


# Measured functions: each runs in a fresh process


def imputer(n_components, **settings):
    from sklowrank.impute import MatrixCompletionImputer

    settings.setdefault("device", os.environ["SKLOWRANK_BENCH_DEVICE"])
    return MatrixCompletionImputer(n_components, random_state=0, **settings)


def regressor(n_components, **settings):
    from sklowrank.recommend import MatrixFactorizationRegressor

    settings.setdefault("device", os.environ["SKLOWRANK_BENCH_DEVICE"])
    return MatrixFactorizationRegressor(n_components, random_state=0, **settings)


def als(n_components, sweeps, **settings):
    """Plain alternating least squares for a set number of sweeps, as the peers run it."""
    settings = {"alpha": 3.0, "cg_steps": 3, **settings}
    return regressor(
        n_components,
        inference="map",
        fit_intercept=False,
        clip=None,
        init="random",
        max_iter=sweeps,
        tol=0,
        **settings,
    )


def make_imputer(method, n_components, rounds):
    makers = {
        "MatrixCompletionImputer": lambda: imputer(n_components),
        "IterativeImputer": lambda: IterativeImputer(random_state=0, max_iter=rounds),
        "KNNImputer": KNNImputer,
        "SimpleImputer": SimpleImputer,
    }
    return makers[method.split(",")[0]]()


def relative(fill, truth, hole):
    return np.linalg.norm((fill - truth)[hole]) / np.linalg.norm(truth[hole])


def standardised(fill, X, hole):
    scale = X.std(0)
    return np.sqrt(np.mean(((fill - X) / np.where(scale > 0, scale, 1))[hole] ** 2))


def rms(residual):
    return float(np.sqrt(np.mean(np.square(residual))))


def quietly(function):
    """Run with a set number of rounds: that it does not converge is the point, not news."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        return function()


def fill_low_rank(problem, n_components, settings):
    truth, table, hole = low_rank(*problem)
    model = imputer(n_components, **settings)
    fill, seconds = clock(lambda: model.fit_transform(table))
    figures = {
        "error": relative(fill, truth, hole),
        "seconds": seconds,
        "sweeps": model.n_iter_,
        "noise": model.noise_variance_,
        "remark": f"{model.n_iter_} sweeps",
    }
    if settings.get("inference") != "map":
        figures["alive"] = int(model.n_components_effective_)
        figures["remark"] += f", {figures['alive']} components in use, noise variance {figures['noise']:.3g}"
    return figures


def fill_real_table(name, method, n_components, rounds):
    """Mean error and seconds over two draws of the holes."""
    runs = []
    for seed in (0, 1):
        X, table, hole = real_table(name, seed) if name in TABLES else images(name, seed)
        model = make_imputer(method, n_components, rounds)
        fill, seconds = clock(lambda model=model, table=table: quietly(lambda: model.fit_transform(table)))
        runs.append((standardised(fill, X, hole), seconds))
    error, seconds = np.mean(runs, 0)
    remark = f"at most {rounds} rounds" if method.startswith("IterativeImputer") else ""
    return {"error": error, "seconds": seconds, "remark": remark}


def fill_generated_table(method, n_components):
    signal, X, table, hole = generated_table()
    model = make_imputer(method, n_components, 10)
    fill, seconds = clock(lambda: quietly(lambda: model.fit_transform(table)))
    clean = rms((fill - signal)[hole])
    remark = f"{clean:.4f} to the noise-free table, {getattr(model, 'n_iter_', 1)} rounds or sweeps"
    return {"error": standardised(fill, X, hole), "seconds": seconds, "clean": clean, "remark": remark}


def cover(name, n_components):
    inside, hidden = 0, 0
    for seed in range(5):
        X, table, hole = real_table(name, seed)
        model = imputer(n_components).fit(table)
        far = np.abs(model.transform(table) - X)[hole] > 1.6449 * model.transform_std(table)[hole]
        inside, hidden = inside + (~far).sum(), hidden + far.size
    return {"cover": inside / hidden, "remark": f"{inside} of {hidden} hidden cells, five draws of the holes"}


def fill_common_table(name, method):
    X, table, hole = {"long": long_table, "survey": survey}[name]()
    model = make_imputer(method, "auto", 10)
    fill, seconds = clock(lambda: quietly(lambda: model.fit_transform(table)))
    return {"error": standardised(fill, X, hole), "seconds": seconds, "remark": f"{model.n_iter_} rounds or sweeps"}


def apart(name, n_components, kind):
    """Largest and root mean square difference of the fills of a table, in standard deviations of the columns."""
    X, table, hole = real_table(name, 0)
    if kind == "float32":
        fills = [imputer(n_components).fit_transform(table.astype(dtype)) for dtype in (np.float64, np.float32)]
    else:
        fills = [imputer(n_components).set_params(random_state=seed).fit_transform(table) for seed in range(5)]
    scale = np.where(X.std(0) > 0, X.std(0), 1)
    gaps = [((a - b) / scale)[hole] for i, a in enumerate(fills) for b in fills[:i]]
    largest = float(max(np.abs(gap).max() for gap in gaps))
    errors = ", ".join(f"{standardised(fill, X, hole):.4f}" for fill in fills)
    return {"largest": largest, "remark": f"largest {largest:.2g}, rms {max(map(rms, gaps)):.2g}; errors {errors}"}


def fill_exactly_low_rank(rank):
    """Error on new rows of an exactly low-rank table, half of it hidden, in standard deviations; components in use."""
    rng = np.random.RandomState(0)
    full = rng.rand(70, rank) @ rng.rand(rank, 70)
    hole = rng.rand(70, 70) < 0.5
    table = np.where(hole, np.nan, full)
    model = imputer("auto").fit(table[:35])
    error = rms((model.transform(table[35:]) - full[35:])[hole[35:]]) / full.std()
    alive = int(model.n_components_effective_)
    return {"error": error, "alive": alive, "remark": f"{alive} components in use"}


def bias_of_fills(method):
    """Mean of fill minus truth where a column's holes depend on another column, in standard deviations."""
    biases = []
    for seed in range(5):
        X, table, gone = one_factor(seed, at_random=True)
        fill = quietly(lambda table=table: make_imputer(method, "auto", 10).fit_transform(table))
        biases.append((fill - X)[gone, 1].mean())
    return {"bias": float(np.mean(biases)), "remark": f"mean {np.mean(biases):.3f} over five tables"}


def cover_by_multiple_imputation(at_random, n_tables=100, n_draws=10):
    """How often the pooled 95 % interval of a column's mean, by Rubin's rules, has the true mean in it."""
    inside = 0
    for seed in range(n_tables):
        _, table, _ = one_factor(1000 + seed, at_random)
        draws = imputer("auto").fit(table).sample(table, n_draws, random_state=seed)[:, :, 1]
        means = draws.mean(1)
        within, between = draws.var(1, ddof=1).mean() / len(table), (1 + 1 / n_draws) * means.var(ddof=1)
        freedom = (n_draws - 1) * (1 + within / between) ** 2
        inside += abs(means.mean()) <= student.ppf(0.975, freedom) * np.sqrt(within + between)
    return {"cover": inside / n_tables, "remark": f"{inside} of {n_tables} tables, {n_draws} draws of each"}


def cover_few_values(n_values, n_tables=40):
    """Share of a column's hidden cells inside 90 % intervals, where few of its 150 cells are observed."""
    inside = []
    for seed in range(n_tables):
        rng = np.random.default_rng(seed)
        X = rng.normal(size=(150, 2)) @ rng.normal(size=(2, 6)) + 0.3 * rng.normal(size=(150, 6))
        table = X.copy()
        table[rng.permutation(150)[n_values:], 3] = np.nan
        model = imputer("auto").fit(table)
        near = np.abs(model.transform(table) - X) <= 1.6449 * model.transform_std(table)
        inside.append(near[np.isnan(table)].mean())
    return {"cover": float(np.mean(inside)), "remark": f"{n_tables} tables"}


def u1_ours(n_components, sweeps):
    pairs, y, test, true = movielens()
    model, seconds = clock(lambda: quietly(lambda: regressor(n_components, max_iter=sweeps).fit(pairs, y)))
    return {
        "error": rms(np.clip(model.predict(test), 1, 5) - true),
        "seconds": seconds,
        "sweeps": model.n_iter_,
        "remark": f"{model.n_iter_} sweeps",
    }


def u1_surprise(name):
    import pandas as pd
    import surprise

    pairs, y, test, true = movielens()
    table = pd.DataFrame({"row": pairs[:, 0], "col": pairs[:, 1], "y": y})
    trainset = surprise.Dataset.load_from_df(table, surprise.Reader(rating_scale=(1, 5))).build_full_trainset()
    settings = {"verbose": False} if name == "KNNBaseline" else {"random_state": 0}
    model, seconds = clock(lambda: getattr(surprise, name)(**settings).fit(trainset))
    return {"error": rms([model.predict(*pair).est for pair in test] - true), "seconds": seconds}


def u1_cmfrec(n_components, threads):
    import cmfrec
    import pandas as pd

    pairs, y, test, true = movielens()
    table = pd.DataFrame({"UserId": pairs[:, 0], "ItemId": pairs[:, 1], "Rating": y})
    model, seconds = clock(lambda: cmfrec.CMF(k=n_components, lambda_=10, nthreads=threads, verbose=False).fit(table))
    guess = model.predict(test[:, 0], test[:, 1])
    return {"error": rms(np.clip(guess, 1, 5) - true), "seconds": seconds}


class Stamps:
    """A scikit-learn callback that notes when each sweep ended."""

    def __init__(self):
        self.times = []

    def setup(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        if context.parent is not None:
            self.times.append(time.perf_counter())

    def teardown(self, estimator, context):
        pass


def best_sweep(model, pairs, y):
    """Seconds of the fastest of the model's sweeps."""
    stamps = Stamps()
    quietly(lambda: model.set_callbacks(stamps).fit(pairs, y))
    return min(np.diff(stamps.times))


def als_ours(n_components, sweeps, solver):
    pairs, y, test, true = ratings(*MOVIES)
    model, seconds = clock(lambda: quietly(lambda: als(n_components, sweeps, solver=solver).fit(pairs, y)))
    sweep = best_sweep(als(n_components, sweeps, solver=solver), pairs, y)
    error = rms(model.predict(test) - true) / rms(true)
    return {"error": error, "seconds": seconds, "remark": f"from pairs of ids; fastest sweep {sweep:.3f} s"}


def als_implicit(n_components, sweeps, threads):
    from implicit.cpu.als import AlternatingLeastSquares

    pairs, y, *_ = ratings(*MOVIES)
    cells = sp.csr_matrix((y, pairs.T))
    settings = {"iterations": sweeps, "regularization": 3.0, "num_threads": threads, "random_state": 0}
    _, seconds = clock(lambda: AlternatingLeastSquares(n_components, **settings).fit(cells, show_progress=False))
    each = []
    model = AlternatingLeastSquares(n_components, **settings)
    model.fit(cells, show_progress=False, callback=lambda iteration, elapsed, loss: each.append(elapsed))
    return {"seconds": seconds, "remark": f"from a finished CSR matrix; fastest sweep {min(each):.3f} s"}


def sweep_at_64(solver):
    pairs, y, test, true = ratings(*MOVIES)
    model = als(64, 8, solver=solver)
    seconds = best_sweep(model, pairs, y)
    return {"error": rms(model.predict(test) - true) / rms(true), "seconds": seconds, "remark": "one of 8 sweeps"}


def sweep_of(cells, settings):
    """One sweep over ratings whose rows grow with the number of cells and whose columns with its square root."""
    m, n = int(6040 * cells / 1e6), int(3706 * np.sqrt(cells / 1e6))
    pairs, y, *_ = ratings(m, n, cells)
    seconds = best_sweep(regressor(16, max_iter=10, tol=0, **settings), pairs, y)
    return {"seconds": seconds, "remark": f"one of 10 sweeps, {m} x {n}"}


# Cases


def exact_recovery(bench):
    """Exact recovery: 1000 x 800, rank 5, 10 % of the cells, no noise"""
    problem = (1000, 800, 5, 0.1, 0, 10)
    plain = {"inference": "map", "alpha": 1e-6, "fit_intercept": False, "scale": False, "max_iter": 100, "tol": 1e-6}
    for solver in ("cholesky", "cg"):
        ours = bench.measure(f"map, {solver}", fill_low_rank, problem, 5, {**plain, "solver": solver})
        bench.claim(f"relative error, map, {solver}", ours.error, at_most=1e-6)
    for k in (5, 10):
        ours = bench.measure(f"variational, {k} components", fill_low_rank, problem, k, {"scale": False})
        bench.claim(f"relative error, variational, {k} components", ours.error, at_most=1e-4)


def noise_and_surplus(bench):
    """Noise: a matrix of rank 5 or 10, noise 0.1 or 0.2 of the signal, fitted with its rank or twice that"""
    settings = {"scale": False, "fit_intercept": False, "tol": 1e-5}
    for k, need in ((5, 0.038), (10, 0.043)):
        ours = bench.measure(f"1000 x 800, variational, {k} components", fill_low_rank, SMALL, k, settings)
        bench.claim(f"relative error, rank 5, {k} components", ours.error, at_most=need)
        bench.claim(f"noise variance over the true one, {k} components", ours.noise / 0.01, at_least=0.94, at_most=1.06)
        bench.claim(f"components in use, {k} components", ours.alive, at_least=5, at_most=7)
    plain = {**settings, "inference": "map", "alpha": 1e-2, "tol": 1e-4}
    bench.measure("1000 x 800, map, 10 components", fill_low_rank, SMALL, 10, plain)
    large = (2000, 1500, 10, 0.08, 0.2, 3)
    ours = bench.measure("2000 x 1500, variational, 10 components", fill_low_rank, large, 10, settings)
    bench.claim("relative error, rank 10, 10 components", ours.error, at_most=0.086)


def real_tables(bench):
    """Real tables: bundled with scikit-learn, 30 % of the cells hidden, mean of two draws"""
    methods = ("MatrixCompletionImputer", "IterativeImputer", "KNNImputer", "SimpleImputer")
    for name, (_, k, need, rounds) in TABLES.items():
        label = {method: f"{name}, {method}" for method in methods}
        label["MatrixCompletionImputer"] += f", {k} components"
        ours, iterative, *_ = (bench.measure(label[m], fill_real_table, name, m, k, rounds) for m in methods)
        bench.claim(f"{name}: error against IterativeImputer", ours.error, iterative.error, at_most=need)
        if name in ("breast_cancer", "wine"):
            times = 1 if name == "breast_cancer" else 3
            bench.claim(f"{name}: seconds against IterativeImputer", ours.seconds, iterative.seconds, at_least=times)


def other_tables(bench):
    """Other tables: images of objects and faces, 8 x 8 pixels, that no choice in the library was made on"""
    if not os.environ.get("SKLOWRANK_DATA"):
        return bench.skip("set SKLOWRANK_DATA to a folder with coil20 and yaleb32 in it")
    for name in ("coil20", "yaleb32"):
        for method in ("MatrixCompletionImputer", "IterativeImputer", "KNNImputer", "SimpleImputer"):
            bench.measure(f"{name}, {method}", fill_real_table, name, method, "auto", 4)


def large_table(bench):
    """Large table: 20,000 x 100, generated, rank 8, noise 0.5, 30 % of the cells hidden"""
    iterative = bench.measure("IterativeImputer", fill_generated_table, "IterativeImputer", None)
    bench.measure("SimpleImputer", fill_generated_table, "SimpleImputer", None)
    for k, times in ((8, 20), ("auto", 3)):
        ours = bench.measure(f"MatrixCompletionImputer, {k}", fill_generated_table, "MatrixCompletionImputer", k)
        bench.claim(f"error on hidden cells, {k} components", ours.error, iterative.error, at_most=1.01)
        bench.claim(f"error to the noise-free table, {k} components", ours.clean, iterative.clean, at_most=1.01)
        bench.claim(f"seconds, {k} components", ours.seconds, iterative.seconds, at_least=times)


def intervals(bench):
    """Intervals: 90 % intervals from transform_std on real tables with 30 % of the cells hidden"""
    for name in ("breast_cancer", "wine"):
        k = TABLES[name][1]
        ours = bench.measure(f"{name}, MatrixCompletionImputer, {k} components", cover, name, k)
        bench.claim(f"{name}: share of hidden cells inside", ours.cover, at_least=0.85, at_most=0.95)


def common_tables(bench):
    """Common tables: 50,000 x 30 of rank 5 with noise, and 1,500 answers to 24 questions; defaults of both"""
    for name in ("long", "survey"):
        methods = ("MatrixCompletionImputer", "IterativeImputer")
        ours, iterative = (bench.measure(f"{name}, {m}", fill_common_table, name, m) for m in methods)
        bench.claim(f"{name}: error against IterativeImputer", ours.error, iterative.error, at_most=1)
        bench.claim(f"{name}: seconds against IterativeImputer", ours.seconds, iterative.seconds, at_least=1)


def exactly_low_rank(bench):
    """Exactly low rank: 35 x 70, half of the cells hidden, number of components by default, 35 new rows"""
    for rank in (3, 5):
        ours = bench.measure(f"rank {rank}", fill_exactly_low_rank, rank)
        bench.claim(f"rank {rank}: error on new rows in standard deviations", ours.error, at_most=1e-3)
        bench.claim(f"rank {rank}: components in use", ours.alive, at_least=rank, at_most=rank)


def precision_and_seeds(bench):
    """Precision and seeds: fills of float32 against float64 data, and of five seeds, in standard deviations"""
    for name, (_, k, *_) in TABLES.items():
        for n_components in (k, "auto"):
            gap = bench.measure(f"{name}, {n_components}, float32", apart, name, n_components, "float32").largest
            bench.claim(f"{name}, {n_components} components: float32 against float64", gap, at_most=1e-3)
        bench.measure(f"{name}, auto, five seeds", apart, name, "auto", "seeds")


def missing_at_random(bench):
    """Missing at random: 1,000 x 8, one factor; column 1 misses values more often where column 0 is large"""
    ours = bench.measure("fills, MatrixCompletionImputer", bias_of_fills, "MatrixCompletionImputer")
    for method in ("IterativeImputer", "KNNImputer", "SimpleImputer"):
        bench.measure(f"fills, {method}", bias_of_fills, method)
    bench.claim("bias in standard deviations", abs(ours.bias), at_most=0.08)
    for kind, at_random in (("missing completely at random", False), ("missing at random", True)):
        ours = bench.measure(f"pooled intervals of the mean, {kind}", cover_by_multiple_imputation, at_random)
        bench.claim(f"95 % intervals, {kind}", ours.cover, at_least=0.90, at_most=0.98)


def few_values(bench):
    """Few values: 90 % intervals of cells of a column with two to five observed values, 150 x 6, rank 2"""
    for n_values in (2, 3, 4, 5):
        ours = bench.measure(f"{n_values} values", cover_few_values, n_values)
        bench.claim(f"{n_values} values: share of hidden cells inside", ours.cover, at_least=0.8)


def movielens_u1(bench):
    """MovieLens-100k: u1 split, predictions clipped to 1 to 5"""
    if not os.environ.get("SKLOWRANK_DATA"):
        return bench.skip("set SKLOWRANK_DATA to a folder with movielens_100k in it")
    name = "MatrixFactorizationRegressor"
    ours = {k: bench.measure(f"{name}, {k} components", u1_ours, k, 60) for k in (5, 10, 20)}[10]
    short = bench.measure(f"{name}, 10 components, at most 20 sweeps", u1_ours, 10, 20)
    bench.claim("RMSE, 10 components", ours.error, at_most=0.920)
    bench.claim("sweeps, 10 components", ours.sweeps, at_most=60)
    bench.claim("seconds, 10 components", ours.seconds, at_most=15)
    peers = {
        name: bench.measure(f"scikit-surprise {name}", u1_surprise, name, package="scikit-surprise")
        for name in ("SVD", "KNNBaseline", "SVDpp")
    }
    threads = int(os.environ["OMP_NUM_THREADS"])
    for k in (20, 40):
        peers[f"cmfrec {k}"] = bench.measure(f"cmfrec CMF, {k}", u1_cmfrec, k, threads, package="cmfrec")
    for name, peer in peers.items():
        bench.claim(f"RMSE against {name}", ours.error, peer.error, at_most=1)
    bench.claim("RMSE against SVDpp, 20 sweeps", short.error, peers["SVDpp"].error, at_most=1)
    bench.claim("seconds against SVDpp, 20 sweeps", short.seconds, peers["SVDpp"].seconds, at_least=20)


def alternating_least_squares(bench):
    """ALS: generated ratings, 6040 x 3706, a million cells, float32, 8 sweeps of plain alternating least squares"""
    threads = int(os.environ["OMP_NUM_THREADS"])
    for k, solver, need in ((8, "cholesky", 2), (32, "cg", None), (64, "cg", 1)):  # those of solver="auto"
        ours = bench.measure(f"map, {solver}, {k} components", als_ours, k, 8, solver)
        peer = bench.measure(f"implicit, {k} factors", als_implicit, k, 8, threads, package="implicit")
        if need:
            bench.claim(f"seconds against implicit, {k} factors", ours.seconds, peer.seconds, at_least=need)
    bench.measure("map, cg, 8 components", als_ours, 8, 8, "cg")


def conjugate_gradients(bench):
    """Conjugate gradients: the same ratings, 64 components, seconds of one sweep"""
    cg, exact = (bench.measure(f"map, {solver}, 64 components", sweep_at_64, solver) for solver in ("cg", "cholesky"))
    bench.claim("seconds of a sweep against cholesky", cg.seconds, exact.seconds, at_least=3)
    bench.claim("error against cholesky", cg.error, exact.error, at_least=0.99, at_most=1.01)


def growth(bench):
    """Growth: ratings with more and more observed cells, 16 components, float32"""
    for label, settings in (("variational", {}), ("map, cg", {"inference": "map", "solver": "cg"})):
        sizes = [100_000, 300_000, 1_000_000, 3_000_000, 10_000_000]
        runs = [bench.measure(f"{label}, {cells:,} cells", sweep_of, cells, settings) for cells in sizes]
        power = np.polyfit(np.log(sizes), np.log([run.seconds for run in runs]), 1)[0]
        bench.claim(f"seconds per sweep grow with the power, {label}", float(power), at_most=1.1)
        bench.claim(f"peak GB at 1e7 cells, {label}", runs[-1].peak / 1000, at_most=4)


CASES = [
    exact_recovery,
    noise_and_surplus,
    real_tables,
    other_tables,
    large_table,
    intervals,
    common_tables,
    exactly_low_rank,
    precision_and_seeds,
    missing_at_random,
    few_values,
    movielens_u1,
    alternating_least_squares,
    conjugate_gradients,
    growth,
]
