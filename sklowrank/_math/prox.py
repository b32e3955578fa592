"""Proximal maps: the nearest point to a matrix under a penalty on its entries, rows or singular values."""

import torch


def soft_threshold(A: torch.Tensor, level: float) -> torch.Tensor:
    """Return the minimiser of ``|B - A|² / 2 + level |B|_1``: every entry moved towards zero by `level`."""
    return A - A.clamp(min=-level, max=level)


def row_threshold(A: torch.Tensor, level: float) -> torch.Tensor:
    """Return the minimiser of ``|B - A|² / 2 + level |B|_2,1``: every row shortened by `level`."""
    length = torch.linalg.vector_norm(A, dim=1, keepdim=True)
    return A * (1 - level / length.clamp(min=level)) if level > 0 else A.clone()


def singular_value_threshold(A: torch.Tensor, level: float) -> torch.Tensor:
    """Return the minimiser of ``|B - A|² / 2 + level |B|_*``: every singular value lowered by `level`."""
    U, s, Vh = torch.linalg.svd(A, full_matrices=False)
    return (U * (s - level).clamp(min=0)) @ Vh
