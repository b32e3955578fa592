"""Linear algebra that several methods need, with the seed and the device of the workspace."""

import math
from collections.abc import Callable

import torch


def randomized_svd(
    multiply: Callable[[torch.Tensor], torch.Tensor],
    multiply_transposed: Callable[[torch.Tensor], torch.Tensor],
    start: torch.Tensor,
    *,
    n_components: int,
    n_iter: int = 4,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the leading singular triplets U, s, Vh of a matrix that is known by its products alone.

    Subspace iteration (Halko, Martinsson, Tropp 2011) from `start`, a random tensor of shape (n_columns, width) with
    width >= n_components; the surplus columns buy accuracy. `multiply` maps (n_columns, width) to (n_rows, width),
    `multiply_transposed` the other way.
    """
    Q = torch.linalg.qr(multiply(start)).Q
    for _ in range(n_iter):
        Q = torch.linalg.qr(multiply(torch.linalg.qr(multiply_transposed(Q)).Q)).Q
    V, s, Wh = torch.linalg.svd(multiply_transposed(Q), full_matrices=False)
    k = n_components
    return Q @ Wh.mT[:, :k], s[:k], V.mT[:k]


def power_of_two(*magnitudes) -> float:
    """Return a power of two near the largest of some magnitudes: division by it is exact."""
    largest = max(float(value) for value in magnitudes)
    return math.ldexp(1.0, math.frexp(largest)[1] - 1) if largest > 0 else 1.0


def signs_of_largest(V: torch.Tensor) -> torch.Tensor:
    """Return for each row of V the sign of its entry of largest magnitude, 1 where the row is zero."""
    largest = V.gather(1, V.abs().argmax(1, keepdim=True))[:, 0]
    return torch.where(largest < 0, -1.0, 1.0).to(V.dtype)


def stable_svd(A: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the thin SVD U, s, Vh, in float32 at least; where it fails it is repeated in float64 on the CPU.

    Raises
    ------
    torch.linalg.LinAlgError
        If that fails, too, or where A or the decomposition has values that are not finite.
    """
    single = A.to(torch.promote_types(A.dtype, torch.float32))
    try:
        parts = torch.linalg.svd(single, full_matrices=False)
        if bool(parts[1].isfinite().all()):
            return parts
    except torch.linalg.LinAlgError:
        pass
    parts = torch.linalg.svd(A.to("cpu", torch.float64), full_matrices=False)
    if not bool(parts[1].isfinite().all()):
        raise torch.linalg.LinAlgError("The singular values are not finite.")
    return tuple(part.to(single) for part in parts)


def unit_rows(A: torch.Tensor) -> torch.Tensor:
    """Return rows of length one; rows of zeros, or of rounding alone, become zero, and so do their gradients.

    Such rows have no direction, and their gradients, of the order of 1 / norm, would overflow.
    """
    tiny = torch.finfo(A.dtype).tiny ** 0.25
    return torch.nn.functional.normalize(A.where(A.detach().norm(dim=1, keepdim=True) >= tiny, 0.0), dim=1, eps=tiny)
