"""Random maps from few numbers into all weights of a network, drawn again from a seed."""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import nn

from .._math.sparse import csr_tensor

KINDS = ("dense", "sparse", "fastfood")
_MOST_ENTRIES = 2e7  # of a dense projection that "auto" chooses: 80 MB
_PASSES_AT_ONCE = 4  # of the Walsh-Hadamard transform: 16 numbers by a product with their matrix


class Projection(NamedTuple):
    """A linear map P from d to D numbers, with columns of unit length."""

    forward: Callable[[torch.Tensor], torch.Tensor]  # (d,) to (D,)
    adjoint: Callable[[torch.Tensor], torch.Tensor]  # (D,) to (d,), by the transpose


def chosen(projection: str, n_full: int, dim: int) -> str:
    """Return the kind of projection that "auto" stands for."""
    if projection != "auto":
        return projection
    return "dense" if n_full * dim <= _MOST_ENTRIES else "fastfood"


def random_projection(
    kind: str,
    n_full: int,
    dim: int,
    seed: int,
    *,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> Projection:
    """Return the projection of a kind that a seed draws: on the CPU, so that it is the same on every device."""
    make = {"dense": dense_projection, "sparse": sparse_projection, "fastfood": fastfood_projection}[kind]
    return make(n_full, dim, torch.Generator("cpu").manual_seed(seed), device, dtype)


def dense_projection(n_full, dim, generator, device, dtype) -> Projection:
    """Return a projection of normal numbers: O(D d) memory and time."""
    P = torch.randn(n_full, dim, generator=generator, device="cpu", dtype=torch.float32)
    P = P.to(device, dtype)
    P /= torch.linalg.vector_norm(P, dim=0)
    return Projection(partial(torch.mv, P), partial(torch.mv, P.T))


def sparse_projection(n_full, dim, generator, device, dtype) -> Projection:
    """Return a projection of entries -1, 0 and 1, each of which is there with probability D^(-1/2): O(d D^(1/2))."""
    columns, rows = _random_cells(n_full, dim, n_full**-0.5, generator)
    counts = torch.bincount(columns, minlength=dim)
    signs = 2.0 * torch.randint(2, (len(rows),), generator=generator, device="cpu", dtype=torch.int64) - 1
    values = (signs.double() / counts[columns].sqrt()).to(device, dtype)
    adjoint = csr_tensor(_starts(counts).to(device), rows.to(device), values, (dim, n_full))
    order = rows.argsort(stable=True)
    per_row = torch.bincount(rows, minlength=n_full)
    order, starts = order.to(device), _starts(per_row).to(device)
    forward = csr_tensor(starts, columns.to(device)[order], values[order], (n_full, dim))
    return Projection(partial(torch.mv, forward), partial(torch.mv, adjoint))


def _random_cells(n_full, dim, share, generator):
    """Draw cells of a (dim, n_full) matrix independently, by the gaps between them; each of its rows has one."""
    options = {"generator": generator, "device": "cpu", "dtype": torch.float64}
    last, cells = -1, []
    log_rest = torch.log1p(torch.tensor(-share, device="cpu", dtype=torch.float64)) if share < 1 else None
    while last < n_full * dim - 1:
        count = int(1.1 * share * (n_full * dim - 1 - last)) + 100
        gaps = torch.ones(count, device="cpu", dtype=torch.float64)
        if log_rest is not None:
            gaps += (torch.log1p(-torch.rand(count, **options)) / log_rest).floor()
        cells.append(last + gaps.cumsum(0).long())
        last = int(cells[-1][-1])
    lone = torch.randint(n_full, (dim,), generator=generator, device="cpu", dtype=torch.int64)
    flat = torch.cat(cells)
    flat = flat[flat < n_full * dim]
    empty = (torch.bincount(flat // n_full, minlength=dim) == 0).nonzero()[:, 0]
    flat = torch.cat([flat, empty * n_full + lone[empty]]).sort().values
    return flat // n_full, flat % n_full


def _starts(counts):
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def fastfood_projection(n_full, dim, generator, device, dtype) -> Projection:
    """Return products of signs, a permutation, normal numbers and Walsh-Hadamard transforms: O(L) memory, L < 2 D.

    The columns have unit length in expectation.
    """
    length = 1 << max(0, n_full - 1).bit_length()
    B = 2.0 * torch.randint(2, (length,), generator=generator, device="cpu", dtype=torch.int64) - 1
    order = torch.randperm(length, generator=generator, device="cpu", dtype=torch.int64)
    G = torch.randn(length, generator=generator, device="cpu", dtype=torch.float32)
    G = G / (n_full**0.5 * torch.linalg.vector_norm(G.double()))  # (L sum G^2)^(1/2) (D / L)^(1/2), but for rounding
    B, G, order = B.to(device, dtype), G.to(device, dtype), order.to(device)
    inverse = torch.empty_like(order)
    inverse[order] = torch.arange(length, device=device, dtype=order.dtype)
    width = 1 << max(0, dim - 1).bit_length()
    B = nn.functional.pad(B[:dim], (0, width - dim))  # the other signs meet zeros
    return Projection(
        partial(_fast_forward, B, order % width, G, n_full, dim), partial(_fast_adjoint, B, inverse, G, dim)
    )


def _fast_forward(B, order, G, n_full, dim, theta):
    # The transform of few numbers and many zeros repeats that of the few.
    few = walsh_hadamard(nn.functional.pad(theta, (0, len(B) - dim)) * B)
    return walsh_hadamard(few[order] * G)[:n_full]


def _fast_adjoint(B, inverse, G, dim, g):
    padded = nn.functional.pad(g, (0, len(G) - len(g)))
    parts = (walsh_hadamard(padded) * G)[inverse].view(-1, len(B))
    return (walsh_hadamard(parts.sum(0)) * B)[:dim]


def walsh_hadamard(x: torch.Tensor) -> torch.Tensor:
    """Return the Walsh-Hadamard transform of L numbers, a power of two, unnormalised: log2 L passes of sums.

    Passes are taken four at a time.
    """
    length, stride = len(x), 1
    while stride < length:
        size = min(2**_PASSES_AT_ONCE, length // stride)
        H = _hadamard(size, x)
        x = (x.reshape(-1, size) @ H if stride == 1 else H @ x.reshape(-1, size, stride)).reshape(length)
        stride *= size
    return x


def _hadamard(size, like):
    """Return the Hadamard matrix of a power of two."""
    H = like.new_ones(1, 1)
    while len(H) < size:
        H = torch.cat([torch.cat([H, H], 1), torch.cat([H, -H], 1)])
    return H
