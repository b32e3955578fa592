"""Products with the inverse of a damped empirical Fisher matrix, which is never formed."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from .._core.warn import warn

_COLUMNS = 1 << 22  # numbers of a block that is computed with in float64 at once: 32 MiB
_FEW, _SHORT = 1 << 20, 1 << 12  # numbers that are summed in float64, columns that are not
_MOST_RETRIES = 30  # each with ten times the damping


class InverseFisher:
    """Multiply by the inverse of the damped empirical Fisher matrix of m gradients, and compute its diagonal.

    The matrix is ``F = damp I + (1/m) sum_i g_i g_i'``, d by d for gradients of d parameters. Only the gradients and a
    matrix m by m are stored. Use it for second-order steps, for the saliency of weights, for influence of training
    rows, or for the variances of a Laplace approximation. With more gradients than parameters a dense inverse is
    cheaper.

    Parameters
    ----------
    grads : array or tensor of shape (m, d)
        Gradients, one per row, float32 or float64, on any device. They are copied.
    damp : float, default=1e-5
        What is added to the diagonal, above 0. A larger one makes the inverse more like a multiple of the identity.

    Attributes
    ----------
    damp : float
        The damping in use: larger than what was given where rounding made the matrix singular, of which a warning says
        so.
    shape : tuple of two ints
        The shape (d, d) of the matrix.

    See Also
    --------
    MFAC : The optimizer that takes steps with this matrix.
    sklowrank.compress.SecondOrderPruner : Networks that are pruned by this matrix.

    Notes
    -----
    With the gradients as rows of G, by the identity of Woodbury::

        F^-1 x = (x - G' (m damp I + G G')^-1 G x) / damp

    A Cholesky factor L of the inner matrix is kept. The diagonal is ``(1 - ||L^-1 G_j||^2) / damp`` for each column
    G_j. Sums are computed in float64, in blocks of columns; answers come in the precision of the gradients. The start
    takes O(d m^2) time, a product O(d m), the diagonal O(d m^2), an update O(d m + m^3).

    References
    ----------
    E. Frantar, E. Kurtic, D. Alistarh. M-FAC: Efficient Matrix-Free Approximations of Second-Order Information.
    NeurIPS 2021.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.optim import InverseFisher
    >>> grads = np.random.default_rng(0).normal(size=(5, 100))
    >>> inverse = InverseFisher(grads, damp=0.1)
    >>> F = 0.1 * np.eye(100) + grads.T @ grads / 5
    >>> x = np.arange(100.0)
    >>> bool(np.allclose(inverse.mul(x), np.linalg.solve(F, x)))
    True
    >>> bool(np.allclose(inverse.diag(), np.diag(np.linalg.inv(F))))
    True
    """

    damp: float
    shape: tuple[int, int]

    def __init__(self, grads: Any, damp: float = 1e-5):
        self.damp = checked_damp(damp)
        self._numpy = not isinstance(grads, torch.Tensor)
        self._grads = _tensor(grads, "grads").clone()
        if self._grads.ndim != 2 or not len(self._grads):
            raise ValueError(f"grads has the shape {tuple(self._grads.shape)}. Pass a matrix of one gradient per row.")
        self._gram = gram(self._grads)
        if not bool(self._gram.isfinite().all()):
            raise ValueError("grads has NaN or infinite entries, or their squares overflow. Pass finite gradients.")
        self._next = 0  # the row that an update replaces, the oldest one
        self.shape = (self._grads.shape[1],) * 2
        self._factor()

    def mul(self, x: Any) -> Any:
        """Return the product of the inverse with a vector or with the columns of a matrix.

        Parameters
        ----------
        x : array or tensor of shape (d,) or (d, q)
            Real numbers. A tensor is answered by a tensor, anything else by an array.

        Returns
        -------
        product : array or tensor of shape (d,) or (d, q)
        """
        vectors = _tensor(x, "x").to(self._grads)
        if vectors.ndim not in (1, 2) or len(vectors) != self.shape[0]:
            d = self.shape[0]
            raise ValueError(
                f"x has the shape {tuple(vectors.shape)}, the gradients have d={d}: pass ({d},) or ({d}, q)."
            )
        columns = vectors.reshape(len(vectors), -1)
        weights = torch.cholesky_solve(products(self._grads, columns), self._cholesky)
        product = torch.empty_like(columns)
        for part, G in blocks_of_columns(self._grads):
            product[part] = (columns[part].double() - G.T @ weights) / self.damp
        product = product.reshape(vectors.shape)
        return product if isinstance(x, torch.Tensor) else product.cpu().numpy()

    def diag(self) -> Any:
        """Return the diagonal of the inverse.

        Returns
        -------
        diagonal : array or tensor of shape (d,)
            A tensor where the gradients were one.
        """
        diagonal = inverse_diagonal(self._grads, self._cholesky, self.damp)
        return diagonal.cpu().numpy() if self._numpy else diagonal

    def update(self, g: Any) -> "InverseFisher":
        """Let a new gradient take the place of the oldest one.

        Parameters
        ----------
        g : array or tensor of shape (d,)
            The gradient.

        Returns
        -------
        self : InverseFisher
        """
        g = _tensor(g, "g").to(self._grads)
        if g.shape != self._grads.shape[1:]:
            raise ValueError(f"g has the shape {tuple(g.shape)}. Pass a gradient of shape ({self.shape[0]},).")
        row = products(self._grads, g)
        row[self._next] = g.double() @ g.double()
        if not bool(row.isfinite().all()):
            raise ValueError("g has NaN or infinite entries, or their squares overflow. Pass a finite gradient.")
        self._grads[self._next] = g
        self._gram[self._next], self._gram[:, self._next] = row, row
        self._next = (self._next + 1) % len(self._grads)
        self._factor()
        return self

    def _factor(self):
        self._cholesky, self.damp = damped_cholesky(self._gram, len(self._gram), self.damp)


def checked_damp(damp: float) -> float:
    """Return the damping, or raise a ValueError where it is not above 0."""
    if not 0 < damp < np.inf:
        raise ValueError(f"damp={damp!r} has to be a number above 0; 1e-5 is usual.")
    return float(damp)


def _tensor(array, name):
    """Return real floating values as a tensor; integers in float64."""
    found = array.detach() if isinstance(array, torch.Tensor) else torch.from_numpy(np.array(array))
    if found.is_complex() or found.dtype == torch.bool:
        raise ValueError(f"{name} has values of type {found.dtype}. Pass real numbers.")
    return found if found.dtype in (torch.float32, torch.float64) else found.double()


def gram(grads: torch.Tensor) -> torch.Tensor:
    """Return G G' (m, m) of gradients (m, d), summed in float64."""
    total = torch.zeros(len(grads), len(grads), dtype=torch.float64, device=grads.device)
    for _, G in blocks_of_columns(grads):
        total.addmm_(G, G.T)
    return total


def products(grads: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """Return G x (m, ...) of x (d, ...), summed in float64."""
    total = torch.zeros(len(grads), *x.shape[1:], dtype=torch.float64, device=grads.device)
    for part, G in blocks_of_columns(grads):
        total += G @ x[part].double()
    return total


def quick_products(grads: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """Return G g (m,): many columns in the precision of the gradients, of which short sums are added in float64."""
    if grads.numel() <= _FEW:
        return products(grads, g)
    total = torch.zeros(len(grads), dtype=torch.float64, device=grads.device)
    for start in range(0, grads.shape[1], _SHORT):
        part = slice(start, start + _SHORT)
        total += (grads[:, part] @ g[part]).double()
    return total


def inverse_diagonal(grads: torch.Tensor, factor: torch.Tensor, damp: float) -> torch.Tensor:
    """Return the diagonal (d,) of the inverse from gradients (m, d) and the factor of m damp I + G G'."""
    diagonal = grads.new_empty(grads.shape[1])
    for part, G in blocks_of_columns(grads):
        leverage = torch.linalg.solve_triangular(factor, G, upper=False).square().sum(0)
        diagonal[part] = (1 - leverage) / damp
    return diagonal


def damped_cholesky(inner: torch.Tensor, count: float, damp: float) -> tuple[torch.Tensor, float]:
    """Return the Cholesky factors of count damp I + G G' (..., m, m) in float64, and the damping that they took.

    Where rounding has made a matrix indefinite, the damping is multiplied by ten until it is not, with a warning.
    """
    needed = damp
    for _ in range(_MOST_RETRIES):
        damped = inner.clone()
        damped.diagonal(dim1=-2, dim2=-1).add_(count * needed)
        factor, info = torch.linalg.cholesky_ex(damped)
        if not bool(info.any()):
            if needed > damp:
                warn(
                    f"damp={damp:g} is too small beside these gradients, so that rounding makes the Fisher matrix "
                    f"singular; {needed:g} was used. Raise damp, or scale the loss.",
                    RuntimeWarning,
                )
            return factor, needed
        needed *= 10
    raise ValueError(f"No damping up to {needed:g} makes the Fisher matrix regular: the gradients are not finite.")


def blocks_of_columns(grads: torch.Tensor) -> Iterator[tuple[slice, torch.Tensor]]:
    """Yield slices of columns and these columns in float64."""
    step = max(1, _COLUMNS // len(grads))
    for start in range(0, grads.shape[1], step):
        part = slice(start, start + step)
        yield part, grads[:, part].double()
