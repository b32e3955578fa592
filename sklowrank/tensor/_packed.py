"""Symmetric matrices as their entries on and below the diagonal."""

import torch


def second_moment(mean, covariance):
    """Return E[x x'] (..., R, R)."""
    return covariance + mean[..., :, None] * mean[..., None, :]


def packed(A):
    """Return the entries on and below the diagonal of symmetric matrices (..., R, R)."""
    rows, cols = torch.tril_indices(A.shape[-1], A.shape[-1], device=A.device)
    return A[..., rows, cols]


def unpacked(a, rank):
    """Return symmetric matrices (..., rank, rank) of their packed entries."""
    return a[..., places(rank, a.device)]


def folded_moment(moment, modes):
    """Return a matrix (r1, ..., rK, r1, ..., rK) with the pairs of entries of some modes summed as they are packed.

    The others' pairs come first: products with packed matrices of `modes` are then those with full ones.
    """
    K = moment.dim() // 2
    rank = moment.shape[:K]
    order = [axis for j in range(K) if j not in modes for axis in (j, K + j)]
    moment = moment.permute(*order, *(axis for j in modes for axis in (j, K + j)))
    for j in modes:  # the first pair that is left goes, its packed form comes last
        r = rank[j]
        moment = moment.flatten(len(order), len(order) + 1)
        shape = list(moment.shape)
        del shape[len(order)]
        out = moment.new_zeros(*shape, r * (r + 1) // 2)
        moment = out.index_add_(-1, places(r, moment.device).flatten(), moment.movedim(len(order), -1))
    return moment


def places(rank, device):
    """Return where the entries (rank, rank) of a symmetric matrix are packed."""
    places = torch.zeros(rank, rank, dtype=torch.long, device=device)
    rows, cols = torch.tril_indices(rank, rank, device=device)
    places[rows, cols] = places[cols, rows] = torch.arange(len(rows), device=device)
    return places
