"""Sparse subspace clustering by orthogonal matching pursuit."""

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.utils import check_random_state

from .._core.graphs import csr_from
from ._gram import norms_of, products, residuals, small_grams, take, walk

_DEPENDENT = 1e-10  # squared distance from the span of the atoms chosen, below which another atom adds nothing
_HALVES = 20


def matching_pursuit_codes(X, n_nonzero, tol, *, random_state=None, targets=None, batch_size="auto"):
    """Return the CSR codes by orthogonal matching pursuit of the rows of X over the others, or of `targets` over X.

    At most `n_nonzero` atoms a row, fewer where the squared residual falls below `tol` times the squared length. In
    D <= n_nonzero dimensions any D rows code any row exactly and say nothing about it: there at most ``max(1, D // 2)``
    atoms, and the mean of the codes over 20 random halves of X.
    """
    n, D = X.shape
    Y = X if targets is None else targets
    own = np.arange(n) if targets is None else np.full(Y.shape[0], -1)
    if n_nonzero < D or n < 4:
        return _pursue(Y, X, own, min(n_nonzero, n), tol, batch_size)
    rng = check_random_state(random_state)
    total = sp.csr_array((Y.shape[0], n))
    for _ in range(_HALVES):
        half = np.sort(rng.permutation(n)[: n // 2])
        place = np.full(n + 1, -1)  # the last is the place of a row that is no atom
        place[half] = np.arange(len(half))
        codes = _pursue(Y, X[half], place[own], max(1, D // 2), tol, batch_size)
        total = total + sp.csr_array((codes.data, half[codes.indices], codes.indptr), shape=total.shape)
    return total / _HALVES


def _pursue(Y, X, own, n_nonzero, tol, batch_size):
    """Return the codes (CSR) of the rows of Y over the rows of X, without row ``own[i]``, where that is not negative."""

    def code(rows):
        return _pursue_block(Y[rows], X, own[rows], n_nonzero, tol)

    columns, values = (torch.cat(part) for part in zip(*walk(code, Y, X.shape[0], batch_size)))
    return csr_from(columns, values, X.shape[0])


def _pursue_block(Y, X, own, n_nonzero, tol):
    """Return atoms (b, n_nonzero) and coefficients, 0 for those not needed, of one block of rows.

    The normal equations of the atoms chosen are solved by a Cholesky factor that grows by a row with each atom.
    """
    first, enough = products(Y, X), tol * norms_of(Y).square()
    b, device = len(first), first.device
    S = torch.zeros(b, n_nonzero, dtype=torch.int64, device=device)
    codes, rhs, L = (first.new_zeros(b, n_nonzero, *more) for more in ((), (), (n_nonzero,)))
    own, live, corr = torch.from_numpy(own).to(device), torch.arange(b, device=device), first.abs()
    for t in range(n_nonzero):
        barred = torch.cat([own[live, None], S[live, :t]], 1)
        best, j = _mask(corr, barred).max(1)
        S[live, t] = j
        G = small_grams(X, S[live, : t + 1], None)
        w = torch.linalg.solve_triangular(L[live, :t, :t], G[:, :t, t:], upper=False)[:, :, 0]
        pivot = G[:, t, t] - w.square().sum(1)
        fine = (best > 0) & (pivot > _DEPENDENT * G[:, t, t])
        live = live[fine]
        L[live, t, :t], L[live, t, t] = w[fine], pivot[fine].sqrt()
        rhs[live, t] = first[live, S[live, t]]
        codes[live, : t + 1] = torch.cholesky_solve(rhs[live, : t + 1, None], L[live, : t + 1, : t + 1])[:, :, 0]
        if t + 1 == n_nonzero or not len(live):
            break
        R = residuals(take(Y, live), X, S[live, : t + 1], codes[live, : t + 1])
        going = (norms_of(R).square() > enough[live]).nonzero()[:, 0]
        live = live[going]
        if not len(live):
            break
        corr = products(take(R, going), X).abs_()
    return S, codes


def _mask(corr, barred):
    """Write -1 in each row at the columns `barred`, where these are not negative."""
    row, k = (barred >= 0).nonzero(as_tuple=True)
    corr[row, barred[row, k]] = -1.0
    return corr
