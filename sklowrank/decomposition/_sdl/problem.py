"""Supervised dictionary learning from options and data to a problem, its solver, and the fitted model."""

from functools import partial
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.utils import check_array

from ..._core.rows import MappedRows, Rows, column_ends, map_rows, refuse_kind
from ..._core.warn import warn
from ..._math.linalg import signs_of_largest
from ..._math.sparse import csr_tensor
from .objective import Dense, Loss, Sparse, SparseRows, Table, Task, Weights, dense_rows, leading
from .solver_bcd import (
    Blocks,
    Signs,
    block_descent,
    codes,
    fit_weights,
    nonnegative_start,
    reconstruction_loss,
)
from .solver_lbfgs import lbfgs_and_newton, polish, with_best_dictionary
from .solver_lpgd import projected_gradients

_COPIED_BYTES = 1 << 29  # of rows that are scaled once, and kept; more of them are scaled each time they are read
_COVARIATE_RIDGE = 0.01  # of covariates, as a share of that of features


class DictionaryOptions(NamedTuple):
    """The parameters of an estimator that a fit reads."""

    n_components: int
    model: str
    xi: float
    C: float
    solver: str
    nonnegative: bool | str
    center: bool | str
    fit_intercept: bool
    init: Any
    tol: float

    @property
    def signs(self) -> Signs:
        """Which factors may not be negative."""
        return Signs(self.nonnegative in (True, "components"), self.nonnegative in (True, "codes"))


class Targets(NamedTuple):
    """What is to be predicted, as scores are compared with it."""

    values: torch.Tensor  # (n, width), in units of `unit` from `mean`
    loss: Loss
    factor: torch.Tensor | None = None  # (n,) multiplies the weights of the rows in the loss alone
    mean: float = 0.0
    unit: float = 1.0


class Problem(NamedTuple):
    """What is to be solved, from where, and how its solution gets back to the units of the data."""

    task: Task
    start: torch.Tensor  # (p, r): the first dictionary
    options: DictionaryOptions  # without "auto"
    mean: torch.Tensor  # (p,) of the features
    unit: float
    covariate_mean: torch.Tensor
    covariate_scale: torch.Tensor
    target_mean: float
    target_unit: float
    generator: torch.Generator


class Dictionary(NamedTuple):
    """The fitted model: a dictionary and a linear rule on what it reads of the rows, in units of the data."""

    components: torch.Tensor  # (r, p)
    mean: torch.Tensor  # (p,)
    coef: torch.Tensor  # (width, r)
    covariate_coef: torch.Tensor  # (width, q)
    intercept: torch.Tensor  # (width,)
    reconstruction_error: float
    model: str  # whether the rule reads projections or codes
    orthonormal: bool
    nonnegative_codes: bool


# Options and data to a problem


def dictionary_problem(rows, covariates, targets: Targets, weight, options: DictionaryOptions, ws) -> Problem:
    """Return the problem of feature rows and covariates (n, q), `weight` (n,) of which may be None.

    Raises
    ------
    ValueError
        If the solver does not serve the model, the signs or the rows, X has negative entries that `nonnegative` cannot
        fit, or `init` is no start.
    """
    options = _resolved(options, rows)
    weight = torch.ones(len(rows), dtype=torch.float64, device=ws.device) if weight is None else weight
    rows, covariates, targets, weight = _without_zero_weights(rows, covariates, targets, weight)
    options = options._replace(n_components=_count_components(options.n_components, rows.shape))
    total, exact = float(weight.sum()), ws.exact()
    share = weight / total
    X = scaled_features(rows, share, center=options.center, in_memory=options.solver == "bcd", ws=exact)
    Z, covariate_mean, covariate_scale = _scaled_covariates(covariates.double(), share, options.fit_intercept)
    penalty = targets.loss.ridge / (options.C * total)
    ridges = _COVARIATE_RIDGE * penalty / covariate_scale**2
    if options.fit_intercept:
        ridges = torch.cat([ridges.new_zeros(1), ridges])
    loss_weights = share if targets.factor is None else share * targets.factor
    ridge = penalty / X.unit / X.unit
    task = Task(X.table, Z, targets.values, loss_weights, targets.loss, float(options.xi), ridge, ridges, X.squares)
    scaling = (X.mean, X.unit, covariate_mean, covariate_scale, targets.mean, targets.unit)
    return Problem(task, _start(task, options, ws), options, *scaling, ws.generator)


def _resolved(options, rows):
    """Return the options without "auto"; combinations that no solver serves are refused."""
    signs, solver, init, center = options.signs, options.solver, options.init, options.center
    bound = any(signs) or options.model == "feature"
    if solver == "auto":
        solver = "bcd" if bound else "lbfgs"
    if bound and solver != "bcd":
        what = f"nonnegative={options.nonnegative!r}" if any(signs) else "model='feature'"
        raise ValueError(f"solver={solver!r} does not serve {what}. Use solver='bcd' or 'auto'.")
    if solver == "bcd":
        no_codes = "solver='bcd' keeps codes of all rows, which partitions do not. Use 'lbfgs' or 'lpgd'."
        refuse_kind(rows, "cluster", no_codes)
    if isinstance(center, str):
        center = not any(signs) and rows.kind != "csr"
    if all(signs) and (center or rows.gather(_lowest, size=8 * rows.shape[1], merge=min) < 0):
        raise ValueError(
            "nonnegative=True needs X without negative entries and center=False: sums of non-negative parts cannot fit "
            "them. Scale with MinMaxScaler, or free one side by nonnegative='components' or 'codes'."
        )
    if isinstance(init, str) and init == "auto":
        init = "nmf" if signs.W else "svd"
    if signs.W and isinstance(init, str) and init == "svd":
        raise ValueError("init='svd' has negative entries, which nonnegative components may not. Use init='nmf'.")
    return options._replace(solver=solver, init=init, center=bool(center))


def _lowest(X):
    return float(X.min())


def _without_zero_weights(rows, covariates, targets, weight):
    """Leave out rows without weight, where they are in memory; elsewhere they stay, and count for nothing."""
    if rows.kind not in ("memory", "csr") or bool((weight > 0).all()):
        return rows, covariates, targets, weight
    kept = (weight > 0).nonzero()[:, 0]
    factor = None if targets.factor is None else targets.factor[kept]
    targets = targets._replace(values=targets.values[kept], factor=factor)
    rows = Rows(rows.take(kept if rows.kind == "memory" else kept.cpu().numpy()))
    return rows, covariates[kept], targets, weight[kept]


def _count_components(n_components, shape):
    """Return the number of components, cut with a warning to what rows and columns allow."""
    most = min(shape)
    if n_components > most:
        warn(
            f"n_components={n_components} is too large for n_samples={shape[0]} and n_features={shape[1]} without "
            f"covariates; {most} were used.",
            DataDimensionalityWarning,
        )
    return min(n_components, most)


def _scaled_covariates(Z, share, fit_intercept):
    """Return covariates of variance one behind a column of ones for the intercept, and what was taken off."""
    mean = share @ Z if fit_intercept else torch.zeros_like(Z[0])
    Z = Z - mean
    size = torch.where(Z.abs().amax(0) > 0, Z.abs().amax(0), 1.0)
    scale = (share @ (Z / size).square()).sqrt() * size
    scale = torch.where(scale > 1e-12 * mean.abs(), scale, 1.0)
    Z = Z / scale
    return torch.cat([Z.new_ones(len(Z), 1), Z], 1) if fit_intercept else Z, mean, scale


class ScaledFeatures(NamedTuple):
    """Rows of mean square length one, and the way back to the units of X: ``X = unit * rows + mean``."""

    table: Table
    mean: torch.Tensor  # (p,), zeros without centring
    unit: float
    squares: float  # weighted mean of the squared lengths of the rows: one, or zero where X is constant


def scaled_features(rows, weights, *, center, in_memory, ws) -> ScaledFeatures:
    """Return the features in the precision of `ws`, whatever that of X; `weights` (n,) sum to one.

    With `in_memory` the scaled rows are kept in memory, however large they are.
    """
    if rows.kind == "csr":
        return _scaled_csr(rows.take(slice(None)), weights, center, ws)
    return _scaled_rows(rows, weights, center, in_memory, ws)


def _scaled_rows(rows, v, center, in_memory, ws):
    D = rows.shape[1]
    low, high = column_ends(rows)
    size = float(torch.maximum(low.abs(), high.abs()).amax()) or 1.0
    mean = torch.zeros(D, dtype=torch.float64, device=ws.device)
    if center:
        (mean,) = rows.gather(partial(_mean_sum, size), v, size=24 * D)
        mean = torch.where(low == high, low / size, mean)
    squares = float(rows.gather(partial(_sum_of_squares, size, mean), v, size=24 * D)[0])
    unit = squares**0.5 or 1.0
    scale, bytes_of_rows = partial(_scaled_block, size, mean.to(ws.dtype), unit), ws.dtype.itemsize * D * len(rows)
    if in_memory or (bytes_of_rows <= _COPIED_BYTES and rows.kind != "cluster"):
        blocks = dense_rows(map_rows(rows, scale, size=4 * ws.dtype.itemsize * D))
    else:
        blocks = MappedRows(rows, partial(_dense_block, scale), D)
    return ScaledFeatures(Table(blocks, v.to(ws.dtype)), mean * size, unit * size, float(squares > 0))


def _mean_sum(size, X, v):
    return (v @ (X.double() / size),)


def _sum_of_squares(size, mean, X, v):
    return (v @ (X.double() / size - mean).square().sum(1),)


def _scaled_block(size, mean, unit, X):
    return (X.to(mean.dtype) / size).sub_(mean).div_(unit)


def _dense_block(scale, X):
    return Dense(scale(X))


def _scaled_csr(X, v, center, ws):
    size = float(abs(X.data).max(initial=0.0)) or 1.0
    X = sp.csr_matrix((X.data.astype("float64") / size, X.indices, X.indptr), shape=X.shape)
    mean = ws.load(X.T @ v.cpu().numpy()) if center else torch.zeros(X.shape[1], dtype=ws.dtype, device=ws.device)
    squares = float(X.multiply(X).sum(axis=1).A1 @ v.cpu().numpy()) - float(mean @ mean)
    unit = max(squares, 0.0) ** 0.5 or 1.0
    X.data /= unit
    block = Sparse(_as_tensor(X, ws), _as_tensor(X.T.tocsr(), ws), mean / unit if center else None)
    return ScaledFeatures(Table(SparseRows(block), v.to(ws.dtype)), mean * size, unit * size, float(squares > 0))


def _as_tensor(X, ws):
    """Return a scipy CSR matrix as a sparse tensor."""
    return csr_tensor(ws.load(X.indptr), ws.load(X.indices), ws.load(X.data), X.shape)


def _start(task, options, ws):
    if isinstance(options.init, str):
        W = leading(task.table, options.n_components, ws.generator)
        return W if options.init == "svd" else _admissible(nonnegative_start(task.table, W), options.signs)
    W = check_array(options.init, dtype=np.float64, input_name="init").T
    shape = task.table.shape[1], options.n_components
    if W.shape != shape:
        raise ValueError(f"init has shape {W.T.shape}, but {shape[::-1]} is needed.")
    if options.signs.W and W.min() < 0:
        raise ValueError("init has negative entries, which nonnegative components may not.")
    return _admissible(torch.from_numpy(np.ascontiguousarray(W)).to(ws.device), options.signs)


def _admissible(W, signs):
    """Return a dictionary of unit columns where signs are bound, else of orthonormal ones."""
    if any(signs):
        return W / torch.linalg.vector_norm(W, dim=0).clamp(min=torch.finfo(W.dtype).tiny)
    return torch.linalg.qr(W).Q


# A problem to its solution


def solver_steps(problem: Problem):
    """Return the steps of the solver; their states begin with W, B and gamma."""
    task, W, options = problem.task, problem.start, problem.options
    if options.solver == "bcd":
        return block_descent(task, W, options.model, options.signs)
    width = task.targets.shape[1]
    draws = torch.randn(W.shape[1], width, generator=problem.generator, dtype=torch.float64, device="cpu")
    start = Weights(W, 0.01 * draws.to(W.device), W.new_zeros(len(task.ridges), width))
    solve = lbfgs_and_newton if options.solver == "lbfgs" else projected_gradients
    return solve(task, start, problem.generator)


def refined(problem: Problem, state, converged: bool):
    """Return the solution of "lbfgs" to its last digits, where it has converged; else the state as it is."""
    if problem.options.solver == "lbfgs" and converged:
        return polish(problem.task, state, problem.generator, problem.options.tol)
    return state


# A solution to the model


def fitted_dictionary(problem: Problem, state) -> Dictionary:
    """Return the model of a solver's state, in float64."""
    task, options = problem.task, problem.options
    (W, B, gamma, *_), error = canonical(task, state, options.model, options.signs, problem.generator)
    covariate_coef = problem.target_unit * gamma[int(options.fit_intercept) :].T / problem.covariate_scale
    intercept = problem.target_unit * gamma[0] if options.fit_intercept else torch.zeros_like(B[0])
    return Dictionary(
        components=W.T,
        mean=problem.mean,
        coef=problem.target_unit / problem.unit * B.T,
        covariate_coef=covariate_coef,
        intercept=intercept - covariate_coef @ problem.covariate_mean + problem.target_mean,
        reconstruction_error=max(0.0, float(error / task.squares)) if task.squares else 0.0,
        model=options.model,
        orthonormal=not any(options.signs),
        nonnegative_codes=options.signs.H,
    )


def described(dictionary: Dictionary, dtype: torch.dtype) -> dict[str, Any]:
    """Return the public attributes of a model, in the precision of X."""
    names = ("components", "mean", "coef", "covariate_coef", "intercept")
    found = {f"{name}_": getattr(dictionary, name).to(dtype) for name in names}
    found["feature_coef_"] = (dictionary.coef @ dictionary.components).to(dtype)
    return {**found, "reconstruction_error_": dictionary.reconstruction_error}


def canonical(task, state, model, signs, generator):
    """Return the unknowns in a fixed form, and the squared error of rows rebuilt from codes that do not see targets.

    Without signs the dictionary is orthonormal and its columns are the principal axes of its span; else its columns
    have length one. Columns descend by the sum of squares of their codes.
    """
    W, B, gamma = state[:3]
    free = not any(signs)
    if free:
        if model == "filter":
            W, B, gamma = with_best_dictionary(task, Weights(W, B, gamma), generator)
        kept, T = torch.linalg.eigh(W.T @ task.table.gram_times(W))
        W, B = W @ T.flip(1), T.flip(1).T @ B
        if model == "filter":
            flip = signs_of_largest(W.T)
            return Blocks(W * flip, B * flip[:, None], gamma, None, None), task.squares - kept.sum()
    F = task.table.whole().matmul(W).double()
    H = F if free else codes(F, W, signs.H)
    if not free:
        order = (task.table.weights.double() @ H.square()).argsort(descending=True, stable=True)
        W, B, H, F = W[:, order], B[order], H[:, order], F[:, order]
    if not signs.H:
        flip = signs_of_largest(W.T)
        W, B, H, F = W * flip, B * flip[:, None], H * flip, F * flip
    if model == "feature":
        B, gamma = fit_weights(task, H, B, gamma)
    return Blocks(W, B, gamma, H, F), reconstruction_loss(task, W, H, F)


# The model on new rows


def codes_of(dictionary: Dictionary, X, ws) -> torch.Tensor:
    """Return the codes (n, r) of feature rows X, a tensor or a CSR matrix."""
    products = _projections(dictionary, X, ws)
    if dictionary.orthonormal:
        return products
    size = products.abs().amax().clamp(min=torch.finfo(products.dtype).tiny)
    H = codes(products / size, dictionary.components.double().T, dictionary.nonnegative_codes)
    return H.to(ws.dtype) * size


def scores_of(dictionary: Dictionary, X, covariates, ws) -> torch.Tensor:
    """Return the scores (n, width) of feature rows X, a tensor or a CSR matrix, with covariates (n, q)."""
    features = _projections(dictionary, X, ws) if dictionary.model == "filter" else codes_of(dictionary, X, ws)
    linear = covariates @ dictionary.covariate_coef.T + dictionary.intercept
    return features @ dictionary.coef.T + linear


def _projections(dictionary, X, ws):
    return _centred_products(X, dictionary.mean, dictionary.components.T, ws)


def _centred_products(X, mean, W, ws):
    """Return ``(X - mean) @ W`` for rows X, a tensor or a CSR matrix, which is not made dense."""
    return _as_tensor(X, ws) @ W - mean @ W if sp.issparse(X) else (X - mean) @ W
