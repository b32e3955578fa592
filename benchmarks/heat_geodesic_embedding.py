"""Heat geodesic embedding: distances along rolls and trees with noise, digits, solvers of the kernel, landmarks.

Seconds are processor time. The error of an embedding is one minus the mean rank correlation of its distances in the
plane with the true geodesics; for digits it is the share of wrong classes by five neighbours. Ours runs with its
defaults unless settings are named; PHATE's seconds contain its compilation.
"""

import os
import time
from itertools import islice

import numpy as np
from scipy.sparse import csc_matrix, eye_array
from scipy.sparse.csgraph import shortest_path
from scipy.sparse.linalg import splu
from scipy.spatial.distance import cdist
from scipy.stats import rankdata
from sklearn.decomposition import PCA
from sklearn.manifold import TSNE, Isomap, smacof
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier

from benchmarks.data import bundled
from benchmarks.harness import peak, quietly

TITLE = "Heat geodesic embedding"
SEEDS = (42, 0, 1, 2)

# Data with known geodesics


def roll(noise, n=800, seed=42):
    """A strip of width 5, rolled up, in ten dimensions with noise; the distances in the strip."""
    r = np.random.RandomState(seed)
    t, h = 1.5 * np.pi * (1 + 2 * r.rand(n)), 5 * r.rand(n)
    frame = np.linalg.qr(r.randn(10, 3))[0].T
    X = np.c_[t * np.cos(t), h, t * np.sin(t)] @ frame + noise * r.randn(n, 10)
    return X, of_strip(t, h)


def of_strip(t, h):
    flat = np.c_[0.5 * (t * np.sqrt(t * t + 1) + np.arcsinh(t)), h]
    return cdist(flat, flat) if len(flat) < 3000 else flat


def tree(noise, n=800, seed=42):
    """Eight straight branches in ten dimensions, each from a point of an earlier one; the lengths of paths."""
    r = np.random.RandomState(seed)
    per = n // 8
    clean, edges = [], []
    for branch in range(8):
        start = 0 if branch == 0 else r.randint(branch * per)
        direction = r.randn(10)
        steps = np.linspace(0, 30, per + 1)[1:, None] * direction / np.linalg.norm(direction)
        origin = clean[start] if clean else np.zeros(10)
        edges += [(start if i == 0 else branch * per + i - 1, branch * per + i) for i in range(per)]
        clean += list(origin + steps)
    clean = np.array(clean)
    W = np.zeros((n, n))
    for i, j in edges:
        W[i, j] = np.linalg.norm(clean[i] - clean[j])
    return clean + noise * r.randn(n, 10), shortest_path(W, directed=False)


DATA = {"roll": roll, "tree": tree}


def row_spearman(D, G):
    """The mean over rows of the rank correlation of distances."""
    return np.mean([np.corrcoef(rankdata(a), rankdata(b))[0, 1] for a, b in zip(D, G)])


# Methods


def ours(**settings):
    from sklowrank.manifold import HeatGeodesicEmbedding

    return HeatGeodesicEmbedding(random_state=0, device=os.environ["SKLOWRANK_BENCH_DEVICE"], **settings)


def embed(name, X, settings):
    """Return an embedding in two dimensions, and the distances that it was made from, where the method has them."""
    if name == "PHATE":
        import phate

        return phate.PHATE(knn=10, n_jobs=1, verbose=0, random_state=0).fit_transform(X), None
    if name in ("PCA", "t-SNE"):
        return (PCA(2) if name == "PCA" else TSNE(random_state=0, n_jobs=1)).fit_transform(X), None
    model = Isomap(n_neighbors=10) if name == "Isomap" else ours(**settings)
    E = model.fit_transform(X)
    return E, model.dist_matrix_


def warm_up(name):
    """Load what the first fit of a process loads."""
    if name == "ours":
        ours().fit(np.random.RandomState(0).randn(50, 3))


# Measured functions: each runs in a fresh process


def geodesics(name, data, noise, seeds, settings=None):
    """Mean rank correlations of distances, and of the distances in the plane, with the true geodesics."""
    warm_up(name)
    of_distances, of_plane, times = [], [], []
    for seed in seeds:
        X, G = DATA[data](noise, seed=seed)
        if name == "straight lines":
            of_distances.append(row_spearman(cdist(X, X), G))
            continue
        start = time.process_time()
        E, D = quietly(embed, name, X, settings or {})
        times.append(time.process_time() - start)
        of_plane.append(row_spearman(cdist(E, E), G))
        if D is not None:
            of_distances.append(row_spearman(D, G))
    found = {"distances": np.mean(of_distances)} if of_distances else {}
    if of_plane:
        found |= {"plane": np.mean(of_plane), "seconds": min(times)}
    remark = ", ".join(f"{key} {value:.3f}" for key, value in found.items() if key != "seconds")
    return found | {"error": 1 - found.get("plane", found.get("distances")), "remark": remark}


def neighbours(name, n=900):
    """Accuracy of five neighbours in the plane, for digits."""
    X, y = bundled("digits")
    rows = np.random.RandomState(0).permutation(len(X))[:n]
    warm_up(name)
    start = time.process_time()
    E, _ = quietly(embed, name, X[rows], {})
    seconds = time.process_time() - start
    right = cross_val_score(KNeighborsClassifier(5), E, y[rows], cv=5).mean()
    return {"error": 1 - right, "right": right, "seconds": seconds, "remark": f"accuracy {right:.3f}"}


def kernels(solver, n_steps):
    """Distances with a solver of the kernel: rank correlation, and the share of far distances that differ."""
    settings = {"laplacian": "normalized", "volume_weight": 0.0, "mds": "classic"}
    X, G = roll(0.1)
    D = ours(heat_solver=solver, n_steps=n_steps, **settings).fit(X).dist_matrix_
    far = D[np.triu_indices(len(D), 1)]
    far = far[far >= np.median(far)]
    distinct, right = len(np.unique(far.round(9))) / len(far), row_spearman(D, G)
    return {"error": 1 - right, "right": right, "distinct": distinct, "remark": f"{100 * distinct:.0f} % distinct"}


def euler_against_exact():
    """Relative differences of distances at t=50 over pairs whose kernel is above 1e-6."""
    X, _ = roll(0.5)
    euler, exact = (ours(t=50.0, heat_solver=s, mds="classic").fit(X) for s in ("euler", "exact"))
    W = euler.affinity_matrix_.toarray()
    e, V = np.linalg.eigh(np.diag(W.sum(1)) - W)
    sure = ((V * np.exp(-50 * e)) @ V.T > 1e-6) & ~np.eye(len(X), dtype=bool)
    off = np.abs(euler.dist_matrix_ - exact.dist_matrix_)[sure] / exact.dist_matrix_[sure]
    return {"error": np.median(off), "most": np.quantile(off, 0.99)}


def with_landmarks(n, n_landmarks):
    """Rank correlation over all rows, from those of 300."""
    X, G = roll(0.5, n)
    warm_up("ours")
    start = time.process_time()
    model = ours(n_landmarks=n_landmarks).fit(X)
    seconds = time.process_time() - start
    rows = np.random.RandomState(0).permutation(n)[:300]
    G = G[rows] if len(G[0]) == n else cdist(G[rows], G)
    right = row_spearman(cdist(model.embedding_[rows], model.embedding_), G)
    return {
        "error": 1 - right,
        "right": right,
        "seconds": seconds,
        "peak": peak(),
        "remark": f"correlation {right:.3f}",
    }


def placed(n, n_new):
    """Seconds in which new rows are placed, and their rank correlations with the rows of the fit."""
    X, G = roll(0.5, n + n_new)
    model = ours().fit(X[:n])
    start = time.process_time()
    new = model.transform(X[n:])
    seconds = time.process_time() - start
    right = row_spearman(cdist(new, model.embedding_), G[n:, :n])
    return {"error": 1 - right, "right": right, "seconds": seconds, "remark": f"correlation {right:.3f}"}


def columns_of_kernel(data, n=5000, count=100):
    """Seconds for columns of the kernel by the series, and by a sparse factor and solves; the largest difference."""
    import torch

    from sklowrank.manifold._heat_graph import GraphOptions, row_graph, scaled
    from sklowrank.manifold._heat_kernel import HeatOptions, heat_rows, identity_rows, laplacian_of

    X = roll(0.5, n)[0] if data == "roll" else np.random.RandomState(0).randn(n, 6)
    cpu, options = torch.device("cpu"), HeatOptions("combinatorial", "euler", 30, 1.0)
    graph = row_graph(scaled(torch.from_numpy(X)), GraphOptions("alpha_decay", 10, 40.0), cpu)
    laplacian, rows = laplacian_of(graph.affinity, "combinatorial"), torch.arange(0, n, n // count)
    start = time.process_time()
    series = heat_rows(laplacian, identity_rows(rows, n), 10.0, options, cpu).numpy()
    seconds = time.process_time() - start
    start = time.process_time()
    system = csc_matrix(eye_array(n) + laplacian / 3)
    factor = splu(system, permc_spec="MMD_AT_PLUS_A", diag_pivot_thresh=0, options={"SymmetricMode": True})
    solved = np.asfortranarray(np.eye(n)[:, rows])
    for _ in range(30):
        solved = factor.solve(solved)
    theirs = time.process_time() - start
    remark = (
        f"by a factor {theirs:.1f} s, {factor.L.nnz / n:.0f} entries per row of it; smallest entry {series.min():.0e}"
    )
    return {"seconds": seconds, "theirs": theirs, "error": np.abs(series / solved.T - 1).max(), "remark": remark}


def scaling(how, n_iter=50):
    """Seconds of iterations of SMACOF on the distances of the roll with noise 1, from classical scaling."""
    import torch

    from sklowrank.manifold._metric_scaling import smacof_steps

    model = ours(mds="classic").fit(roll(1.0)[0])
    D, E = model.dist_matrix_, model.embedding_
    start = time.process_time()
    if how == "scikit-learn":
        E, _ = quietly(
            lambda: smacof(D, init=E, n_init=1, max_iter=n_iter, eps=0, n_components=2, normalized_stress=False)
        )
    else:
        E = next(islice(smacof_steps(torch.from_numpy(D), torch.from_numpy(E)), n_iter - 1, None)).state.numpy()
    seconds = time.process_time() - start
    stress = np.sqrt(((cdist(E, E) - D) ** 2).sum() / (D**2).sum())
    return {"error": stress, "seconds": seconds}


# Cases


def clean_roll(bench):
    """clean roll: 800 rows, noise 0.5, two seeds; rank correlation of distances with the geodesics."""
    found = {m: bench.measure(m, geodesics, m, "roll", 0.5, SEEDS[:2]) for m in ("straight lines", "ours", "Isomap")}
    bench.measure("t-SNE", geodesics, "t-SNE", "roll", 0.5, SEEDS[:1])
    phate = bench.measure("PHATE", geodesics, "PHATE", "roll", 0.5, SEEDS[:1], package="phate")
    bench.claim("distances", found["ours"].distances, at_least=0.99)
    bench.claim("embedding in the plane", found["ours"].plane, at_least=0.985)
    bench.claim("error in the plane against PHATE", 1 - found["ours"].plane, 1 - phate.plane, at_most=0.2)
    bench.claim(
        "Isomap is better: what we lose in the plane", found["Isomap"].plane - found["ours"].plane, at_most=0.01
    )
    slower = found["ours"].seconds / found["Isomap"].seconds
    bench.note("seconds against Isomap", f"{slower:.1f} times as many")


def noisy_roll(bench):
    """noisy roll: 800 rows, noise 1.0, four seeds: neighbours connect turns of the roll."""
    found = {m: bench.measure(m, geodesics, m, "roll", 1.0, SEEDS) for m in ("straight lines", "ours", "Isomap")}
    phate = bench.measure("PHATE", geodesics, "PHATE", "roll", 1.0, SEEDS[:2], package="phate")
    two = bench.measure("ours, two seeds", geodesics, "ours", "roll", 1.0, SEEDS[:2])
    bench.claim("distances above Isomap's", found["ours"].distances - found["Isomap"].distances, at_least=0.12)
    bench.claim("in the plane above Isomap", found["ours"].plane - found["Isomap"].plane, at_least=0.07)
    bench.claim("in the plane above PHATE, two seeds", two.plane - phate.plane, at_least=0.07)


def too_noisy_roll(bench):
    """roll with strong noise: noise 1.5, four seeds; no method follows it."""
    found = {m: bench.measure(m, geodesics, m, "roll", 1.5, SEEDS) for m in ("straight lines", "ours", "Isomap")}
    short = bench.measure("ours, t=1", geodesics, "ours", "roll", 1.5, SEEDS, {"t": 1.0})
    losses = [f"{name} {found[name].distances - found['ours'].distances:+.3f}" for name in ("straight lines", "Isomap")]
    bench.note("distances that are better than ours", ", ".join(losses))
    bench.claim(
        "distances at t=1 against straight lines", short.distances - found["straight lines"].distances, at_least=-0.01
    )


def trees(bench):
    """trees: 800 rows on eight branches in ten dimensions, noise 1, 3 and 5, two seeds."""
    gains = {}
    for noise in (1.0, 3.0, 5.0):
        found = {}
        for name in ("straight lines", "ours", "Isomap"):
            found[name] = bench.measure(f"{name}, noise {noise:g}", geodesics, name, "tree", noise, SEEDS[:2])
        gains[noise] = found["ours"].distances - found["Isomap"].distances
    bench.measure("t-SNE, noise 3", geodesics, "t-SNE", "tree", 3.0, SEEDS[:1])
    bench.measure("PHATE, noise 3", geodesics, "PHATE", "tree", 3.0, SEEDS[:1], package="phate")
    for noise, gain in gains.items():
        bench.claim(f"distances above Isomap's, noise {noise:g}", gain, at_least=0.01)


def digits(bench):
    """digits: 900 images, accuracy of five neighbours in the plane."""
    found = {m: bench.measure(m, neighbours, m) for m in ("ours", "Isomap", "PCA", "t-SNE")}
    phate = bench.measure("PHATE", neighbours, "PHATE", package="phate")
    bench.claim("accuracy", found["ours"].right, at_least=0.90)
    bench.claim("above Isomap", found["ours"].right - found["Isomap"].right, at_least=0.10)
    bench.note("above PHATE", f"{found['ours'].right - phate.right:+.3f}")
    bench.note("above t-SNE", f"{found['ours'].right - found['t-SNE'].right:+.3f}")


def solvers(bench):
    """solvers: 800 rows of the roll, noise 0.1, normalised Laplacian, t=10, no volume correction."""
    euler = bench.measure("Euler, 30 steps", kernels, "euler", 30)
    chebyshev = bench.measure("Chebyshev, order 200", kernels, "chebyshev", 200)
    exact = bench.measure("eigendecomposition", kernels, "exact", 1)
    off = bench.measure("Euler against the eigendecomposition, t=50, noise 0.5", euler_against_exact)
    bench.claim("far distances that differ, Euler", euler.distinct, at_least=0.95)
    bench.claim("error of Euler against Chebyshev", euler.error, chebyshev.error, at_most=0.8)
    bench.claim("error of Euler against the eigendecomposition", euler.error, exact.error, at_most=0.3)
    bench.claim("Euler against exact where it is: median difference", off.error, at_most=0.03)
    bench.claim("Euler against exact where it is: 99 % quantile", off.most, at_most=0.10)


def some_landmarks(bench):
    """landmarks: 2000 rows of the roll, noise 0.5."""
    few = bench.measure("300 landmarks", with_landmarks, 2000, 300)
    whole = bench.measure("all rows", with_landmarks, 2000, None)
    new = bench.measure("1000 rows, 300 new ones placed", placed, 1000, 300)
    bench.claim("rank correlation of all rows", few.right, at_least=0.98)
    bench.claim("error against all rows as landmarks", few.error, whole.error, at_most=1.5)
    bench.claim("rank correlation of new rows with those of the fit", new.right, at_least=0.97)


def parts(bench):
    """parts: 100 columns of the kernel of 5,000 rows; 50 iterations of SMACOF on 800 rows."""
    for data in ("roll", "gaussian rows in six dimensions"):
        found = bench.measure(f"series, {data}", columns_of_kernel, data)
        least = 0.7 if data == "roll" else 5  # a factor of rows in the plane is sparse
        bench.claim(
            f"seconds of the series against a sparse factor, {data}", found.seconds, found.theirs, at_least=least
        )
        bench.claim(f"largest relative difference of an entry, {data}", found.error, at_most=1e-4)
    torch, sklearn = (bench.measure(f"SMACOF, {how}", scaling, how) for how in ("ours", "scikit-learn"))
    bench.claim("seconds of SMACOF against scikit-learn's", torch.seconds, sklearn.seconds, at_least=1)
    bench.claim("stress against that of scikit-learn's", torch.error, sklearn.error, at_most=1.001)


def scale(bench):
    """scale: 5,000 to 20,000 rows of the roll, noise 0.5, with 250 and 1,000 landmarks."""
    sizes = (5000, 10_000, 20_000)
    found = [bench.measure(f"{n} rows, 250 landmarks", with_landmarks, n, 250) for n in sizes]
    many = bench.measure("20000 rows, 1000 landmarks", with_landmarks, 20_000, 1000)
    slope = np.polyfit(np.log(sizes), np.log([f.seconds for f in found]), 1)[0]
    bench.claim("slope of seconds over rows", slope, at_most=1.6)
    bench.claim("rank correlation, 20,000 rows and 1,000 landmarks", many.right, at_least=0.98)
    bench.claim("peak memory in megabytes; one matrix of all pairs has 3,052", many.peak, at_most=1500)


CASES = (clean_roll, noisy_roll, too_noisy_roll, trees, digits, solvers, some_landmarks, parts, scale)
