"""References of subspace clustering in numpy: codes by row or by formula and a spectral step; subspaces, mixtures."""

import numpy as np
import scipy.linalg
from scipy.special import logsumexp
from sklearn.cluster import KMeans
from sklearn.linear_model import ElasticNet

GAMMA = 50.0


class Coded:
    """K-means on unit rows of the leading eigenvectors of a graph of the magnitudes of codes, the usual last step."""

    def __init__(self, codes_of, n_clusters, seed, scaled=True):
        self.codes_of, self.n_clusters, self.seed, self.scaled = codes_of, n_clusters, seed, scaled

    def fit_predict(self, X):
        C = np.abs(self.codes_of(X / np.linalg.norm(X, axis=1, keepdims=True)))
        if self.scaled:  # the largest code of each row is one
            C = C / np.maximum(C.max(1, keepdims=True), 1e-12)
        A = C + C.T
        root = np.sqrt(A.sum(1) + 1e-12)
        first = len(A) - self.n_clusters
        V = scipy.linalg.eigh(A / root[:, None] / root, subset_by_index=[first, len(A) - 1])[1]
        V = V / np.maximum(np.linalg.norm(V, axis=1, keepdims=True), 1e-12)
        return KMeans(self.n_clusters, n_init=10, random_state=self.seed).fit_predict(V)


def matching_pursuit(X, n_atoms=5):
    """Orthogonal matching pursuit, row by row."""
    codes = np.zeros((len(X), len(X)))
    for i, x in enumerate(X):
        left, chosen = x, []
        for _ in range(n_atoms):
            likeness = np.abs(X @ left)
            likeness[[i, *chosen]] = 0
            chosen.append(int(likeness.argmax()))
            code = np.linalg.lstsq(X[chosen].T, x, rcond=None)[0]
            left = x - code @ X[chosen]
        codes[i, chosen] = code
    return codes


def elastic_net(X, l1_ratio=0.9):
    """Elastic nets of scikit-learn, row by row, with the penalty that is set for each row."""
    gram = np.abs(X @ X.T)
    np.fill_diagonal(gram, 0)
    penalties, codes = gram.max(1) / (l1_ratio * GAMMA), np.zeros((len(X), len(X)))
    Q = np.linalg.svd(X, full_matrices=False)
    Z = Q[0] * Q[1]  # as many columns as matter
    for i in range(len(X)):
        others = np.flatnonzero(np.arange(len(X)) != i)
        model = ElasticNet(penalties[i] / Z.shape[1], l1_ratio=l1_ratio, fit_intercept=False, max_iter=200)
        codes[i, others] = model.fit(Z[others].T, Z[i]).coef_
    return codes


def lasso(X):
    return elastic_net(X, 1.0)


def least_squares(X, alpha=0.1):
    """Ridge regression of all rows on all others, by the inverse of one matrix."""
    inverse = np.linalg.inv(X @ X.T + alpha * np.eye(len(X)))
    codes = -inverse / np.diag(inverse)[:, None]
    np.fill_diagonal(codes, 0)
    return codes


def low_rank(X, tau=10.0, power=4):
    """The closed form of low-rank representation, whose entries are raised to a power."""
    U, s, _ = np.linalg.svd(X, full_matrices=False)
    kept = s > 1 / np.sqrt(tau)
    M = U[:, kept] * np.sqrt(1 - 1 / (tau * s[kept] ** 2))
    M = M / np.maximum(np.linalg.norm(M, axis=1, keepdims=True), 1e-12)
    return np.abs(M @ M.T) ** power


def thresholded(X, n_clusters=10):
    """The largest cosines of each row."""
    angles = np.exp(-2 * np.arccos(np.clip(np.abs(X @ X.T), 0, 1)))
    np.fill_diagonal(angles, 0)
    q = max(3, int(np.ceil(len(X) / n_clusters / 20)))
    far = np.argsort(-angles, axis=1)[:, q:]
    np.put_along_axis(angles, far, 0, axis=1)
    return angles


class Subspaces:
    """K-subspaces from random starts, the best of them by its objective."""

    def __init__(self, n_clusters, n_dims, seed, n_init=10):
        self.n_clusters, self.n_dims, self.n_init = n_clusters, n_dims, n_init
        self.rng = np.random.RandomState(seed)

    def fit_predict(self, X):
        found = [self.run(X, self.rng.randint(self.n_clusters, size=len(X))) for _ in range(self.n_init)]
        return max(found, key=lambda one: one[0])[1]

    def run(self, X, labels):
        for _ in range(100):
            share = np.empty((len(X), self.n_clusters))
            for k in range(self.n_clusters):
                rows = X[labels == k]
                rows = rows if len(rows) > self.n_dims else X[self.rng.choice(len(X), self.n_dims + 1)]
                V = np.linalg.svd(rows, full_matrices=False)[2][: self.n_dims]
                share[:, k] = np.square(X @ V.T).sum(1)
            old, labels = labels, share.argmax(1)
            if np.array_equal(old, labels):
                break
        return share.max(1).sum(), labels


class PrincipalMixture:
    """Mixture of probabilistic principal component analyses by EM, on 100 components; the best of five starts."""

    def __init__(self, n_clusters, n_dims, seed, n_init=5):
        self.K, self.q, self.n_init, self.rng = n_clusters, n_dims, n_init, np.random.RandomState(seed)

    def fit_predict(self, X):
        U, s, _ = np.linalg.svd(X - X.mean(0), full_matrices=False)
        Z = U[:, :100] * s[:100]
        starts = [KMeans(self.K, n_init=1, random_state=self.rng).fit_predict(Z) for _ in range(self.n_init)]
        return max((self.run(Z, start) for start in starts), key=lambda one: one[0])[1]

    def run(self, Z, labels):
        R, value = np.eye(self.K)[labels], -np.inf
        for _ in range(100):
            logs = np.column_stack([self.log_density(Z, R[:, k]) for k in range(self.K)])
            total = logsumexp(logs, axis=1)
            R, old, value = np.exp(logs - total[:, None]), value, total.mean()
            if value - old < 1e-4:
                break
        return value, R.argmax(1)

    def log_density(self, Z, r):
        """That of a component from its responsibilities: the mean, the leading directions, one noise for the others."""
        n, d = max(r.sum(), 1e-3), Z.shape[1]
        A = Z - r @ Z / n
        _, s, Vh = np.linalg.svd(A * np.sqrt(r / n)[:, None], full_matrices=False)
        noise = max(np.square(s[self.q :]).sum() / (d - self.q), 1e-8)
        top, along = np.maximum(np.square(s[: self.q]), noise), np.square(A @ Vh[: self.q].T)
        far = (along / top).sum(1) + (np.square(A).sum(1) - along.sum(1)) / noise
        return np.log(n / len(Z)) - 0.5 * (
            far + np.log(top).sum() + (d - self.q) * np.log(noise) + d * np.log(2 * np.pi)
        )
