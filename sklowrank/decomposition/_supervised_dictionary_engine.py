"""What classifier and regressor of supervised dictionary learning share: data in, solver, canonical form, codes."""

from numbers import Integral, Real
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.exceptions import DataDimensionalityWarning
from sklearn.utils import check_array
from sklearn.utils.validation import check_is_fitted

from .._core.compat import Interval, StrOptions, check_same_namespace
from .._core.iterate import drive
from .._core.rows import Rows
from .._core.warn import warn
from .._core.workspace import on_cluster, open_workspace
from .._math.linalg import signs_of_largest
from ._block_descent import Blocks, Signs, codes, descend_by_blocks, fit_weights, lost_share, nonnegative_start
from ._eliminated_codes import descend
from ._lifted import project_and_descend
from ._newton import polish, rebuilt
from ._supervised_dictionary_data import check_covariate_names, csr, load_covariates, scaled
from ._supervised_dictionary_objective import Task, Weights, leading

CONSTRAINTS = {
    "n_components": [Interval(Integral, 1, None, closed="left")],
    "model": [StrOptions({"filter", "feature"})],
    "xi": [Interval(Real, 0, None, closed="left")],
    "C": [Interval(Real, 0, None, closed="neither")],
    "solver": [StrOptions({"auto", "lbfgs", "lpgd", "bcd"})],
    "nonnegative": ["boolean", StrOptions({"components", "codes"})],
    "center": ["boolean", StrOptions({"auto"})],
    "fit_intercept": ["boolean"],
    "covariate_columns": [None, "array-like", slice, callable],
    "init": [StrOptions({"auto", "svd", "nmf"}), "array-like"],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}
_COVARIATE_RIDGE = 0.01  # of covariates, as a share of that of features


class Options(NamedTuple):
    """The estimator's choices, resolved."""

    solver: str
    signs: Signs
    center: bool
    init: Any


# Parameters against one another and against the data


def resolve(estimator, X):
    """Return the :class:`Options` of an estimator; combinations that no solver serves are refused.

    Raises
    ------
    ValueError
        If the solver does not serve the model or the signs, or X has negative entries that `nonnegative` cannot fit.
    """
    signs = Signs(estimator.nonnegative in (True, "components"), estimator.nonnegative in (True, "codes"))
    bound = any(signs) or estimator.model == "feature"
    solver = ("bcd" if bound else "lbfgs") if estimator.solver == "auto" else estimator.solver
    if bound and solver != "bcd":
        what = f"nonnegative={estimator.nonnegative!r}" if any(signs) else "model='feature'"
        raise ValueError(f"solver={solver!r} does not serve {what}. Use solver='bcd' or 'auto'.")
    if solver == "bcd" and on_cluster(X):
        raise ValueError("solver='bcd' keeps codes of all rows, which partitions do not. Use 'lbfgs' or 'lpgd'.")
    center = not any(signs) and not sp.issparse(X) if isinstance(estimator.center, str) else bool(estimator.center)
    if all(signs) and (center or X.min() < 0):
        raise ValueError(
            "nonnegative=True needs X without negative entries and center=False: sums of non-negative parts cannot fit "
            "them. Scale with MinMaxScaler, or free one side by nonnegative='components' or 'codes'."
        )
    init = estimator.init
    if isinstance(init, str) and init == "auto":
        init = "nmf" if signs.W else "svd"
    if signs.W and isinstance(init, str) and init == "svd":
        raise ValueError("init='svd' has negative entries, which nonnegative components may not. Use init='nmf'.")
    return Options(solver, signs, center, init)


def count_components(estimator, shape):
    """Return `n_components`, cut to what rows and columns allow with a warning."""
    n_components, most = estimator.n_components, min(shape)
    if n_components > most:
        warn(
            f"n_components={n_components} is too large for n_samples={shape[0]} and n_features={shape[1]} without "
            f"covariates; {most} were used.",
            DataDimensionalityWarning,
        )
    return min(n_components, most)


# The fit


def learn(
    estimator, X, covariates, targets, loss, *, options, sample_weight, class_factor=None, y_unit=1.0, y_mean=0.0, ws
):
    """Return the task, the steps of its solver, and a function from their states to the fitted attributes.

    `sample_weight` is None or a tensor (n,), `class_factor` a tensor (n,) that multiplies it in the loss alone. Targets
    are in units of `y_unit` from `y_mean`.
    """
    if sample_weight is None:
        sample_weight = torch.ones(X.shape[0], dtype=torch.float64, device=ws.device)
    kept = sample_weight > 0
    if not kept.all() and (sp.issparse(X) or X.kind == "memory"):  # elsewhere they stay, without weight
        X = X[kept.cpu().numpy()] if sp.issparse(X) else Rows(X.take(kept))
        covariates, targets, sample_weight = covariates[kept], targets[kept], sample_weight[kept]
        class_factor = None if class_factor is None else class_factor[kept]
    n_components = count_components(estimator, X.shape)
    keep = options.solver == "bcd"  # which multiplies with all rows at once
    forms = {"center": options.center, "fit_intercept": estimator.fit_intercept, "keep": keep}
    data = scaled(X, covariates, sample_weight, **forms, ws=ws.exact())
    loss_weights = sample_weight / data.total * (1 if class_factor is None else class_factor)
    ridges = loss.ridge * _COVARIATE_RIDGE / (estimator.C * data.total) / data.covariate_scale**2
    if estimator.fit_intercept:
        ridges = torch.cat([ridges.new_zeros(1), ridges])
    ridge = loss.ridge / (estimator.C * data.total) / data.unit / data.unit
    task = Task(data.table, data.Z, targets, loss_weights, loss, float(estimator.xi), ridge, ridges, data.squares)
    W = _start(task, n_components, options, ws)

    def attributes(state):
        (W, B, gamma, *_), error = canonical(task, state, estimator.model, options.signs, ws.generator)
        names = ["components_", "coef_", "covariate_coef_", "intercept_", "mean_"]
        units = y_unit / data.unit
        by_covariate = y_unit * gamma[int(estimator.fit_intercept) :].T / data.covariate_scale
        constant = y_unit * gamma[0] if estimator.fit_intercept else torch.zeros_like(B[0])
        constant = constant - by_covariate @ data.covariate_mean + y_mean
        values = [W.T, units * B.T, by_covariate, constant, data.mean]
        found = {name: ws.store(value.to(ws.dtype)) for name, value in zip(names, values)}
        error = error / data.squares if data.squares else 0.0
        return {
            **found,
            "feature_coef_": ws.store((units * (W @ B).T).to(ws.dtype)),
            "reconstruction_error_": max(0.0, float(error)),
            "_signs": tuple(options.signs),
        }

    if options.solver == "bcd":
        steps = descend_by_blocks(task, W, estimator.model, options.signs)
    else:
        width = targets.shape[1]
        draws = torch.randn(n_components, width, generator=ws.generator, dtype=torch.float64, device="cpu")
        start = Weights(W, 0.01 * draws.to(ws.device), W.new_zeros(len(ridges), width))
        steps = (descend if options.solver == "lbfgs" else project_and_descend)(task, start, ws.generator)
    return task, steps, attributes


def finish(estimator, task, steps, attributes, *, options, X, y, ws):
    """Drive the solver and set the fitted attributes; what has converged is taken to the last digits."""
    run = drive(estimator, steps, attributes=attributes, X=X, y=y)
    state = run.state
    if options.solver == "lbfgs" and run.converged:
        state = polish(task, state, ws.generator, estimator.tol)
    found = attributes(state)
    vars(estimator).pop("covariate_names_in_", None)  # of a former fit
    vars(estimator).update(found, n_iter_=run.n_iter, loss_curve_=run.loss_curve)


def _start(task, n_components, options, ws):
    if isinstance(options.init, str):
        W = leading(task.table, n_components, ws.generator)
        return W if options.init == "svd" else _fitting(nonnegative_start(task.table, W), options)
    W = check_array(options.init, dtype=np.float64, input_name="init").T
    if W.shape != (task.table.shape[1], n_components):
        raise ValueError(f"init has shape {W.T.shape}, but ({n_components}, {task.table.shape[1]}) is needed.")
    if options.signs.W and W.min() < 0:
        raise ValueError("init has negative entries, which nonnegative components may not.")
    return _fitting(torch.from_numpy(np.ascontiguousarray(W)).to(ws.device), options)


def _fitting(W, options):
    if any(options.signs):
        return W / torch.linalg.vector_norm(W, dim=0).clamp(min=torch.finfo(W.dtype).tiny)
    return torch.linalg.qr(W).Q


def canonical(task, state, model, signs, generator):
    """Return the unknowns in a fixed form, and the squared error of rows rebuilt from codes that do not see targets.

    Without signs the dictionary is orthonormal and its columns are the principal axes of its span; else its columns
    have length one. Columns descend by the sum of squares of their codes.
    """
    W, B, gamma = state[:3]
    free = not any(signs)
    if free:
        if model == "filter":
            W, B, gamma = rebuilt(task, Weights(W, B, gamma), generator)
        kept, T = torch.linalg.eigh(W.T @ task.table.gram_times(W))
        W, B = W @ T.flip(1), T.flip(1).T @ B
        if model == "filter":
            flip = signs_of_largest(W.T)
            return Blocks(W * flip, B * flip[:, None], gamma, None, None), task.squares - kept.sum()
    F = task.table.whole().times(W).double()
    H = F if free else codes(F, W, signs.H)
    if not free:
        order = (task.table.weights.double() @ H.square()).argsort(descending=True, stable=True)
        W, B, H, F = W[:, order], B[order], H[:, order], F[:, order]
    if not signs.H:
        flip = signs_of_largest(W.T)
        W, B, H, F = W * flip, B * flip[:, None], H * flip, F * flip
    if model == "feature":
        B, gamma = fit_weights(task, H, B, gamma)
    return Blocks(W, B, gamma, H, F), lost_share(task, W, H, F)


# Answers for new rows


def filtered(model, X, ws):
    """Return the features (n, r) of rows X that the components filter."""
    W, mean = ws.load(model.components_).T, ws.load(model.mean_)
    if sp.issparse(X):
        return csr(X, ws) @ W - mean @ W
    return (X - mean) @ W


def codes_of(model, X, ws):
    """Return the codes (n, r) of rows X."""
    products = filtered(model, X, ws)
    if not any(model._signs):
        return products
    size = products.abs().amax().clamp(min=torch.finfo(products.dtype).tiny)
    H = codes(products / size, ws.load(model.components_).double().T, model._signs[1])
    return H.to(ws.dtype) * size


def rebuild(model, H):
    """Return ``H @ components_ + mean_`` for codes H, in their library."""
    check_is_fitted(model)
    check_same_namespace(H, model, attribute="components_", method="inverse_transform")
    H = check_array(H, dtype="numeric", input_name="codes")
    ws = open_workspace(model.components_, device=model.device)
    r = model.components_.shape[0]
    if H.shape[1] != r:
        raise ValueError(f"codes have {H.shape[1]} columns, but the dictionary has n_components={r}.")
    return ws.store(ws.load(H).to(ws.dtype) @ ws.load(model.components_) + ws.load(model.mean_))


def features_of(model, X, ws):
    """Return the columns of validated rows X that are not covariates, as a tensor or CSR matrix."""
    return load_covariates(X, _places(model, ws), None, ws)[0]


def scores_of(model, X, covariates, ws):
    """Return the scores (n, width) of validated rows X beside covariates, both as the user gave them."""
    check_covariate_names(model, covariates)
    X, covariates = load_covariates(X, _places(model, ws), covariates, ws, model.covariate_coef_.shape[1])
    read = filtered(model, X, ws) if model.model == "filter" else codes_of(model, X, ws)
    linear = covariates @ ws.load(model.covariate_coef_).T + ws.load(model.intercept_)
    return read @ ws.load(model.coef_).T + linear


def _places(model, ws):
    return ws.load(model.covariate_indices_).cpu().numpy()
