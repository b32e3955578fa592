"""Sparse matrices as torch holds them."""

import functools
import warnings

import torch


def csr_tensor(indptr: torch.Tensor, indices: torch.Tensor, values: torch.Tensor, shape) -> torch.Tensor:
    """Return the sparse CSR tensor of these parts, on the device and in the precision of `values`."""
    _meet_csr()
    return torch.sparse_csr_tensor(
        indptr, indices, values, size=tuple(shape), dtype=values.dtype, device=values.device, check_invariants=False
    )


@functools.cache
def _meet_csr() -> None:
    """Let torch say once, unheard, that its CSR tensors are in beta: it says so at the first one of a process only."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        index = torch.tensor([0, 0], device="cpu")
        torch.sparse_csr_tensor(
            index, index[:0], index[:0].double(), size=(1, 1), device="cpu", dtype=torch.float64, check_invariants=False
        )
