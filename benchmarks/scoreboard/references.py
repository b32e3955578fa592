"""References in plain numpy, for methods that no installed package has."""

import numpy as np
import scipy.linalg


class SoftImpute:
    """Soft-thresholded singular values of the standardised table; the threshold is chosen by a tenth of its cells."""

    def fit_transform(self, X):
        self.mean, self.scale = np.nanmean(X, 0), np.nanstd(X, 0)
        self.scale[self.scale == 0] = 1
        Z, seen = (X - self.mean) / self.scale, ~np.isnan(X)
        kept = seen & (np.random.RandomState(1234).rand(*X.shape) > 0.1)
        top = np.linalg.norm(np.where(kept, Z, 0), 2)
        best, fill = np.inf, np.zeros(X.shape)
        for threshold in top * np.geomspace(0.5, 0.01, 10):
            fill = self.filled(Z, kept, threshold, fill)
            error = np.mean((fill - Z)[seen & ~kept] ** 2)
            if error < best:
                best, chosen = error, threshold
        return np.where(seen, X, self.filled(Z, seen, chosen, fill) * self.scale + self.mean)

    def filled(self, Z, seen, threshold, fill):
        for _ in range(100):
            U, s, Vt = np.linalg.svd(np.where(seen, Z, fill), full_matrices=False)
            old, fill = fill, (U * np.maximum(s - threshold, 0)) @ Vt
            if np.linalg.norm(fill - old) <= 1e-3 * np.linalg.norm(fill):
                break
        return fill


class AlternatingLeastSquares:
    """Biases and factors of rated pairs, each penalised as often as it is rated (ALS-WR)."""

    def __init__(self, n_components=10, alpha=0.1, sweeps=15, seed=0):
        self.k, self.alpha, self.sweeps, self.seed = n_components, alpha, sweeps, seed

    def fit(self, pairs, y):
        self.mean, self.names = y.mean(), [np.unique(ids) for ids in pairs.T]
        codes = [np.searchsorted(names, ids) for names, ids in zip(self.names, pairs.T, strict=True)]
        rng = np.random.RandomState(self.seed)
        self.factors = [np.c_[np.ones((len(names), 2)), 0.1 * rng.randn(len(names), self.k)] for names in self.names]
        self.factors[0][:, 0] = self.factors[1][:, 1] = 0  # the biases
        for _ in range(self.sweeps):
            for side in (0, 1):
                self.solve(side, codes, y - self.mean)
        return self

    def solve(self, side, codes, y):
        mine, free = self.factors[side], np.delete(np.arange(self.k + 2), 1 - side)
        order = np.argsort(codes[side], kind="stable")
        for rows in np.split(order, np.flatnonzero(np.diff(codes[side][order])) + 1):
            A = self.factors[1 - side][codes[1 - side][rows]]
            target = y[rows] - A[:, 1 - side]
            A = A[:, free]
            gram = A.T @ A + self.alpha * len(rows) * np.eye(len(free))
            mine[codes[side][rows[0]], free] = scipy.linalg.solve(gram, A.T @ target, assume_a="pos")

    def predict(self, pairs):
        total = np.full(len(pairs), self.mean)
        places = [np.minimum(np.searchsorted(n, ids), len(n) - 1) for n, ids in zip(self.names, pairs.T, strict=True)]
        known = [n[at] == ids for n, at, ids in zip(self.names, places, pairs.T, strict=True)]
        left, right = (
            np.where(seen[:, None], F[at], 0) for F, at, seen in zip(self.factors, places, known, strict=True)
        )
        total += np.where(known[0], left[:, 0], 0) + np.where(known[1], right[:, 1], 0)
        return total + (left[:, 2:] * right[:, 2:]).sum(1)


class TensorSplines:
    """Least squares on products of cubic splines of three coordinates, ten each; the penalty by a tenth of the rows."""

    def fit(self, X, y):
        from sklearn.preprocessing import SplineTransformer

        self.splines = [SplineTransformer(8).fit(X[:, [j]]) for j in range(X.shape[1])]
        self.mean = y.mean()
        Z, fitted = self.products(X), np.random.RandomState(0).rand(len(y)) > 0.1
        gram, cross = Z[fitted].T @ Z[fitted], Z[fitted].T @ (y[fitted] - self.mean)
        best = np.inf
        for alpha in np.geomspace(1e-4, 10, 6):
            weight = scipy.linalg.solve(gram + alpha * np.eye(len(gram)), cross, assume_a="pos")
            error = np.mean((Z[~fitted] @ weight + self.mean - y[~fitted]) ** 2)
            if error < best:
                best, self.weight = error, weight
        return self

    def products(self, X):
        parts = [spline.transform(X[:, [j]]) for j, spline in enumerate(self.splines)]
        total = parts[0]
        for part in parts[1:]:
            total = (total[:, :, None] * part[:, None, :]).reshape(len(X), -1)
        return total

    def predict(self, X):
        return self.products(X) @ self.weight + self.mean


# Differential privacy at epsilon = 1


def noisy_grid(X, Y, h, epsilon, seed, cells=32):
    """Means of a Gaussian kernel from a histogram of the unit square with Laplace noise."""
    counts = np.histogram2d(*X.T, bins=cells, range=[[0, 1], [0, 1]])[0]
    counts = counts + np.random.RandomState(seed).laplace(0, 1 / epsilon, counts.shape)
    middle = (np.arange(cells) + 0.5) / cells
    near = [np.exp(-np.square(Y[:, [j]] - middle) / (2 * h * h)) for j in (0, 1)]
    return np.einsum("ni,nj,ij->n", *near, counts) / len(X)


def noisy_columns(X, Y, seed, bins=32):
    """Sums of absolute differences from one histogram of each column with Laplace noise."""
    rng, out, middle = np.random.RandomState(seed), np.zeros(len(Y)), (np.arange(bins) + 0.5) / bins
    for j in range(X.shape[1]):
        counts = np.histogram(X[:, j], bins, (0, 1))[0] + rng.laplace(0, X.shape[1], bins)
        out += np.abs(Y[:, [j]] - middle) @ counts
    return out


class NoisyMeans:
    """The nearest of class means, from sums of clipped rows and counts with Gaussian noise (epsilon 1, delta 1e-6)."""

    def __init__(self, seed, norm=4.0):
        self.rng, self.norm = np.random.RandomState(seed), norm

    def fit(self, X, y):
        X = X * np.minimum(1, self.norm / np.maximum(np.linalg.norm(X, axis=1, keepdims=True), 1e-12))
        width = np.sqrt(2 * np.log(1.25e6))  # of the classical Gaussian mechanism, split in halves below
        self.classes_ = np.unique(y)
        sums = np.array([X[y == c].sum(0) for c in self.classes_])
        counts = np.array([np.sum(y == c) for c in self.classes_])
        sums = sums + self.rng.normal(0, width * self.norm / 0.9, sums.shape)
        counts = np.maximum(counts + self.rng.normal(0, width / 0.1, counts.shape), 1)
        self.means = np.clip(sums / counts[:, None], 0, 1)
        return self

    def predict(self, X):
        return self.classes_[np.square(X[:, None] - self.means).sum(2).argmin(1)]
