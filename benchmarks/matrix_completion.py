"""Filling tables and predicting ratings: `MatrixCompletionImputer` and `MatrixFactorizationRegressor`.

Errors are relative (Frobenius norm over the hidden cells) for generated matrices of exact rank, standardised root mean
squares (each column divided by its standard deviation) for tables, and plain root mean squares for ratings. Every
method sees the same cells and runs with the same number of threads. The peer `implicit` fits implicit feedback, another
objective, so only its time is compared. MovieLens-100k is read from the folder that `SKLOWRANK_DATA` names.
"""

import os

import numpy as np
from scipy.stats import t as student
from sklearn.experimental import enable_iterative_imputer  # noqa: F401

from benchmarks import data, peers
from benchmarks.harness import clock, quietly, rms, seconds_of_steps

TITLE = "Matrix completion"
TABLES = {  # number of components, need (ours / IterativeImputer), rounds of IterativeImputer
    "breast_cancer": (15, 0.97, 10),
    "wine": (8, 0.92, 10),
    "diabetes": (9, 1.02, 10),
    "digits": (30, 0.97, 4),
}
SMALL = (1000, 800, 5, 0.1, 0.1, 3)
MOVIES = (6040, 3706, 1_000_000)


# Data


def table_of(name, seed):
    """A table with 30 % of its cells missing: a bundled one, or images as 8 x 8 pixels."""
    if name not in TABLES:
        return data.with_gaps(data.images(name)[0].reshape(-1, 8, 4, 8, 4).mean((2, 4)).reshape(-1, 64), seed)
    X, _ = data.bundled(name)
    if name == "digits":
        X = X[:, (X > 0).mean(0) > 0.05]
    return data.with_gaps(X, seed)


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
    return imputer(n_components) if method.startswith("Matrix") else peers.imputer(method, rounds)


def relative(fill, truth, hole):
    return np.linalg.norm((fill - truth)[hole]) / np.linalg.norm(truth[hole])


def standardised(fill, X, hole):
    scale = X.std(0)
    return np.sqrt(np.mean(((fill - X) / np.where(scale > 0, scale, 1))[hole] ** 2))


def fill_low_rank(problem, n_components, settings):
    truth, table, hole = data.low_rank(*problem)
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
    """Mean error and seconds over two draws of the missing cells."""
    runs = []
    for seed in (0, 1):
        X, table, hole = table_of(name, seed)
        model = make_imputer(method, n_components, rounds)
        fill, seconds = clock(lambda model=model, table=table: quietly(lambda: model.fit_transform(table)))
        runs.append((standardised(fill, X, hole), seconds))
    error, seconds = np.mean(runs, 0)
    remark = f"at most {rounds} rounds" if method.startswith("IterativeImputer") else ""
    return {"error": error, "seconds": seconds, "remark": remark}


def fill_generated_table(method, n_components):
    signal, X, table, hole = data.generated_table()
    model = make_imputer(method, n_components, 10)
    fill, seconds = clock(lambda: quietly(lambda: model.fit_transform(table)))
    clean = rms((fill - signal)[hole])
    remark = f"{clean:.4f} to the noise-free table, {getattr(model, 'n_iter_', 1)} rounds or sweeps"
    return {"error": standardised(fill, X, hole), "seconds": seconds, "clean": clean, "remark": remark}


def cover(name, n_components):
    inside, hidden = 0, 0
    for seed in range(5):
        X, table, hole = table_of(name, seed)
        model = imputer(n_components).fit(table)
        far = np.abs(model.transform(table) - X)[hole] > 1.6449 * model.transform_std(table)[hole]
        inside, hidden = inside + (~far).sum(), hidden + far.size
    return {"cover": inside / hidden, "remark": f"{inside} of {hidden} hidden cells, five draws of the missing cells"}


def fill_common_table(name, method):
    X, table, hole = {"long": data.long_table, "survey": data.survey}[name]()
    model = make_imputer(method, "auto", 10)
    fill, seconds = clock(lambda: quietly(lambda: model.fit_transform(table)))
    return {"error": standardised(fill, X, hole), "seconds": seconds, "remark": f"{model.n_iter_} rounds or sweeps"}


def apart(name, n_components, kind):
    """Largest and root mean square difference of the fills of a table, in standard deviations of the columns."""
    X, table, hole = table_of(name, 0)
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
    """Mean of fill minus truth where a column's missing values depend on another column, in standard deviations."""
    biases = []
    for seed in range(5):
        X, table, gone = data.one_factor(seed, at_random=True)
        fill = quietly(lambda table=table: make_imputer(method, "auto", 10).fit_transform(table))
        biases.append((fill - X)[gone, 1].mean())
    return {"bias": float(np.mean(biases)), "remark": f"mean {np.mean(biases):.3f} over five tables"}


def cover_by_multiple_imputation(at_random, n_tables=100, n_draws=10):
    """How often the pooled 95 % interval of a column's mean, by Rubin's rules, has the true mean in it."""
    inside = 0
    for seed in range(n_tables):
        _, table, _ = data.one_factor(1000 + seed, at_random)
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
    pairs, y, test, true = data.movielens()
    model, seconds = clock(lambda: quietly(lambda: regressor(n_components, max_iter=sweeps).fit(pairs, y)))
    return {
        "error": rms(np.clip(model.predict(test), 1, 5) - true),
        "seconds": seconds,
        "sweeps": model.n_iter_,
        "remark": f"{model.n_iter_} sweeps",
    }


def u1_peer(name, *args):
    pairs, y, test, true = data.movielens()
    guess, seconds = getattr(peers, name)(args[0], pairs, y, test, *args[1:])
    return {"error": rms(guess - true), "seconds": seconds}


def als_ours(n_components, sweeps, solver):
    pairs, y, test, true = data.ratings(*MOVIES)
    model, seconds = clock(lambda: quietly(lambda: als(n_components, sweeps, solver=solver).fit(pairs, y)))
    sweep = min(seconds_of_steps(als(n_components, sweeps, solver=solver), pairs, y))
    error = rms(model.predict(test) - true) / rms(true)
    return {"error": error, "seconds": seconds, "remark": f"from pairs of ids; fastest sweep {sweep:.3f} s"}


def als_implicit(n_components, sweeps, threads):
    pairs, y, *_ = data.ratings(*MOVIES)
    seconds, fastest = peers.implicit_sweeps(n_components, sweeps, pairs, y, threads)
    return {"seconds": seconds, "remark": f"from a finished CSR matrix; fastest sweep {fastest:.3f} s"}


def sweep_at_64(solver):
    pairs, y, test, true = data.ratings(*MOVIES)
    model = als(64, 8, solver=solver)
    seconds = min(seconds_of_steps(model, pairs, y))
    return {"error": rms(model.predict(test) - true) / rms(true), "seconds": seconds, "remark": "one of 8 sweeps"}


def sweep_of(cells, settings):
    """One sweep over ratings whose rows grow with the number of cells and whose columns with its square root."""
    m, n = int(6040 * cells / 1e6), int(3706 * np.sqrt(cells / 1e6))
    pairs, y, *_ = data.ratings(m, n, cells)
    seconds = min(seconds_of_steps(regressor(16, max_iter=10, tol=0, **settings), pairs, y))
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
    for name, (k, need, rounds) in TABLES.items():
        label = {method: f"{name}, {method}" for method in methods}
        label["MatrixCompletionImputer"] += f", {k} components"
        ours, iterative, *_ = (bench.measure(label[m], fill_real_table, name, m, k, rounds) for m in methods)
        bench.claim(f"{name}: error against IterativeImputer", ours.error, iterative.error, at_most=need)
        if name in ("breast_cancer", "wine"):
            times = 1 if name == "breast_cancer" else 3
            bench.claim(f"{name}: seconds against IterativeImputer", ours.seconds, iterative.seconds, at_least=times)


def other_tables(bench):
    """Other tables: images of objects and faces, 8 x 8 pixels, that no choice in the library was made on"""
    if why := data.missing("coil20", "yaleb32"):
        return bench.skip(why)
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
        k = TABLES[name][0]
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
    for name, (k, *_) in TABLES.items():
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
    if why := data.missing("movielens_100k"):
        return bench.skip(why)
    name = "MatrixFactorizationRegressor"
    ours = {k: bench.measure(f"{name}, {k} components", u1_ours, k, 60) for k in (5, 10, 20)}[10]
    short = bench.measure(f"{name}, 10 components, at most 20 sweeps", u1_ours, 10, 20)
    bench.claim("RMSE, 10 components", ours.error, at_most=0.920)
    bench.claim("sweeps, 10 components", ours.sweeps, at_most=60)
    bench.claim("seconds, 10 components", ours.seconds, at_most=15)
    rivals = {
        name: bench.measure(f"scikit-surprise {name}", u1_peer, "surprise_ratings", name, package="scikit-surprise")
        for name in ("SVD", "KNNBaseline", "SVDpp")
    }
    threads = int(os.environ["OMP_NUM_THREADS"])
    for k in (20, 40):
        label = f"cmfrec {k}"
        rivals[label] = bench.measure(f"cmfrec CMF, {k}", u1_peer, "cmfrec_ratings", k, threads, package="cmfrec")
    for name, rival in rivals.items():
        bench.claim(f"RMSE against {name}", ours.error, rival.error, at_most=1)
    bench.claim("RMSE against SVDpp, 20 sweeps", short.error, rivals["SVDpp"].error, at_most=1)
    bench.claim("seconds against SVDpp, 20 sweeps", short.seconds, rivals["SVDpp"].seconds, at_least=20)


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
