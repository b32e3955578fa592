"""Fitted networks adapted to new rows by the diagonals of LDU decompositions of their weights."""

from collections.abc import Callable, Sequence
from numbers import Integral
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import Interval, RealNotInt, StrOptions, _fit_context
from .._nets.recording import layer_type, weight_matrix
from ._adapted_network import WeightUpdate, qualified
from ._adapting import Adapter
from ._fitting import adapt, begin
from ._parameters import ADAPTER_CONSTRAINTS, adapter_texts

_KINDS = ("linear", "conv1d", "conv2d", "conv3d", "embedding")
_LEAST_PIVOT = 1e-6  # of the largest entry of its row of U: about the precision of the weights


@adapter_texts(head="train")
class LDUAdapter(Adapter, CallbackSupportMixin, BaseEstimator):
    """Adapt a fitted network to new rows by one number for each pivot of its weights.

    Each weight is decomposed into a lower triangular, a diagonal and an upper triangular matrix, of which the diagonal
    is trained: some two hundred numbers for a small network. It is for small changes, such as sensors that drift,
    with few rows or many variants to be stored. Where rows look quite different, use :class:`TuckerAdapter`.

    Parameters
    ----------
    <estimator>
    rank : int, float or None, default=None
        Number of pivots that are trained in each layer, the share of them in (0, 1], or None for all.
    diag_init : {"lu", "uniform", "normal", "constant", "ones", "zeros"}, default="lu"
        Start of the diagonal: the pivots; uniform or normal draws with their root mean square as the bound or the
        standard deviation; all at this root mean square; ones; zeros.
    exact_start : bool, default=True
        Whether the training starts from the network whatever `diag_init`: what the diagonal starts with is subtracted.
        Otherwise it starts from weights with another diagonal.
    train_scale : bool, default=True
        Whether a factor of the diagonal is trained, too, one for each layer.
    pivoting : {"row", "complete"}, default="row"
        Whether pivots are the largest of their column, or of all that is left: then the largest come first, and a few
        of them carry most of the weight. For adapting that is no gain.
    bias : bool, default=False
        Whether biases of the layers are trained, too.
    <training>

    Attributes
    ----------
    diagonals_ : dict of arrays
        Diagonals after the training, by the names of the layers.
    scales_ : dict of float
        Their factors, by the names of the layers.
    <attributes>

    See Also
    --------
    TuckerAdapter : Updates of low rank, which can follow larger changes.

    Notes
    -----
    The weight W, a matrix of outputs and inputs, has the decomposition :math:`W = P L D U`, where P permutes rows, L
    and U have unit diagonals and D is diagonal with the pivots d. With r pivots it becomes

    .. math:: W + (P L)_r \\, \\mathrm{diag}(\\sigma z - d) \\, U_r

    and z, which starts at d, and :math:`\\sigma`, which starts at 1, are trained. P, L, D and U follow from W and are
    not stored. Other starts of z with `exact_start` are converted: `diagonals_` belongs to this formula, so adapters of
    one network with the same `pivoting` are exchanged whatever they started with. A pivot that is zero, or below 1e-6
    of its row of U, counts as zero, and its row of U is divided by its largest entry in place of it.

    The decomposition costs :math:`O(m n \\min(m, n))` for each weight of m times n numbers, and so does a step of
    training. With complete pivoting, in an order that no library computes in blocks, it takes longer for wide layers.

    References
    ----------
    Y. Shi, J. Wei, Y. Wu, R. Ran, C. Sun, S. He, Y. Yang. LoLDU: Low-Rank Adaptation via Lower-Diag-Upper
    Decomposition for Parameter-Efficient Fine-Tuning. arXiv 2410.13618, 2024.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklearn.frozen import FrozenEstimator
    >>> from sklowrank.adapt import LDUAdapter
    >>> from sklowrank.neural import NetworkClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> network = NetworkClassifier((32, 32), max_iter=30, learning_rate=1e-2, random_state=0).fit(X, y)
    >>> drifted = X * [0.6, 1.3, 0.7, 1.5]
    >>> adapter = LDUAdapter(FrozenEstimator(network), head="keep", random_state=0).fit(drifted[::3], y[::3])
    >>> network.score(drifted, y) < 0.8, adapter.score(drifted, y) > 0.9
    (True, True)
    >>> adapter.n_trainable_parameters_
    42
    """

    _parameter_constraints = {
        **ADAPTER_CONSTRAINTS,
        "rank": [Interval(Integral, 1, None, closed="left"), Interval(RealNotInt, 0, 1, closed="right"), None],
        "diag_init": [StrOptions({"lu", "uniform", "normal", "constant", "ones", "zeros"})],
        "exact_start": ["boolean"],
        "train_scale": ["boolean"],
        "pivoting": [StrOptions({"row", "complete"})],
        "bias": ["boolean"],
    }

    def __init__(
        self,
        estimator: Any,
        *,
        rank: int | float | None = None,
        diag_init: Literal["lu", "uniform", "normal", "constant", "ones", "zeros"] = "lu",
        exact_start: bool = True,
        train_scale: bool = True,
        pivoting: Literal["row", "complete"] = "row",
        bias: bool = False,
        max_iter: int = 60,
        learning_rate: float = 1e-2,
        batch_size: int = 64,
        weight_decay: float = 0.0,
        validation_fraction: float = 0.0,
        n_iter_no_change: int = 10,
        head: Literal["auto", "keep", "train", "reset"] = "train",
        modules: str | Sequence[str] | None = None,
        exclude: str | Sequence[str] | None = None,
        module_getter: Callable | None = None,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.estimator = estimator
        self.rank = rank
        self.diag_init = diag_init
        self.exact_start = exact_start
        self.train_scale = train_scale
        self.pivoting = pivoting
        self.bias = bias
        self.max_iter = max_iter
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.weight_decay = weight_decay
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.head = head
        self.modules = modules
        self.exclude = exclude
        self.module_getter = module_getter
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y) -> Self:
        """Train the diagonals of the weights of the network on new rows.

        Parameters
        ----------
        X : what the estimator predicts on, of n_samples rows
            The rows.
        y : array-like of shape (n_samples,) or (n_samples, n_targets)
            Their targets.

        Returns
        -------
        self : LDUAdapter
        """
        begun = begin(self, X, y, types=_KINDS)
        ranks = {name: _n_pivots(layer, self.rank) for name, layer in begun.layers.items()}
        updates = {}
        for name, layer in begun.layers.items():
            parts = ldu(weight_matrix(layer), ranks[name], self.pivoting)
            start = diagonal(self.diag_init, parts.pivots, begun.ws.generator)
            subtracted = start if self.exact_start else parts.pivots
            updates[name] = LDUUpdate(parts, start, subtracted, layer, train_scale=self.train_scale)
        recipe = {"pivoting": self.pivoting, "train_scale": self.train_scale}
        shown = {name: (rank,) for name, rank in ranks.items()}
        return adapt(self, begun, updates, ranks=shown, recipe=recipe, biases=self.bias)

    @property
    def diagonals_(self) -> dict[str, np.ndarray]:
        """Diagonals after the training."""
        self._check_fitted("diagonals_")
        return {row["name"]: self.weights_[qualified(row["name"], "z")] for row in self.layer_report_}

    @property
    def scales_(self) -> dict[str, float]:
        """Factors of the diagonals."""
        self._check_fitted("scales_")
        names = [row["name"] for row in self.layer_report_]
        return {name: float(self.weights_.get(qualified(name, "sigma"), 1.0)) for name in names}

    def _update(self, layer, numbers, recipe):
        parts = ldu(weight_matrix(layer), len(numbers["z"]), recipe["pivoting"])
        update = LDUUpdate(parts, numbers["z"], parts.pivots, layer, train_scale=recipe["train_scale"])
        update.load_state_dict(numbers)
        return update


class LDUUpdate(WeightUpdate):
    """``weight + left diag(sigma * z - subtracted) right``."""

    def __init__(
        self, parts: "LDU", start: torch.Tensor, subtracted: torch.Tensor, layer: Any, *, train_scale: bool = True
    ):
        super().__init__()
        like = layer.weight.detach()
        self.z = nn.Parameter(start.detach().to(like).clone())
        sigma = torch.ones((), device=like.device, dtype=like.dtype)
        if train_scale:
            self.sigma = nn.Parameter(sigma)
        else:
            self.register_buffer("sigma", sigma, persistent=False)
        constants = {"left": parts.left, "right": parts.right, "pivots": parts.pivots, "subtracted": subtracted}
        for name, value in constants.items():
            self.register_buffer(name, value.to(like), persistent=False)
        self.transposed = layer_type(layer) == "transposed"

    def forward(self, weight):
        change = (self.left * (self.sigma * self.z - self.subtracted)) @ self.right
        return weight + (change.T if self.transposed else change).reshape(weight.shape)

    def numbers(self):
        """Return z and sigma of the formula in which the pivots are subtracted."""
        found = super().numbers()
        moved = self.pivots - self.subtracted
        if not bool(moved.any()):
            return found
        sigma = self.sigma.detach()
        if "sigma" in found and float(sigma.abs()) < 1e-6:  # cannot be divided by
            return {"z": sigma * found["z"] + moved, "sigma": torch.ones_like(sigma)}
        return {**found, "z": found["z"] + moved / sigma}


# The decomposition


class LDU(NamedTuple):
    """``left diag(pivots) right``, the leading part of a decomposition, in float64 on the CPU."""

    left: torch.Tensor  # (m, r): columns of PL
    pivots: torch.Tensor  # (r,)
    right: torch.Tensor  # (r, n): rows of U, with columns as in the weight


def ldu(weight: torch.Tensor, rank: int, pivoting: str) -> LDU:
    """Return the first `rank` pivots of the LDU decomposition of a matrix (m, n), with their columns and rows.

    Rounding decides nothing: of pivots that are equal up to it the first is taken, and the remainder of a weight when
    its rank is exhausted counts as zero. A pivot that is zero, or far below its row of U, is given as zero, and the
    row divided by its largest entry.
    """
    W = weight.detach().to("cpu", torch.float64)
    noise = float(W.abs().max()) * max(W.shape) * torch.finfo(W.dtype).eps if W.numel() else 0.0
    rows, cols, L, U = _row_pivots(W) if pivoting == "row" else _eliminated(W, rank, noise, complete=True)
    if pivoting == "row" and bool(_is_zero(U, noise).any()):
        rows, cols, L, U = _eliminated(W, min(W.shape), noise, complete=False)
    L, U = L[:, :rank], U[:rank]
    zero, largest = _is_zero(U, noise), U.abs().amax(1)
    pivots = U.diagonal().clone()
    U = U / torch.where(zero, largest, pivots).where(largest > noise, 1.0)[:, None]
    empty = (largest <= noise).nonzero()[:, 0]
    U[empty] = torch.eye(*U.shape, dtype=U.dtype, device="cpu")[empty]
    left, right = torch.empty_like(L), torch.empty_like(U)
    left[rows], right[:, cols] = L, U
    return LDU(left, pivots.where(~zero, 0.0), right)


def _is_zero(U, noise):
    """Return which pivots (r,) of an upper trapezoidal matrix (r, n) count as zero."""
    return U.diagonal().abs() <= (_LEAST_PIVOT * U.abs().amax(1)).clamp(min=noise)


def _row_pivots(W):
    """Return the order of rows and columns, L and U, by the library's own elimination."""
    compact, swaps, _ = torch.linalg.lu_factor_ex(W, check_errors=False)
    rows = list(range(len(W)))
    for k, i in enumerate(swaps.tolist()):
        rows[k], rows[i - 1] = rows[i - 1], rows[k]
    _, L, U = torch.lu_unpack(compact, swaps, unpack_pivots=False)
    return torch.tensor(rows, device="cpu"), torch.arange(W.shape[1], device="cpu"), L, U


def _eliminated(W, rank, noise, *, complete):
    """Return the order of rows and columns, L and U of an elimination step by step, which leaves out zero pivots."""
    A, rows, cols = W.clone(), torch.arange(len(W), device="cpu"), torch.arange(W.shape[1], device="cpu")
    for k in range(rank):
        left = A[k:, k:] if complete else A[k:, k : k + 1]
        i, j = _first_largest(left)
        if abs(float(left[i, j])) > noise:
            _swap(A, rows, k, k + i)
            _swap(A.T, cols, k, k + j)
            A[k + 1 :, k] /= A[k, k].clone()
            A[k + 1 :, k + 1 :].addr_(A[k + 1 :, k], A[k, k + 1 :], alpha=-1)
        else:
            A[k + 1 :, k] = 0
    L = A[:, :rank].tril(-1)
    L.fill_diagonal_(1)
    return rows, cols, L, A[:rank].triu()


def _first_largest(block):
    """Return the place of the largest magnitude; of those that differ by rounding alone the first."""
    sizes = block.abs()
    at = int((sizes >= sizes.max() * (1 - 1e-10)).reshape(-1).to(torch.uint8).argmax())
    return divmod(at, block.shape[1])


def _swap(A, order, a, b):
    if a != b:
        A[[a, b]] = A[[b, a]]
        order[[a, b]] = order[[b, a]]


def diagonal(kind: str, pivots: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Return the start of a diagonal (r,)."""
    size = pivots.square().mean().sqrt()
    draws = torch.empty_like(pivots)
    if kind == "uniform":
        return draws.uniform_(-1, 1, generator=generator) * size
    if kind == "normal":
        return draws.normal_(generator=generator) * size
    return {
        "lu": pivots,
        "constant": size.expand_as(pivots),
        "ones": torch.ones_like(draws),
        "zeros": torch.zeros_like(draws),
    }[kind]


def _n_pivots(layer, rank):
    """Return the number of pivots of a layer that are trained."""
    most = min(weight_matrix(layer).shape)
    if rank is None:
        return most
    return min(most, int(rank)) if isinstance(rank, Integral) else max(1, round(float(rank) * most))
