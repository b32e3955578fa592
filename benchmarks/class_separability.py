"""Separability of unlabelled rows by persistence, against other scores that use no labels.

Ladders are ten tables of 600 rows and 16 columns: round groups whose centres move apart, from no groups at all to
groups without overlap. Silhouettes and Calinski-Harabasz scores are those of the labels of KMeans
with the right number of groups, which ours does not use. Ours runs with its defaults unless settings are named.
Seconds are those of the processor, with one thread.
"""

import os
import time

import numpy as np
from scipy.cluster.hierarchy import linkage
from scipy.stats import spearmanr
from sklearn.cluster import HDBSCAN, KMeans
from sklearn.datasets import make_blobs
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import calinski_harabasz_score, silhouette_score
from sklearn.model_selection import cross_val_score
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.random_projection import GaussianRandomProjection

from benchmarks.data import bundled
from benchmarks.harness import accuracy, peak, quietly

TITLE = "Separability without labels"
SPREADS = (0, 0.5, 1, 1.5, 2, 3, 4, 5, 6, 8)
SIZES = (25_000, 50_000, 100_000)
ROWS = 4_000  # of the comparison with packages of persistent homology


def model(**settings):
    from sklowrank.topology import PersistenceSeparability

    device = os.environ["SKLOWRANK_BENCH_DEVICE"]
    return PersistenceSeparability(**{"random_state": 0, "device": device, **settings})


def seconds_of(call, *args):
    """The result, and seconds of the processor: other programs do not count."""
    start = time.process_time()
    return call(*args), time.process_time() - start


def groups(spread, n_groups, n=600, rng=None, n_features=16):
    """Round groups, of a standard deviation of 0.7, around orthogonal directions."""
    rng = np.random.RandomState(0) if rng is None else rng
    directions = np.linalg.qr(np.random.RandomState(5).randn(n_features, n_features))[0][:n_groups]
    y = rng.randint(n_groups, size=n)
    return 1.414 * spread * directions[y] + 0.7 * rng.randn(n, n_features), y


def ladder(n_groups):
    rng = np.random.RandomState(0)
    return [groups(spread, n_groups, rng=rng) for spread in SPREADS]


def of_kmeans(X, n_groups, judge=silhouette_score):
    return judge(X, KMeans(n_groups, n_init=3, random_state=0).fit_predict(X))


JUDGES = {  # of a table, from its rows and the number of groups
    "PersistenceSeparability": lambda X, k: model().fit(X).score_,
    "without calibration": lambda X, k: model(calibrate=False).fit(X).score_,
    "statistic='components'": lambda X, k: model(statistic="components").fit(X).score_,
    "statistic='gap'": lambda X, k: model(statistic="gap").fit(X).score_,
    "silhouette of KMeans": of_kmeans,
    "silhouette of KMeans with 3 groups too many": lambda X, k: of_kmeans(X, k + 3),
    "Calinski-Harabasz of KMeans": lambda X, k: of_kmeans(X, k, calinski_harabasz_score),
}


# The true separation


def along_a_ladder(name, n_groups):
    tables, _ = ladder(n_groups), model()  # what is imported once is not counted
    scores, seconds = seconds_of(lambda: [quietly(JUDGES[name], X, n_groups) for X, _ in tables])
    right = [cross_val_score(LogisticRegression(), X, y, cv=3).mean() for X, y in tables]
    truth, labels = spearmanr(scores, SPREADS)[0], spearmanr(scores, right)[0]
    said = (
        f"Spearman {truth:.3f} with the separation, {labels:.3f} with the accuracy; {scores[0]:.3g} to {scores[-1]:.3g}"
    )
    found = {"truth": truth, "labels": labels, "first": scores[0], "last": scores[-1]}
    return {**found, "rise": scores[-1] - scores[0], "seconds": seconds / len(tables), "remark": said}


def numbers_of_groups(n_groups):
    """How many of six tables have the right answer: none for the first three, the true number for the last three."""
    tables = ladder(n_groups)
    said = [model(calibrate=False).fit(X).n_components_estimate_ for X, _ in tables]
    right = sum(a == b for a, b in zip(said[:3] + said[-3:], [None] * 3 + [n_groups] * 3))
    missed = said.index(n_groups) - 1  # the last table before the number is found
    X, y = tables[missed]
    right_by_kmeans = accuracy(y, KMeans(n_groups, n_init=3, random_state=0).fit_predict(X))
    by_kmeans = f"at spread {SPREADS[missed]} KMeans with that number has accuracy {right_by_kmeans:.3f}"
    return {
        "right": right,
        "by_kmeans": right_by_kmeans,
        "remark": f"groups found: {', '.join(map(str, said))}; {by_kmeans}",
    }


def separation(bench):
    """true separation: two and four groups that move apart; rank correlation with the separation, and with labels."""
    for k in (2, 4):
        ours, bare, parts, _, silhouette, _, _ = (
            bench.measure(f"{name}, {k} groups", along_a_ladder, name, k) for name in JUDGES
        )
        bench.claim(f"{k} groups: Spearman with the true separation", ours.truth, at_least=0.95)
        bench.claim(f"{k} groups: Spearman with the true separation, without calibration", bare.truth, at_least=0.95)
        bench.claim(f"{k} groups: Spearman with the true separation, 'components'", parts.truth, at_least=0.9)
        bench.claim(f"{k} groups: Spearman with the accuracy of logistic regression", bare.labels, at_least=0.84)
        bench.claim(
            f"{k} groups: the same, less that of the silhouette with k = {k}",
            bare.labels - silhouette.labels,
            at_least=-0.06,
        )
        bench.claim(f"{k} groups: rise, without calibration", bare.rise, at_least=0.5)
        bench.claim(f"{k} groups: score without groups", ours.first, at_most=0.1)
        bench.claim(f"{k} groups: score of groups without overlap", ours.last, at_least=0.5)
        number = bench.measure(f"number of groups, {k} groups", numbers_of_groups, k)
        bench.claim(f"{k} groups: right numbers of groups, of six plain tables", number.right, at_least=6)
        bench.claim(
            f"{k} groups: accuracy of KMeans where no number is found, which misleads", number.by_kmeans, at_least=0.95
        )


# Versions of the same rows


def versions():
    """Digits: pixels, noise, projections to few dimensions, components; their labels."""
    X, y = bundled("digits")
    X, y, rng = X[:1000], y[:1000], np.random.RandomState(0)
    found = {"pixels": X} | {f"noise {s}": X + s * rng.randn(*X.shape) for s in (3, 8, 16)}
    found |= {f"projection {k}": GaussianRandomProjection(k, random_state=0).fit_transform(X) for k in (5, 20, 2)}
    lda = LinearDiscriminantAnalysis().fit(X[:500], y[:500])
    return {**found, "PCA 10": PCA(10, random_state=0).fit_transform(X), "LDA": lda.transform(X)}, y


def among_versions(name):
    tables, y = versions()
    model()
    scores, seconds = seconds_of(lambda: [quietly(JUDGES[name], E, 10) for E in tables.values()])
    right = [cross_val_score(KNeighborsClassifier(5), E, y, cv=3).mean() for E in tables.values()]
    ranks = spearmanr(scores, right)[0]
    best = int(np.argmax(scores))
    said = f"Spearman {ranks:.3f} with the accuracy of 5 neighbours; best: {list(tables)[best]}, {right[best]:.3f}"
    return {"ranks": ranks, "seconds": seconds / len(tables), "remark": said}


def embeddings(bench):
    """embeddings: nine versions of 1,000 digits in 2 to 64 dimensions, ranked without labels."""
    ours, bare, _, _, silhouette, _, _ = (bench.measure(name, among_versions, name) for name in JUDGES)
    bench.claim("Spearman with the accuracy of nearest neighbours", ours.ranks, at_least=0.65)
    bench.claim("the same, less that of the silhouette of KMeans(10)", ours.ranks - silhouette.ranks, at_least=0.15)
    bench.claim("the same, less that without calibration", ours.ranks - bare.ranks, at_least=0.15)


# Noise and outliers


def of_noise(n_features, settings):
    """The largest score of 20 tables of 500 rows without groups, and how often groups are said to be there."""
    fits = [model(**settings).fit(np.random.RandomState(seed).randn(500, n_features)) for seed in range(20)]
    most, said = max(fit.score_ for fit in fits), sum(fit.n_components_estimate_ is not None for fit in fits)
    return {"most": most, "said": said, "remark": f"scores up to {most:.2f}, groups in {said} of 20 tables"}


def of_clouds(settings):
    """The smallest score of 20 tables of three compact clouds in a plane, 500 rows each."""
    tables = (make_blobs(500, centers=3, cluster_std=0.3, random_state=seed)[0] for seed in range(20))
    scores = [model(**settings).fit(X).score_ for X in tables]
    return {"least": min(scores), "remark": f"scores {min(scores):.2f} to {max(scores):.2f}"}


def noise(bench):
    """few columns: 20 Gaussian tables of 500 rows, without groups, in 2 to 50 columns; three clouds in a plane."""
    for d in (2, 3, 5, 16, 50):
        ours = bench.measure(f"PersistenceSeparability, {d} columns", of_noise, d, {})
        bare = bench.measure(f"without calibration, {d} columns", of_noise, d, {"calibrate": False})
        if d >= 5:
            bench.claim(f"{d} columns: largest score", ours.most, at_most=0.1)
        if d >= 16:
            bench.claim(f"{d} columns: tables with groups, of 20", ours.said, at_most=0)
        if d == 2:
            bench.claim("2 columns: largest score, which misleads", ours.most, bare.most, at_most=0.5)
    ours = bench.measure("PersistenceSeparability, three clouds in a plane", of_clouds, {})
    bare = bench.measure("without calibration, three clouds in a plane", of_clouds, {"calibrate": False})
    bench.claim("three clouds in a plane: smallest score, which misleads", ours.least, bare.least, at_most=0.5)


def change_by_an_outlier(settings):
    """By how much the score changes with one row at 50 standard deviations among 600 rows of four groups."""
    X = ladder(4)[7][0]
    lone = np.vstack([X, X.mean(0) + 35 * np.eye(16)[0]])
    a, b = (model(**settings).fit(rows).score_ for rows in (X, lone))
    return {"error": abs(b - a), "remark": f"{a:.3f} without, {b:.3f} with"}


def outliers(bench):
    """outlier: one row at 50 standard deviations among 600 rows of four groups."""
    ours = bench.measure("PersistenceSeparability", change_by_an_outlier, {})
    unit = bench.measure("without calibration", change_by_an_outlier, {"calibrate": False})
    raw = bench.measure("normalize=False", change_by_an_outlier, {"normalize": False, "calibrate": False})
    parts = {"statistic": "components", "normalize": False}
    parts = bench.measure("statistic='components', normalize=False", change_by_an_outlier, parts)
    bench.claim("change of the score", ours.error, at_most=0.1)
    bench.claim("change without calibration", unit.error, at_most=0.05)
    bench.claim("change with normalize=False, without calibration, which misleads", raw.error, at_least=0.15)
    bench.claim("change with 'components', normalize=False", parts.error, at_most=0.05)


# Training


def stopped(patience, seed):
    """Accuracy of nearest neighbours on hidden states where the monitor stops, in the first epoch, and at its best."""
    from sklowrank.topology import SeparabilityMonitor

    X, y = bundled("digits")
    X, order = X / 16, np.random.RandomState(seed).permutation(len(X))
    train, new = order[:900], order[900:1500]
    net = MLPClassifier((64,), random_state=seed, learning_rate_init=2e-3)
    monitor, right, stop = SeparabilityMonitor(model(), patience=patience), [], None
    for epoch in range(40):
        net.partial_fit(X[train], y[train], classes=range(10))
        hidden = np.maximum(X @ net.coefs_[0] + net.intercepts_[0], 0)
        right.append(KNeighborsClassifier(5).fit(hidden[train], y[train]).score(hidden[new], y[new]))
        if monitor.update(hidden[new]) and stop is None:
            stop = epoch
    stop = 39 if stop is None else stop
    said = f"stops in epoch {stop + 1} with {right[stop]:.3f}, first {right[0]:.3f}, best {max(right):.3f}"
    return {"lost": max(right) - right[stop], "won": right[stop] - right[0], "remark": said}


def monitor(bench):
    """monitor: hidden states of 600 new digits during 40 epochs of a network, three seeds; no labels are used."""
    for patience in (3, 5):
        runs = [bench.measure(f"patience {patience}, seed {seed}", stopped, patience, seed) for seed in range(3)]
        lost, won = (float(np.mean([run[name] for run in runs])) for name in ("lost", "won"))
        bench.claim(f"patience {patience}: accuracy lost against the best epoch", lost, at_most=0.02)
        bench.claim(f"patience {patience}: accuracy won over the first epoch", won, at_least=0.005)


# Bars


def cloud(n, n_features, n_groups=4):
    return groups(4, n_groups, n, n_features=n_features)[0]


def bars_of(name, n_features):
    """Bars of 4,000 rows, their seconds, and how far they are off those of scipy relative to the longest."""
    X = cloud(ROWS, n_features)
    ours = model(normalize=False, calibrate=False, max_samples=None)
    call = {
        "PersistenceSeparability": lambda X: ours.fit(X).persistence_,
        "scipy, single linkage": lambda X: linkage(X, "single")[:, 2],
        "ripser": _ripser,
        "gudhi": _gudhi,
        "silhouette of KMeans": lambda X: of_kmeans(X, 4),
    }[name]
    call(X[:100])  # what is imported once is not counted
    bars, seconds = seconds_of(call, X)
    most = peak()  # before the reference is computed
    if np.ndim(bars) == 0:
        return {"seconds": seconds, "peak": most, "remark": "for comparison; no bars"}
    expected = linkage(X, "single")[:, 2]
    return {"error": np.abs(np.sort(bars) - expected).max() / expected[-1], "seconds": seconds, "peak": most}


def _ripser(X):
    from ripser import ripser

    bars = ripser(X, maxdim=0)["dgms"][0][:, 1]
    return bars[np.isfinite(bars)]


def _gudhi(X):
    import gudhi

    tree = gudhi.RipsComplex(points=X).create_simplex_tree(max_dimension=1)
    tree.compute_persistence(homology_coeff_field=2, persistence_dim_max=False)
    bars = tree.persistence_intervals_in_dimension(0)[:, 1]
    return bars[np.isfinite(bars)]


def persistence(bench):
    """bars: 4,000 rows of four groups, against scipy, ripser and gudhi; a calibrated score needs two such trees."""
    packages = {"ripser": "ripser", "gudhi": "gudhi", "scipy, single linkage": "scipy"}
    for d in (16, 64):
        ours = bench.measure(f"PersistenceSeparability, {d} columns", bars_of, "PersistenceSeparability", d)
        bench.claim(f"{d} columns: bars against scipy's, relative to the longest", ours.error, at_most=1e-9)
        names = list(packages)[2 * (d > 16) :]  # the slow ones once
        peers = {n: bench.measure(f"{n}, {d} columns", bars_of, n, d, package=packages[n]) for n in names}
        for name, peer in peers.items():
            least = 1.2 if name.startswith("scipy") else 5
            bench.claim(f"{d} columns: seconds against {name}", ours.seconds, peer.seconds, at_least=least)
        if "ripser" in peers:
            bench.claim(f"{d} columns: memory against ripser", ours.peak, peers["ripser"].peak, at_most=0.5)
        bench.measure(f"silhouette of KMeans, {d} columns", bars_of, "silhouette of KMeans", d)


def of_all_rows(n, n_features):
    X = cloud(n, n_features)
    ours = model(max_samples=None)
    before = peak()
    seconds = seconds_of(lambda: ours.fit(X))[1]
    said = f"score {ours.score_:.3f}, {ours.n_components_estimate_} groups, {peak() - before:.0f} MB more than before"
    return {"seconds": seconds, "grown": peak() - before, "score": ours.score_, "remark": said}


def by_hdbscan(n, n_features):
    """Bars of single linkage by the spanning tree of scikit-learn's HDBSCAN, and those of ours."""
    X = cloud(n, n_features)
    peer, seconds = seconds_of(HDBSCAN(min_samples=1, min_cluster_size=2, algorithm="kd_tree", copy=True).fit, X)
    expected = np.sort(peer._single_linkage_tree_["value"])
    fit, ours = seconds_of(model(normalize=False, calibrate=False, max_samples=None).fit, X)
    bars = fit.persistence_[::-1]
    return {
        "error": np.abs(bars - expected).max() / expected[-1],
        "seconds": seconds,
        "ours": ours,
        "remark": f"ours {ours:.1f} s",
    }


def of_a_draw(n_features):
    X = cloud(SIZES[-1], n_features)
    fit, seconds = seconds_of(model().fit, X)
    spread = np.std([model(random_state=seed).fit(X).score_ for seed in range(5)])
    return {
        "seconds": seconds,
        "score": fit.score_,
        "remark": f"score {fit.score_:.3f}, standard deviation of draws {spread:.3f}",
    }


def all_rows(bench):
    """100,000 rows: all of them, max_samples=None, calibrated; four groups in 8 and 16 columns. HDBSCAN on 30,000."""
    for d, sizes in ((8, SIZES), (16, SIZES[-1:])):
        fits = [bench.measure(f"{n:,} rows, {d} columns", of_all_rows, n, d) for n in sizes]
        if len(sizes) > 1:
            slope = float(np.log(fits[-1].seconds / fits[0].seconds) / np.log(sizes[-1] / sizes[0]))
            bench.claim(f"{d} columns: slope of the seconds from 25,000 to 100,000 rows", slope, at_most=2.1)
        bench.claim(f"{d} columns: memory of 100,000 rows, in MB (distances: 80,000)", fits[-1].grown, at_most=1000)
        bench.claim(f"{d} columns: seconds of 100,000 rows, two spanning trees", fits[-1].seconds, at_most=120)
        part = bench.measure(f"100,000 rows, 4,000 drawn, {d} columns", of_a_draw, d)
        bench.claim(f"{d} columns: score of 4,000 rows against all", abs(part.score - fits[-1].score), at_most=0.2)
    peer = bench.measure("HDBSCAN, 30,000 rows, 8 columns", by_hdbscan, 30_000, 8)
    bench.claim("bars of 30,000 rows against HDBSCAN's, relative to the longest", peer.error, at_most=1e-9)
    bench.claim("seconds of one tree of 30,000 rows against HDBSCAN", peer.ours, peer.seconds, at_least=1.5)


CASES = (separation, embeddings, noise, outliers, monitor, persistence, all_rows)
