"""Sparse projection of an affinity onto the doubly stochastic matrices, by its dual problem."""

import numpy as np
import scipy.sparse as sp
from scipy.optimize import minimize
from scipy.sparse.csgraph import connected_components

_DOUBLINGS = 20
_FIRST_ENTRIES = 16  # of a row, with which the dual is solved first: the projection usually has fewer


def doubly_stochastic(A: sp.csr_array, n_components: int, eta: float | None = None) -> sp.csr_array:
    """Return the matrix P >= 0, symmetric, with zero diagonal and unit row sums, that minimises eta/2 |P|² - <A, P>.

    With ``K = (A + A.T) / 2`` it is ``max(0, K_ij - f_i - f_j) / eta``, where f maximises the concave dual function of
    n variables. `eta` starts at 1 % of the mean of the row maxima and is doubled, at most 20 times, until the graph has
    at most `n_components` connected components, or as many as A.
    """
    n = A.shape[0]
    K = sp.csr_array(A + A.T) * 0.5
    largest = K.max(axis=1).toarray().ravel() if n else np.zeros(0)
    eta = 0.01 * largest.mean() if eta is None else eta
    if not eta > 0 or n < 2:
        return K
    n_components = max(n_components, connected_components(K, directed=False)[0])
    g, used = (largest / eta - 1) / 2, _strongest(K, _FIRST_ENTRIES)
    for _ in range(_DOUBLINGS + 1):
        P, g, used = _project(K, eta, g, used)
        if connected_components(P, directed=False)[0] <= n_components:
            break
        eta, g = 2 * eta, g / 2
    return P


def _strongest(K, count):
    """Return a mask of the stored entries of K: those at or above the `count`-th largest of their row or column."""
    rows = np.repeat(np.arange(K.shape[0]), np.diff(K.indptr))
    limit = np.zeros(K.shape[0])
    for i in np.flatnonzero(np.diff(K.indptr) > count):
        limit[i] = np.partition(K.data[K.indptr[i] : K.indptr[i + 1]], -count)[-count]
    return K.data >= np.minimum(limit[rows], limit[K.indices])


def _project(K, eta, g, used):
    """Solve the dual on the stored entries `used`, and add those that are positive in the solution, until none is."""
    rows = np.repeat(np.arange(K.shape[0]), np.diff(K.indptr))
    while True:
        dual = _Dual(rows[used], K.indices[used], K.data[used] / eta, K.shape[0])
        g = minimize(dual, g, jac=True, method="L-BFGS-B", options={"maxcor": 20, "maxiter": 1000, "ftol": 0.0}).x
        pair = g[rows] + g[K.indices]
        missed = ~used & (K.data / eta > np.maximum(pair, 0))
        if not missed.any():
            return dual.matrix(g), g, used
        used = used | missed


class _Dual:
    """The dual function of the projection, with its gradient, in O(stored entries + n log n).

    Outside the sparsity pattern of K an entry is ``max(0, -g_i - g_j)``, where g is f over eta. Sums over these are
    prefix sums of the sorted g, so that no dense n x n matrix is formed.
    """

    def __init__(self, rows, columns, values, n):
        self.rows, self.columns, self.values, self.n = rows, columns, values, n

    def __call__(self, g):
        pair = g[self.rows] + g[self.columns]
        inside, outside = np.maximum(self.values - pair, 0), np.maximum(-pair, 0)
        sums = np.bincount(self.rows, inside - outside, self.n)
        squares = (inside**2).sum() - (outside**2).sum()
        alone = np.maximum(-2 * g, 0)  # the diagonal, which stays empty
        h = np.sort(-g)[::-1]
        first, second = np.r_[0, np.cumsum(h)], np.r_[0, np.cumsum(h**2)]
        m = np.searchsorted(-h, -g, side="left")  # entry (i, j) is positive where h_j > g_i
        sums += first[m] - m * g - alone
        squares += (second[m] - 2 * g * first[m] + m * g**2).sum() - (alone**2).sum()
        return squares / 4 + g.sum(), 1 - sums

    def matrix(self, g):
        """Return the projection that belongs to g."""
        pair = g[self.rows] + g[self.columns]
        inside = np.maximum(self.values - pair, 0)
        extra = [(self.rows, self.columns, inside)]
        order = np.argsort(g)
        count = np.searchsorted(g[order], -g, side="left")
        if count.any():
            i = np.repeat(np.arange(self.n), count)
            j = order[np.arange(len(i)) - np.repeat(np.cumsum(count) - count, count)]
            pattern = sp.csr_array((np.ones(len(self.rows)), (self.rows, self.columns)), shape=(self.n, self.n))
            other = sp.csr_array((-g[i] - g[j], (i, j)), shape=pattern.shape)
            other = sp.coo_array(other - other.multiply(pattern))
            apart = other.row != other.col
            extra.append((other.row[apart], other.col[apart], other.data[apart]))
        i, j, values = (np.concatenate(part) for part in zip(*extra))
        P = sp.csr_array((values, (i, j)), shape=(self.n, self.n))
        P.eliminate_zeros()
        return P
