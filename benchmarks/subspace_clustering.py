"""Subspace clusters: `LowRankGaussianMixture`, `KSubspaces` and the six self-expressive clusterers.

The error of a clustering is the share of rows outside the best matching of clusters to classes, one minus
`clustering_accuracy`; the error of found subspaces is `subspace_recovery_error`, that of a denoiser a mean square. No
method sees classes, and every method is told their number. Where several seeds are run, the error is their mean.
"Oracle" is principal component analysis with the true classes. Images are rows of unit norm, tables have standardised
columns, for peers as for ours. Faces and objects are read from the folder that `SKLOWRANK_DATA` names.
"""

import importlib
import os
import time

import numpy as np
from sklearn.decomposition import PCA
from sklearn.mixture import GaussianMixture
from sklearn.preprocessing import normalize, scale

from benchmarks.data import answers_to_questions, bundled, flats, missing, of_classes, small_union, union
from benchmarks.harness import accuracy, by_seed, clock, over_seeds, peak, quietly
from benchmarks.peers import clusterer
from benchmarks.peers import matching_pursuits_by_gram as by_gram
from benchmarks.peers import matching_pursuits_by_loop as by_loop

TITLE = "Subspace clustering"
FAMILY = {
    "OMP": "SparseSubspaceClusteringOMP",
    "elastic net": "ElasticNetSubspaceClustering",
    "sparse": "SparseSubspaceClustering",
    "least squares": "LeastSquaresSubspaceClustering",
    "low rank": "LowRankRepresentationClustering",
    "thresholded": "ThresholdedSubspaceClustering",
    "K-subspaces": "KSubspaces",
}
SEEDS = 5


# Data


def load(name):
    """A data set and its classes: images as rows of unit norm, tables with standardised columns."""
    if name.startswith("digits"):
        X, y = bundled("digits")
        return (X, y) if name == "digits, pixels" else (normalize(X), y)
    if name in ("wine", "breast_cancer", "iris"):
        X, y = bundled(name)
        return scale(X), y
    X, y = of_classes(name.replace("yaleb", "yaleb32"))
    return normalize(X), y


# Methods


def ours(name, n_clusters, **settings):
    package, kind = ("mixture", "LowRankGaussianMixture") if name == "mixture" else ("cluster", FAMILY[name])
    make = getattr(importlib.import_module(f"sklowrank.{package}"), kind)
    return make(n_clusters, device=os.environ["SKLOWRANK_BENCH_DEVICE"], random_state=0, **settings)


def make(name, settings, n_clusters, n_features):
    """One of ours, or where `settings` is None a peer."""
    if settings is None:
        return clusterer(name, n_clusters, min(20, n_features - 1))
    return ours(name, n_clusters, **settings)


def recovery(bases, truth):
    from sklowrank.metrics import subspace_recovery_error

    return subspace_recovery_error(bases, truth)


def principal(X, n_dims):
    """The leading right singular vectors of X, not centred, as columns."""
    return np.linalg.svd(X, full_matrices=False)[2][:n_dims].T


# Measured functions: each runs in a fresh process


def cluster(data, name, settings=None, seeds=1):
    """Labels of a data set by one of our methods (settings a dict) or a peer (None): mean error, least time."""
    X, y = load(data)
    right, times, _ = by_seed(lambda: make(name, settings, len(np.unique(y)), X.shape[1]), X, y, seeds)
    return {"error": 1 - np.mean(right), "right": np.mean(right), "seconds": min(times), "remark": over_seeds(right)}


def pca_by_mixture(settings):
    X, _, _ = union(200, 48, 6, 1, noise=0.02, random_state=0)
    model = ours("mixture", 1, n_dims=6, affine=False, **settings)
    _, seconds = clock(lambda: quietly(model.fit, X))
    U, noise = model.bases_[0], model.noise_variance_[0]
    cov = (U * model.variances_[0]) @ U.T + noise * np.eye(48)
    dense = -0.5 * ((X @ np.linalg.inv(cov) * X).sum(1) + np.linalg.slogdet(2 * np.pi * cov)[1])
    return {
        "error": recovery([U], [principal(X, 6)]),
        "seconds": seconds,
        "gap": np.abs(model.score_samples(X) - dense).max(),
    }


def recovered(method, rows):
    """Mean over five seeds of the recovery error, and of the accuracy."""
    errors, right = [], []
    for seed in range(5):
        X, y, bases = small_union(rows, seed)
        if method == "oracle":
            found = [principal(X[y == k], min(6, rows)) for k in range(3)]
            found = [np.linalg.qr(np.hstack([U, np.eye(48)[:, : 6 - U.shape[1]]]))[0] for U in found]
            labels = y
        else:
            settings = {"n_dims": 6, "random_state": seed}
            if method == "mixture":
                from sklowrank.mixture import LowRankGaussianMixture as Method

                settings |= {"affine": False}
            else:
                from sklowrank.cluster import KSubspaces as Method

                settings |= {"affine": False, "n_init": 20, "init": method}
            model = quietly(Method(3, **settings).fit, X)
            found, labels = model.bases_, model.labels_
        errors.append(recovery(found, bases))
        right.append(accuracy(y, labels))
    return {"error": np.mean(errors), "right": np.mean(right), "remark": f"accuracy {np.mean(right):.3f}"}


def density(name):
    """Log density, accuracy and denoising on new rows, the worst of three seeds."""
    scores, right, denoised = [], [], []
    for seed in range(3):
        X, y, _ = union(1600, 50, 3, 4, noise=0.1, random_state=seed)
        train, new = X[:240], X[240:]
        noisy = new + 0.5 * np.random.RandomState(1).randn(*new.shape)
        if name == "PCA":
            model = PCA(12).fit(train)
            denoised.append(((model.inverse_transform(model.transform(noisy)) - new) ** 2).mean())
            continue
        if name == "mixture":
            model = ours("mixture", 4, n_dims=3, affine=False).fit(train)
            denoised.append(((model.denoise(noisy, 0.5) - new) ** 2).mean())
        else:
            model = quietly(GaussianMixture(4, covariance_type=name, n_init=3, random_state=0).fit, train)
        scores.append(model.score(new))
        right.append(accuracy(y[240:], model.predict(new)))
    figures = {"error": max(denoised)} if denoised else {}
    if scores:
        figures |= {"scores": min(scores), "right": min(right)}
        figures["remark"] = f"{min(scores):.1f} nats a row, accuracy {min(right):.3f}"
    return figures


def clean_union(name, settings, noise):
    X, y, _ = union(300, 20, 4, 5, noise=noise, unit_norm=True, random_state=0)
    method = make(name, settings, 5, 20)
    labels, seconds = clock(lambda: quietly(method.fit_predict, X), budget=1)
    right = accuracy(y, labels)
    return {"error": 1 - right, "right": right, "seconds": seconds}


def binary(name, settings):
    """Seconds of processor time of a fit of 1,477 rows, the least of three, and nats a new row."""
    X = answers_to_questions(2 * 1477)
    model = ours("mixture", 20, **settings) if name == "mixture" else GaussianMixture(20, random_state=0, **settings)
    times = []
    for _ in range(3):
        start = time.process_time()
        quietly(model.fit, X[:1477])
        times.append(time.process_time() - start)
    seconds, score = min(times), model.score(X[1477:])
    return {"seconds": seconds, "score": score, "remark": f"{score:.1f} nats a new row, {model.n_iter_} iterations"}


def iteration(name, n_features, noise):
    """Seconds of one iteration after the first: a fit of many iterations less one of a single iteration."""
    X, y, _ = union(20_000, n_features, 5, 10, noise=noise, random_state=0)

    def fit(n_iter):
        if name == "mixture":
            return ours("mixture", 10, n_dims=5, init=y, max_iter=n_iter, tol=0.0).fit(X)
        return GaussianMixture(10, init_params="random", max_iter=n_iter, tol=0.0, random_state=0).fit(X)

    many, seconds = clock(lambda: quietly(fit, 11 if name == "mixture" else 4), budget=8, repeats=3)
    _, first = clock(lambda: quietly(fit, 1), budget=6, repeats=3)
    further = many.n_iter_ - 1  # of ours the last gains nothing more, and the fit ends
    remark = f"{further} iterations after the first"
    if name == "mixture":
        remark += f"; {(many.predict_proba(X) > 1e-12).mean():.0%} of the responsibilities above 1e-12"
    return {"seconds": (seconds - first) / further, "remark": remark}


def matching_pursuits(codes_of):
    """Seconds of the codes of digits by a loop over the rows."""
    X, _ = load("digits")
    return {"seconds": clock(lambda: codes_of(X))[1], "remark": "codes alone, without the spectral step"}


def elastic_net(loop, gamma=50.0, l1_ratio=0.9):
    """Codes of digits by elastic nets: whole fits of ours, or a loop over the rows; the sum of the objectives."""
    from sklearn.linear_model import ElasticNet

    X, _ = load("digits")
    G = np.abs(X @ X.T)
    np.fill_diagonal(G, 0)
    a = G.max(1) / (l1_ratio * gamma)

    def row_by_row():
        codes = np.zeros((len(X), len(X)))
        for i in range(len(X)):
            others = np.flatnonzero(np.arange(len(X)) != i)
            model = ElasticNet(a[i] / X.shape[1], l1_ratio=l1_ratio, fit_intercept=False)
            codes[i, others] = model.fit(X[others].T, X[i]).coef_
        return codes

    if loop:
        codes, seconds = clock(lambda: quietly(row_by_row))
    else:
        settings = {"gamma": gamma, "l1_ratio": l1_ratio, "n_nonzero_coefs": None}
        model = ours("elastic net", 10, **settings)
        _, seconds = clock(lambda: quietly(model.fit, X))
        codes = model.representation_.toarray()
    left = ((X - codes @ X) ** 2).sum(1) / (2 * a)
    value = (left + l1_ratio * np.abs(codes).sum(1) + (1 - l1_ratio) / 2 * (codes**2).sum(1)).sum()
    remark = "codes alone, without the spectral step" if loop else "with the spectral step"
    return {"seconds": seconds, "objective": value, "remark": f"objective {value:.5g}, {remark}"}


def many_rows(name, n_samples, settings):
    """One fit of 64 columns, 10 flats of dimension 5; the memory that the fit adds to that of the process with X."""
    X, y = flats(n_samples, affine=name in ("mixture", "K-subspaces"))
    model = ours(name, 10, **settings)
    before = peak()
    _, seconds = clock(lambda: quietly(model.fit, X), budget=3)
    added = peak() - before
    right = accuracy(y, model.labels_)
    remark = f"X takes {X.nbytes / 1e6:.0f} MB, the fit {added:.0f} more; {getattr(model, 'n_iter_', 1)} iterations"
    return {"error": 1 - right, "seconds": seconds, "added": added, "remark": remark}


# Cases


def equals_pca(bench):
    """PCA: with one component the mixture is probabilistic principal component analysis, by either solver"""
    exact = bench.measure("mixture, EM", pca_by_mixture, {})
    bench.claim("distance from the singular vectors, EM", exact.error, at_most=1e-8)
    bench.claim("log density against the dense Gaussian", exact.gap, at_most=1e-8)
    descent = bench.measure("mixture, diffusion, 1500 steps", pca_by_mixture, {"solver": "diffusion"})
    bench.claim("distance from the singular vectors, diffusion", descent.error, at_most=0.02)


def phase_transition(bench):
    """Few rows: three orthogonal 6-dimensional subspaces in 48 dimensions, noise 0.02, rows per subspace as named"""
    for rows in (3, 8, 12, 20):
        oracle = bench.measure(f"{rows} rows, oracle", recovered, "oracle", rows)
        mixture = bench.measure(f"{rows} rows, mixture", recovered, "mixture", rows)
        bench.measure(f"{rows} rows, K-subspaces", recovered, "auto", rows)
        chance = bench.measure(f"{rows} rows, K-subspaces, 20 random starts", recovered, "random", rows)
        if rows == 3:
            bench.claim("3 rows: nobody can recover, error", mixture.error, at_least=0.4)
            continue
        bench.claim(f"{rows} rows: recovery error above the oracle's", mixture.error - oracle.error, at_most=0.01)
        bench.claim(f"{rows} rows: accuracy", mixture.right, at_least=1)
        if rows == 12:
            bench.claim("12 rows: random starts alone fail, error", chance.error, at_least=0.3)


def densities(bench):
    """Density: four 3-dimensional subspaces in 50 dimensions, noise 0.1, 240 rows to fit, 1360 new ones to score"""
    found = bench.measure("mixture", density, "mixture")
    peers = [bench.measure(f"GaussianMixture, {name}", density, name) for name in ("full", "tied", "diag", "spherical")]
    pca = bench.measure("PCA, 12 components", density, "PCA")
    bench.claim("nats a row above the best GaussianMixture", found.scores - max(p.scores for p in peers), at_least=10)
    bench.claim("accuracy of predict on new rows", found.right, at_least=0.98)
    bench.claim("denoising, noise 0.5: mean square", found.error, at_most=0.035)
    bench.claim("denoising against PCA", found.error, pca.error, at_most=0.6)


def digits(bench):
    """Digits: bundled with scikit-learn, ten clusters; rows of unit norm, five seeds"""

    def measure(label, *args, data="digits"):
        return bench.measure(label, cluster, data, *args)

    plain = measure("KMeans", "KMeans", None, SEEDS)
    graph = measure("SpectralClustering", "SpectralClustering", None, SEEDS)
    for name in ("SpectralClustering, 5 neighbours", "GaussianMixture", "GaussianMixture after PCA"):
        measure(name, name, None, SEEDS)
    for name in ("GaussianMixture", "GaussianMixture after PCA"):
        measure(f"{name}, rows as they are", name, None, SEEDS, data="digits, pixels")
    mixture = measure("mixture, n_dims=9", "mixture", {"n_dims": 9}, SEEDS)
    near = measure("thresholded, 5 neighbours", "thresholded", {"n_neighbors": 5}, SEEDS)
    measure("K-subspaces, n_dims=9, not affine", "K-subspaces", {"n_dims": 9, "affine": False}, SEEDS)
    for name in ("mixture", "K-subspaces", "OMP", "elastic net", "sparse", "least squares", "low rank"):
        measure(f"{name}, defaults", name, {}, SEEDS)
    bench.claim("mixture, n_dims=9: accuracy", mixture.right, at_least=0.84)
    bench.claim("mixture, n_dims=9: accuracy above KMeans", mixture.right - plain.right, at_least=0.04)
    bench.claim("thresholded: accuracy", near.right, at_least=0.87)
    bench.claim("thresholded: seconds against SpectralClustering", near.seconds, graph.seconds, at_most=2)


def noise_free(bench):
    """No noise: five 4-dimensional subspaces in 20 dimensions, 60 rows of unit norm on each; and with noise 0.05"""
    methods = {
        "OMP, 4 atoms": ("OMP", {"n_nonzero_coefs": 4}),
        "elastic net, l1_ratio=0.9": ("elastic net", {"l1_ratio": 0.9}),
        "elastic net, l1_ratio=1": ("elastic net", {"l1_ratio": 1.0}),
        "sparse, active set": ("sparse", {}),
        "sparse, ADMM, gamma=20": ("sparse", {"solver": "admm", "gamma": 20.0}),
        "sparse, ADMM, gamma=800": ("sparse", {"solver": "admm", "gamma": 800.0}),
        "least squares, alpha=0.01": ("least squares", {"alpha": 0.01}),
        "low rank, tau=10": ("low rank", {"tau": 10.0}),
        "thresholded, 5 neighbours": ("thresholded", {"n_neighbors": 5}),
        "thresholded, 10 neighbours": ("thresholded", {"n_neighbors": 10}),
        "K-subspaces": ("K-subspaces", {"n_dims": 4, "affine": False}),
        "K-subspaces, ensemble of 60": ("K-subspaces", {"n_dims": 4, "affine": False, "ensemble": 60}),
        "mixture": ("mixture", {"n_dims": 4, "affine": False}),
    }
    bench.measure("KMeans", clean_union, "KMeans", None, 0.0)
    for label, (name, settings) in methods.items():
        bench.claim(f"{label}: accuracy", bench.measure(label, clean_union, name, settings, 0.0).right, at_least=0.99)
    for label in ("OMP, 4 atoms", "elastic net, l1_ratio=0.9", "least squares, alpha=0.01", "low rank, tau=10"):
        bench.measure(f"{label}, noise 0.05", clean_union, *methods[label], 0.05)
    bench.measure("thresholded, 5 neighbours, noise 0.05", clean_union, *methods["thresholded, 5 neighbours"], 0.05)


def faces(bench):
    """Faces: ten people under changing light, 64 images each of 32 x 32 pixels"""
    if why := missing("yaleb32"):
        return bench.skip(why)
    data = "yaleb 0-9"
    for name in ("KMeans", "SpectralClustering, 5 neighbours", "GaussianMixture after PCA"):
        bench.measure(name, cluster, data, name, None, SEEDS)
    plain = bench.measure("OMP, 5 atoms", cluster, data, "OMP", {"n_nonzero_coefs": 5}, SEEDS)
    refined = {"n_nonzero_coefs": 5, "refine": "mixture", "n_dims": 9}
    better = bench.measure("OMP, 5 atoms, refined by the mixture", cluster, data, "OMP", refined, SEEDS)
    bench.measure("mixture, n_dims=9, init='omp'", cluster, data, "mixture", {"n_dims": 9, "init": "omp"}, SEEDS)
    for name, settings in (("mixture", {"n_dims": 9}), ("K-subspaces", {"n_dims": 9, "affine": False})):
        bench.measure(f"{name}, n_dims=9", cluster, data, name, settings)
    for name in ("elastic net", "sparse", "least squares", "low rank", "thresholded"):
        bench.measure(f"{name}, defaults", cluster, data, name, {}, SEEDS)
    bench.claim("OMP: accuracy", plain.right, at_least=0.90)
    bench.claim("OMP refined by the mixture: accuracy", better.right, at_least=0.93)
    bench.claim("OMP: seconds", plain.seconds, at_most=10)
    bench.claim("OMP refined by the mixture: seconds", better.seconds, at_most=10)


def other_data(bench):
    """Other data: on which nothing in the library was chosen; ours with defaults"""
    names = ["wine", "breast_cancer", "iris"]
    if why := missing("coil20", "orl32", "yaleb32"):
        bench.skip(f"for the images {why}")
    else:
        names += ["coil20", "orl32", "yaleb 10-19", "yaleb 20-29"]
    for data in names:
        for name in ("KMeans", "SpectralClustering", "GaussianMixture after PCA"):
            bench.measure(f"{data}, {name}", cluster, data, name, None, SEEDS)
        for name in ("mixture", "K-subspaces", "OMP", "elastic net", "least squares", "low rank", "thresholded"):
            slow = name in ("mixture", "K-subspaces") and data not in names[:3]
            bench.measure(f"{data}, {name}", cluster, data, name, {}, 1 if slow else SEEDS)


def binary_columns(bench):
    """Yes and no: 1,477 rows of 284 binary columns, 20 components; log density of as many new rows"""
    plain = bench.measure("GaussianMixture, full", binary, "full", {})
    bench.measure("GaussianMixture, full, reg_covar=0.01", binary, "full", {"reg_covar": 1e-2})
    found = bench.measure("mixture", binary, "mixture", {})
    bench.measure("mixture, n_dims=5", binary, "mixture", {"n_dims": 5})
    bench.claim("seconds against GaussianMixture", found.seconds, plain.seconds, at_most=2.7)
    bench.claim("nats a new row above GaussianMixture, full", found.score - plain.score, at_least=0)


def iterations(bench):
    """Iterations: one iteration of EM, 20,000 rows on 10 subspaces of dimension 5, noise as named"""
    for n_features in (50, 200):
        plain = bench.measure(f"GaussianMixture, full, {n_features} columns", iteration, "full", n_features, 0.1)
        for noise in (0.1, 0.2, 0.3):
            what = f"{n_features} columns, noise {noise}"
            found = bench.measure(f"mixture, {what}", iteration, "mixture", n_features, noise)
            need = 3 if noise < 0.3 else 1  # where half of all responsibilities count, their sums are dense
            bench.claim(f"seconds of an iteration, {what}", found.seconds, plain.seconds, at_least=need)


def codes(bench):
    """Codes: digits, our whole fit against a loop over the rows that makes only the codes"""
    found = bench.measure("OMP, 5 atoms", cluster, "digits", "OMP", {"n_nonzero_coefs": 5}, SEEDS)
    for loop, codes_of, need in (("orthogonal_mp_gram", by_gram, 0.4), ("numpy", by_loop, 1)):
        plain = bench.measure(f"loop over rows, {loop}", matching_pursuits, codes_of)
        bench.claim(f"seconds, OMP against the loop, {loop}", found.seconds, plain.seconds, at_most=need)
    found = bench.measure("elastic net, gamma=50, l1_ratio=0.9", elastic_net, False)
    plain = bench.measure("loop over ElasticNet", elastic_net, True)
    bench.claim("seconds, elastic net against the loop", found.seconds, plain.seconds, at_least=5)
    bench.claim("objective, elastic net against the loop", found.objective, plain.objective, at_most=1.0001)


def growth(bench):
    """Growth: 64 columns in float32, 10 flats of dimension 5, noise 0.3"""
    for name in ("mixture", "K-subspaces"):
        sizes = (10_000, 100_000, 1_000_000)
        small, large, million = (bench.measure(f"{name}, {n:,} rows", many_rows, name, n, {"n_dims": 5}) for n in sizes)
        bench.claim(f"seconds, {name}, 100,000 rows against 10,000", large.seconds, small.seconds, at_most=10)
        bench.claim(f"seconds, {name}, 1,000,000 rows against 100,000", million.seconds, large.seconds, at_most=10)
        # labels and a few other columns of a million numbers, but no copy of X, which takes 256 MB
        more = million.added - small.added
        bench.claim(f"MB that the fit adds at a million rows, more than at 10,000, {name}", more, at_most=256)
    for name in ("thresholded", "OMP", "elastic net"):
        # Rounds of the elastic net beyond the second need no more memory, but minutes.
        settings = {"max_iter": 2} if name == "elastic net" else {}
        found = bench.measure(f"{name}, 20,000 rows", many_rows, name, 20_000, settings)
        bench.claim(f"peak GB at 20,000 rows, {name}", found.peak / 1000, at_most=2)


CASES = [
    equals_pca,
    phase_transition,
    densities,
    digits,
    noise_free,
    faces,
    other_data,
    binary_columns,
    iterations,
    codes,
    growth,
]
