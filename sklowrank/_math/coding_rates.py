"""How many bits rows take up to a given precision: coding rates, of all rows and by weighted clusters."""

import math

import torch
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from .._core.blocks import in_blocks, rows_per_block


def coding_rate(Z: torch.Tensor, precision: float) -> torch.Tensor:
    """Return ``1/2 log det(I + d / (n precision) Z'Z)`` of rows Z (n, d), in nats."""
    n, d = Z.shape
    return _half_log_det(d / (n * precision) * (Z.T @ Z))


def clustered_rate(Z: torch.Tensor, weights: torch.Tensor, shares: torch.Tensor, precision: float) -> torch.Tensor:
    """Return ``sum_j shares_j / 2 log det(I + d / precision Z' diag(weights_j) Z)``, in nats, differentiable.

    Each column of `weights` (n, m) sums to 1: it says which rows make cluster j, which has the share `shares[j]` of the
    rows. With the shares 1/n and a doubly stochastic matrix it is the rate of the rows given their membership.
    """
    return _ClusteredRate.apply(Z, weights, shares, precision)


def rates_of_membership(Z: torch.Tensor, G: torch.Tensor, precision: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the coding rate of rows Z (n, d), and their rate given a doubly stochastic membership G (n, n)."""
    shares = torch.full((len(Z),), 1 / len(Z), dtype=Z.dtype, device=Z.device)
    return coding_rate(Z, precision), clustered_rate(Z, G, shares, precision)


def coding_length(Z: torch.Tensor, labels: torch.Tensor, n_clusters: int, precision: float) -> float:
    """Return the nats that rows Z (n, d) and their labels take, when each cluster is coded by itself."""
    n, d = Z.shape
    total = 0.0
    for k in range(n_clusters):
        rows = Z[labels == k]
        if len(rows):
            rate = _half_log_det(d / (len(rows) * precision) * (rows.T @ rows))
            total += float((len(rows) + d) * rate) + len(rows) * math.log(n / len(rows))
    return total


def _half_log_det(A):
    """Return half of log det(I + A) of a positive semidefinite matrix."""
    return torch.linalg.cholesky(_plus_identity(A)).diagonal().log().sum()


def _plus_identity(A):
    return A + torch.eye(A.shape[-1], dtype=A.dtype, device=A.device)


class _ClusteredRate(Function):
    """The rate and, at the same price, its gradients: the factors of all clusters are never kept.

    With ``B_j = (I + a Z' diag(w_j) Z)^-1`` the derivatives of ``1/2 log det`` are ``a/2 z_i' B_j z_i`` for the weight
    of row i, and ``a sum_j w_ij B_j z_i`` for the row. Symmetric matrices are handled as their upper triangles, laid
    out as rows, so that all sums over rows and clusters are products of matrices.
    """

    @staticmethod
    def forward(ctx, Z, weights, shares, precision):
        n, d = Z.shape
        i, j = torch.triu_indices(d, d, device=Z.device)
        a = d / precision
        outer = Z[:, i] * Z[:, j]
        doubled = outer * torch.where(i == j, 1.0, 2.0).to(Z.dtype)

        def of_clusters(some):
            upper = weights[:, some].T @ outer
            A = Z.new_zeros(len(upper), d, d)
            A[:, j, i] = upper  # the lower triangle is all that Cholesky reads
            factor = torch.linalg.cholesky(_plus_identity(a * A))
            inverse = torch.cholesky_inverse(factor)[:, i, j]
            rates = factor.diagonal(dim1=1, dim2=2).log().sum(1)
            for_weights = (a / 2) * shares[some] * (doubled @ inverse.T)
            return rates, for_weights, (weights[:, some] * shares[some]) @ inverse

        size = 4 * d * d * Z.element_size()
        m = weights.shape[1]
        blocks = list(in_blocks(of_clusters, m, rows_per_block("auto", m, size), bytes_per_row=size))
        rates, for_weights = torch.cat([b[0] for b in blocks]), torch.cat([b[1] for b in blocks], dim=1)
        mixed = Z.new_zeros(n, d, d)
        mixed[:, i, j] = mixed[:, j, i] = a * sum(b[2] for b in blocks)
        for_rows = (mixed @ Z[:, :, None])[:, :, 0]
        ctx.save_for_backward(for_rows, for_weights, rates)
        return shares @ rates

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        for_rows, for_weights, rates = ctx.saved_tensors
        return grad * for_rows, grad * for_weights, grad * rates, None
