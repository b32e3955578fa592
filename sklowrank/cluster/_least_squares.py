"""Least squares regression subspace clustering: dense codes in closed form."""

import torch


def least_squares_codes(X, alpha, zero_diagonal):
    """Return the codes C (n, n) that minimise |X - C X|² + alpha |C|², with a zero diagonal where that is asked for.

    With ``B = (X X' + alpha I)^-1`` they are ``-B_ij / B_ii``, and ``I - alpha B`` without the constraint; where n > D
    the inverse is that of a D x D matrix.
    """
    n, D = X.shape
    if n > D:
        Z = torch.linalg.solve_triangular(_cholesky(X.T @ X, alpha), X.T, upper=False)
        C = Z.T @ Z
        left = 1 - C.diagonal()
    else:
        C = torch.cholesky_inverse(_cholesky(X @ X.T, alpha)).mul_(-alpha)
        left = -C.diagonal()
        C = C + torch.eye(n, dtype=C.dtype, device=C.device)
    if not zero_diagonal:
        return C
    C = C / left.clamp(min=torch.finfo(C.dtype).tiny)[:, None]
    C.diagonal().zero_()
    return C


def _cholesky(S, alpha):
    """Return the Cholesky factor of S + alpha I, with at least as much added as rounding takes away."""
    least = torch.finfo(S.dtype).eps * len(S) * S.diagonal().max()
    return torch.linalg.cholesky(S + least.clamp(min=alpha) * torch.eye(len(S), dtype=S.dtype, device=S.device))
