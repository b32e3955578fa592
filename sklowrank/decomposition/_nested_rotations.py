"""Orthogonal matrices of which each prefix of columns counts: eigenvectors, splices, and the order of columns.

Features come in groups of equal size, each with its own orthogonal matrix; rotations have the shape (groups, k, k), of
which columns are directions.
"""

import math
from collections.abc import Callable

import torch

from .._math.linalg import signs_of_largest

_NULL = 1e-10  # relative size of eigenvalues that count as zero


def grouped(X: torch.Tensor, n_groups: int) -> torch.Tensor:
    """Return features (..., d) as groups (..., groups, k)."""
    return X.unflatten(-1, (n_groups, -1))


def turned(Z: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
    """Return the coordinates (..., groups, k) of centred rows by the columns of a rotation."""
    return torch.einsum("...gi,gij->...gj", Z, U)


def turned_back(coordinates: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
    """Return centred rows (..., groups, k) of the coordinates by the first columns of a rotation."""
    return torch.einsum("...gj,gij->...gi", coordinates, U[:, :, : coordinates.shape[-1]])


def masks_of(widths: torch.Tensor, k: int) -> torch.Tensor:
    """Return which of the k columns of each group are among its first ones, by widths (...)."""
    return torch.arange(k, device=widths.device) < widths[..., None]


def principal(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the eigenvectors of `first` (k, k), descending; those of its null space are the ones of `second` there."""
    values, vectors = _eigen(first)
    null = values <= _NULL * values[0].clamp(min=torch.finfo(values.dtype).tiny)
    if not bool(null.any()):
        return vectors
    N = vectors[:, null]
    return torch.cat([vectors[:, ~null], N @ _eigen(N.T @ second @ N)[1]], 1)


def _eigen(S):
    """Return eigenvalues, descending, and eigenvectors of a symmetric matrix of any scale."""
    unit = S.abs().amax().clamp(min=torch.finfo(S.dtype).tiny) if S.numel() else 1.0
    values, vectors = torch.linalg.eigh((S + S.T) / (2 * unit))
    return values.flip(0) * unit, vectors.flip(1)


def principal_rotation(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return :func:`principal` of each group."""
    return torch.stack([principal(*pair) for pair in zip(first, second)])


def explained(blocks: torch.Tensor, U: torch.Tensor) -> torch.Tensor:
    """Return the second moments (groups, k) along the columns of a rotation."""
    return torch.einsum("gik,gij,gjk->gk", U, blocks, U)


def splice(U, first, second, width):
    """Return the first columns of a matrix, and the directions of others in the space that they leave."""
    rest = U[:, width:]
    return torch.cat([U[:, :width], rest @ principal(rest.T @ first @ rest, rest.T @ second @ rest)], 1)


def sorted_within(U, widths, first, second):
    """Return a rotation with the same subspaces at some widths, columns between them sorted by what outputs feel."""
    parts = []
    for a, b in zip([0, *widths], widths):
        V = U[:, :, a:b]
        parts.append(V @ principal_rotation(V.mT @ first @ V, V.mT @ second @ V))
    return torch.cat(parts, 2)


# The order of columns


def uniform_order(n_groups: int, k: int) -> list[tuple[int, int]]:
    """Return (group, column) round robin."""
    return [(group, column) for column in range(k) for group in range(n_groups)]


def descending_order(values: torch.Tensor) -> list[tuple[int, int]]:
    """Return (group, column) by descending values (groups, k), which descend within groups."""
    k = values.shape[1]
    order = torch.argsort(values.flatten(), descending=True, stable=True).tolist()
    columns = [0] * len(values)
    found = []
    for at in order:  # rounding may order equal values otherwise
        group = at // k
        found.append((group, columns[group]))
        columns[group] += 1
    return found


def greedy_order(
    loss: Callable[[torch.Tensor], torch.Tensor], n_groups: int, widths: list[int]
) -> list[tuple[int, int]]:
    """Return (group, column) in the reverse of the order in which columns are best removed.

    `loss` gives the losses (m,) of widths of the groups (m, n_groups). Starting from all columns, the group whose last
    columns cost least per column loses those above the next lower width. Costs are computed again where they look
    smallest only; of many groups several lose columns at once.
    """
    steps = [0, *widths]
    levels = torch.full((n_groups,), len(widths), dtype=torch.int64, device="cpu")
    table = torch.tensor(steps, device="cpu")
    at_once = max(1, n_groups // 64)
    costs = torch.full((n_groups,), -math.inf, dtype=torch.float64, device="cpu")  # not known
    removed: list[tuple[int, int]] = []
    base = 0.0
    while bool((levels > 0).any()):
        fresh: set[int] = set()
        while True:
            costs[levels == 0] = math.inf
            lowest = costs.argsort(stable=True)[:at_once].tolist()
            stale = [g for g in lowest if g not in fresh and levels[g] > 0]
            if bool(costs.eq(-math.inf).any()):
                stale = costs.eq(-math.inf).nonzero()[:, 0].tolist()
            if not stale:
                break
            trial = levels.repeat(len(stale), 1)
            trial[range(len(stale)), stale] -= 1
            found = loss(table[trial]).double().cpu()
            saved = torch.tensor([steps[levels[g]] - steps[levels[g] - 1] for g in stale], device="cpu")
            costs[stale] = (found - base) / saved
            fresh.update(stale)
        for g in [g for g in lowest if levels[g] > 0]:
            high, low = steps[levels[g]], steps[levels[g] - 1]
            removed += [(g, column) for column in range(high - 1, low - 1, -1)]
            levels[g] -= 1
        base = float(loss(table[levels][None])[0])
    return removed[::-1]


def flat_components(U: torch.Tensor, order: list[tuple[int, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the rows (d, d) of a projection in an order, largest entries positive, and the group of each."""
    n_groups, k, _ = U.shape
    groups, columns = (torch.tensor(part, device=U.device) for part in zip(*order))
    rows = U.new_zeros(len(order), n_groups, k)
    rows[torch.arange(len(order), device=U.device), groups] = U.mT[groups, columns]
    rows = rows.flatten(1)
    return rows * signs_of_largest(rows)[:, None], groups


def rotation_of(components: torch.Tensor, groups: torch.Tensor, n_groups: int) -> torch.Tensor:
    """Return the rotation (groups, k, k) of flat components."""
    blocks = grouped(components, n_groups)
    return torch.stack([blocks[groups == g, g].T for g in range(n_groups)])
