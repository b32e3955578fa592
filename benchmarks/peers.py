"""What methods are compared with: other estimators by name, other packages, and references in plain numpy and torch.

Other packages are imported where they are used: the extra `bench` installs them.
"""

import contextlib
import io
import math
import os
from itertools import pairwise

import numpy as np
import scipy.sparse as sp
from sklearn.base import is_regressor
from sklearn.cluster import HDBSCAN, KMeans, SpectralClustering
from sklearn.cross_decomposition import PLSRegression
from sklearn.decomposition import NMF, PCA, MiniBatchDictionaryLearning, TruncatedSVD
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.experimental import enable_iterative_imputer  # noqa: F401
from sklearn.impute import IterativeImputer, KNNImputer, SimpleImputer
from sklearn.linear_model import orthogonal_mp_gram
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import NeighborhoodComponentsAnalysis
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, Normalizer, StandardScaler

from benchmarks.harness import clock

# Estimators of scikit-learn


def clusterer(name, n_clusters, n_components):
    """A clusterer with the settings that scikit-learn's guide recommends for many columns; PCA to some components."""

    def near(k):
        return SpectralClustering(n_clusters, affinity="nearest_neighbors", n_neighbors=k, random_state=0)

    makers = {
        "KMeans": lambda: KMeans(n_clusters, n_init=10, random_state=0),
        "SpectralClustering": lambda: near(10),
        "SpectralClustering, 5 neighbours": lambda: near(5),
        "SpectralClustering, 5 neighbours, unit rows": lambda: make_pipeline(Normalizer(), near(5)),
        "GaussianMixture": lambda: GaussianMixture(n_clusters, reg_covar=1e-2, n_init=3, random_state=0),
        "GaussianMixture after PCA": lambda: make_pipeline(
            PCA(n_components, random_state=0), GaussianMixture(n_clusters, n_init=3, random_state=0)
        ),
        "HDBSCAN": lambda: HDBSCAN(min_cluster_size=20, copy=True),
    }
    return makers[name]()


def imputer(name, rounds):
    """An imputer; the rounds are those of IterativeImputer."""
    makers = {
        "IterativeImputer": lambda: IterativeImputer(random_state=0, max_iter=rounds),
        "KNNImputer": KNNImputer,
        "SimpleImputer": SimpleImputer,
    }
    return makers[name]()


def reduction(name, r):
    """A reduction to r features."""
    makers = {
        "PCA": lambda: PCA(r, random_state=0),
        "TruncatedSVD": lambda: TruncatedSVD(r, random_state=0),
        "NMF": lambda: NMF(r, init="nndsvda"),
        "MiniBatchDictionaryLearning": lambda: MiniBatchDictionaryLearning(r, random_state=0),
        "PLS": lambda: PLSRegression(r),
        "PLSRegression": lambda: PLSRegression(r),
        "LDA": lambda: LinearDiscriminantAnalysis(n_components=r),
        "LinearDiscriminantAnalysis": lambda: LinearDiscriminantAnalysis(n_components=r),
        "NeighborhoodComponentsAnalysis": lambda: NeighborhoodComponentsAnalysis(r, random_state=0),
        "all columns": lambda: FunctionTransformer(),
        "covariates alone": lambda: FunctionTransformer(lambda X: np.zeros((X.shape[0], 0))),
    }
    return makers[name]()


class Reduced:
    """A reduction, and a model on what it gives and covariates."""

    def __init__(self, name, r, final):
        self.first, self.final = reduction(name, r) if isinstance(name, str) else name, final

    def read(self, X, covariates):
        H = self.first.transform(X)
        if covariates is None:
            return H
        return sp.hstack([H, covariates]).tocsr() if sp.issparse(H) else np.hstack([H, covariates])

    def fit(self, X, y, covariates=None):
        seen = y
        if isinstance(self.first, PLSRegression) and not is_regressor(self.final):
            seen = (y[:, None] == np.unique(y)).astype(float)
        self.first.fit(X, seen)
        self.final.fit(self.read(X, covariates), y)
        return self

    def predict(self, X, covariates=None):
        return self.final.predict(self.read(X, covariates))

    def score(self, X, y, covariates=None):
        return self.final.score(self.read(X, covariates), y)

    def decision_function(self, X, covariates=None):
        return self.final.decision_function(self.read(X, covariates))


# Other packages


def surprise_ratings(name, pairs, y, test):
    """Predictions of scikit-surprise from 1 to 5, and the seconds of its fit."""
    import pandas as pd
    import surprise

    table = pd.DataFrame({"row": pairs[:, 0], "col": pairs[:, 1], "y": y})
    trainset = surprise.Dataset.load_from_df(table, surprise.Reader(rating_scale=(1, 5))).build_full_trainset()
    settings = {"verbose": False} if name == "KNNBaseline" else {"random_state": 0}
    model, seconds = clock(lambda: getattr(surprise, name)(**settings).fit(trainset))
    return np.array([model.predict(*pair).est for pair in test]), seconds


def cmfrec_ratings(n_components, pairs, y, test, threads):
    """Predictions of cmfrec, cut to 1 to 5, and the seconds of its fit."""
    import cmfrec
    import pandas as pd

    table = pd.DataFrame({"UserId": pairs[:, 0], "ItemId": pairs[:, 1], "Rating": y})
    model, seconds = clock(lambda: cmfrec.CMF(k=n_components, lambda_=10, nthreads=threads, verbose=False).fit(table))
    return np.clip(model.predict(test[:, 0], test[:, 1]), 1, 5), seconds


def implicit_sweeps(n_components, sweeps, pairs, y, threads):
    """Seconds of a fit by implicit, and of its fastest sweep."""
    from implicit.cpu.als import AlternatingLeastSquares

    cells = sp.csr_matrix((y, pairs.T))
    settings = {"iterations": sweeps, "regularization": 3.0, "num_threads": threads, "random_state": 0}
    _, seconds = clock(lambda: AlternatingLeastSquares(n_components, **settings).fit(cells, show_progress=False))
    each = []
    model = AlternatingLeastSquares(n_components, **settings)
    model.fit(cells, show_progress=False, callback=lambda iteration, elapsed, loss: each.append(elapsed))
    return seconds, min(each)


def supervised_mf(X, y, r, covariates=None):
    """Dictionary (p, r) and weights, the constant first, of 100 iterations of SupervisedMF; xi = 0.1 in our units."""
    os.environ["TQDM_DISABLE"] = "1"
    from SMF import SMF_BCD

    np.random.seed(0)
    with contextlib.redirect_stdout(io.StringIO()):
        target = y[None, :].astype(float)
        model = SMF_BCD(
            X=[X.T, target],
            X_test=[X[:40].T, target[:, :40]],  # it does not end without some
            X_auxiliary=None if covariates is None else covariates.T,
            X_test_aux=None if covariates is None else covariates[:40].T,
            n_components=r,
            xi=0.1 * len(X) / (X**2).sum(),
            nonnegativity=[False] * 3,
        )
        W, beta = model.fit(option="filter", iter=100)["loading"]
    return W, beta[0]


# References


def matching_pursuits_by_loop(X):
    """Five atoms for each row, by a loop in plain numpy."""
    for i, x in enumerate(X):
        left, chosen = x, []
        for _ in range(5):
            likeness = np.abs(X @ left)
            likeness[i] = 0
            chosen.append(int(likeness.argmax()))
            left = x - np.linalg.lstsq(X[chosen].T, x, rcond=None)[0] @ X[chosen]


def matching_pursuits_by_gram(X):
    """Five atoms for each row, by scikit-learn's orthogonal matching pursuit."""
    G = np.asfortranarray(X @ X.T)
    for i in range(len(X)):
        own = G[i].copy()
        G[i] = G[:, i] = 0  # a row of zeros is never chosen
        orthogonal_mp_gram(G, np.where(np.arange(len(X)) == i, 0, own), n_nonzero_coefs=5)
        G[i] = G[:, i] = own


def cumulative_covariance_by_loops(U, D):
    """The Fréchet cumulative covariance of U with responses at distances D, by its definition."""
    n, U = len(U), U - U.mean(0)
    inside = D[:, None, :] <= D[:, :, None]
    return sum(np.square(U[ball].sum(0) / n).sum() for ball in inside.reshape(-1, n)) / n**2


def sliced(X, y, d, method):
    """Directions of sliced inverse regression, or of SAVE, with ten slices."""
    mean = X.mean(0)
    e, V = np.linalg.eigh(np.cov(X.T, bias=True))
    W = (V / np.sqrt(e)) @ V.T
    Z, M = (X - mean) @ W, 0.0
    for rows in np.array_split(np.argsort(y, kind="stable"), 10):
        h, A = Z[rows].mean(0), np.eye(X.shape[1]) - np.cov(Z[rows].T)
        M = M + len(rows) * (np.outer(h, h) if method == "SIR" else A @ A)
    B = W @ np.linalg.eigh(M)[1][:, ::-1][:, :d]
    return lambda new: new @ B


def distance_covariance_net(X, Y, d, seed):
    """One network that maximises the distance correlation of its whitened outputs with vectors Y."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    scaler = StandardScaler().fit(X)
    X, Y = (torch.from_numpy(part).float() for part in (scaler.transform(X), Y))
    torch.manual_seed(seed)
    relu = torch.nn.ReLU
    layers = [torch.nn.Linear(X.shape[1], 64), relu(), torch.nn.Linear(64, 64), relu(), torch.nn.Linear(64, d)]
    net = torch.nn.Sequential(*layers)
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-4)

    def centred_distances(A):
        D = ((A[:, None] - A).square().sum(2) + 1e-10).sqrt()
        return D - D.mean(0) - D.mean(1, keepdim=True) + D.mean()

    def dependence(rows):
        U = net(X[rows])
        U = U - U.mean(0)
        root = torch.linalg.cholesky(U.T @ U / len(U) + 1e-4 * torch.eye(d))
        A = centred_distances(torch.linalg.solve_triangular(root, U.T, upper=False).T)
        B = centred_distances(Y[rows])
        return (A * B).mean() / (A.square().mean() * B.square().mean()).sqrt()

    order = torch.randperm(len(X), generator=generator)
    held_out, trained = order[: len(X) * 15 // 100], order[len(X) * 15 // 100 :]
    best, kept, since = -np.inf, None, 0
    for _ in range(200):
        for rows in trained[torch.randperm(len(trained), generator=generator)].split(128):
            if len(rows) == 128:
                optimizer.zero_grad()
                (-dependence(rows)).backward()
                optimizer.step()
        with torch.no_grad():
            score = float(dependence(held_out))
        since += 1
        if score > best + 1e-5:
            best, kept, since = score, [p.detach().clone() for p in net.parameters()], 0
        if since > 25:
            break
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), kept):
            parameter.copy_(value)
    return lambda new: net(torch.from_numpy(scaler.transform(new)).float()).detach().numpy()


def kernel_means_by_cosines(X, Y, h, epsilon, n_features, seed):
    """Private means of a Gaussian kernel: shifted random cosines with Laplace noise."""
    m = n_features
    rng = np.random.RandomState(seed)
    W, b = rng.randn(X.shape[1], m) / h, rng.uniform(0, 2 * np.pi, m)
    total = (math.sqrt(2) * np.cos(X @ W + b)).sum(0) + rng.laplace(0, math.sqrt(2) * m / epsilon, m)
    return math.sqrt(2) * np.cos(Y @ W + b) @ total / m / len(X)


def distance_sums_by_trees(X, Y, seed, leaves=1024, ratio=1.1):
    """Private sums of absolute differences: dyadic trees of noisy counts per column, distances in geometric buckets."""
    d, levels, edges, v = X.shape[1], int(math.log2(leaves)) + 1, [0], 1.0
    while v < leaves:
        edges.append(math.ceil(v))
        v = max(v * ratio, v + 1)
    edges = [*sorted(set(edges)), leaves + 1]
    rng, out = np.random.RandomState(seed), np.zeros(len(Y))
    for j in range(d):
        counts, tree = np.bincount(np.minimum((X[:, j] * leaves).astype(int), leaves - 1), minlength=leaves), []
        for _ in range(levels):
            tree.append(counts + rng.laplace(0, levels * d, len(counts)))
            counts = counts.reshape(-1, 2).sum(1) if len(counts) > 1 else counts
        for i, q in enumerate(np.minimum((Y[:, j] * leaves).astype(int), leaves - 1)):
            for near, far in pairwise(edges):
                middle = (near + min(far, leaves)) / 2 / leaves
                out[i] += middle * _between(tree, min(q + near, leaves), min(q + far, leaves))
                out[i] += middle * _between(tree, max(q - far + 1, 0), max(q - near + (near > 0), 0))
    return out


def _between(tree, a, b):
    total, level = 0.0, 0
    while a < b:
        if a & 1:
            total, a = total + tree[level][a], a + 1
        if b & 1:
            b -= 1
            total += tree[level][b]
        a, b, level = a >> 1, b >> 1, level + 1
    return total
