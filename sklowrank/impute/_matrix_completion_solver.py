"""The one engine of the two matrix completion estimators: from their options to the sweeps of a solver."""

from numbers import Integral, Real

import torch
from sklearn.exceptions import DataDimensionalityWarning

from .._core.compat import Interval, StrOptions
from .._core.iterate import Step
from .._core.warn import warn
from ._alternating_least_squares import penalised, penalised_start
from ._row_equations import Model, factors_of, widened
from ._variational_solver import VariationalOptions, variational

CONSTRAINTS = {  # of the parameters that both estimators have
    "n_components": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "inference": [StrOptions({"variational", "map"})],
    "alpha": [Interval(Real, 0, None, closed="left")],
    "reg_scaling": [StrOptions({"none", "count"})],
    "solver": [StrOptions({"auto", "cholesky", "cg"})],
    "cg_steps": [Interval(Integral, 1, None, closed="left")],
    "fit_intercepts": ["boolean"],
    "nonnegative": ["boolean"],
    "clip": [StrOptions({"observed"}), tuple, None],
    "init": [StrOptions({"svd", "random"})],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"auto"})],
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}
_MOST_CHOLESKY_COMPONENTS = 16  # measured: above it sums over cells cost more than a few conjugate-gradient steps


def check_options(estimator):
    """Refuse options that exclude each other."""
    name = type(estimator).__name__
    if estimator.nonnegative and estimator.inference != "map":
        raise ValueError(f"{name}(nonnegative=True) needs inference='map': a normal posterior is never non-negative.")
    if estimator.nonnegative and estimator.solver == "cg":
        raise ValueError(f"{name}(nonnegative=True) is solved by coordinate descent. Use solver='auto', not 'cg'.")


def automatic_components(shape):
    """What "auto" means for a matrix of this shape."""
    return max(1, min(20, *(size - 1 for size in shape)))


def count_components(estimator, shape):
    """Resolve `n_components` for a matrix of this shape; an int that is too large is cut with a warning."""
    n_components, most = estimator.n_components, min(shape)
    if n_components == "auto":
        return automatic_components(shape)
    if n_components > most:
        warn(
            f"n_components={n_components} is too large for X with n_samples={shape[0]}, n_features={shape[1]}; "
            f"{most} were used.",
            DataDimensionalityWarning,
        )
    return min(n_components, most)


def learns_offsets(estimator):
    """True where rows and columns get an offset, and columns are centred."""
    return bool(estimator.fit_intercepts and not estimator.nonnegative)


def precise(estimator, ws):
    """Return the workspace of a fit: posteriors and noise depend on differences that float32 does not keep."""
    return ws.exact() if estimator.inference == "variational" else ws


def sweeps(estimator, cells, n_components, *, unit, ws, sample=None, offset_variance=0.0):
    """Yield the model of the cells, whose values are in multiples of `unit`, after each sweep of the chosen solver.

    On the cells of `sample` the number of components is found, on all cells where it is None. `offset_variance` is the
    least prior variance of the columns' offsets.
    """
    offsets = learns_offsets(estimator)
    if not cells.column_counts.sum() > 0:
        return iter([Step(_nothing_observed(cells.shape[1], offsets, ws), gap=0.0)])
    if estimator.inference == "variational":
        parsimonious = estimator.n_components == "auto"
        options = VariationalOptions(n_components, parsimonious, offsets, offset_variance, estimator.batch_size)
        return variational(cells, cells if sample is None else sample, options, ws)
    solver = estimator.solver
    if solver == "auto":
        few = n_components <= _MOST_CHOLESKY_COMPONENTS
        solver = "cholesky" if few or estimator.nonnegative or cells.kind == "cluster" else "cg"
    elif solver == "cg" and cells.kind == "cluster":
        raise ValueError("solver='cg' multiplies with all cells at once. Use 'cholesky' or 'auto' with partitions.")
    alpha = max(estimator.alpha, 1e-10)  # at 0 a row with too few cells takes the solution of least norm
    start = penalised_start(
        cells,
        n_components,
        alpha=(alpha / unit, alpha),  # values divided by the unit: factors by its root, offsets by the unit itself
        by_count=estimator.reg_scaling == "count",
        offsets=offsets,
        nonnegative=estimator.nonnegative,
        iterative=solver == "cg",
        init=estimator.init,
        ws=ws,
    )
    return penalised(cells, start, cg_steps=estimator.cg_steps, batch_size=estimator.batch_size)


def _nothing_observed(n_columns, offsets, ws):
    """A model of one dead component, for tables in which no column varies."""
    one = torch.ones(1 + offsets, dtype=ws.dtype, device=ws.device)
    mean = torch.zeros(n_columns, 1 + offsets, dtype=ws.dtype, device=ws.device)
    return Model(mean, one.diag().expand(n_columns, -1, -1), torch.ones_like(mean[:, 0]), one, one, offsets)


def describe(model, rows, unit, n_components, ws):
    """Return the fitted attributes that both estimators have, from a final model and the means of all rows.

    `unit` turns the model's values into those of the cells; it goes to the columns' side. Components that were switched
    off are zero.
    """
    u, v = factors_of(rows, model), factors_of(model.mean, model)
    if model.cov is None:
        variance = (u**2).mean(0) * (v**2).mean(0)
    else:
        variance = 1 / (model.row_ridge * model.column_ridge)[: v.shape[1]]
    variance = widened(variance[None], n_components)[0].double() * unit**2
    return {
        **describe_rows(model, rows, unit, n_components, ws),
        "components_": ws.answer(widened(v, n_components).mT * unit),
        "component_variance_": ws.answer(variance),
        "n_components_effective_": int((variance > 1e-3 * variance.max()).sum()),
        "_model": {name: ws.store(a) if torch.is_tensor(a) else a for name, a in model._asdict().items()},
        "_unit": unit,
    }


def describe_rows(model, rows, unit, n_components, ws):
    """Return the fitted attributes of the rows alone."""
    return {
        "row_embedding_": ws.answer(widened(factors_of(rows, model), n_components)),
        "row_intercept_": ws.answer(_offsets(rows, model) * unit),
    }


def column_offsets(model, unit):
    """Return the offsets of the columns in the units of the cells, zeros where none are learnt."""
    return _offsets(model.mean, model) * unit


def _offsets(mean, model):
    return mean[:, -1] if model.offsets else torch.zeros_like(mean[:, 0])


def precise_for(stored, ws):
    """Return the workspace in which the model that :func:`describe` stored is computed with."""
    return ws if stored["cov"] is None else ws.exact()


def load_model(stored, ws):
    """Return the model that :func:`describe` stored, as tensors of the workspace; flags and None stay."""
    return Model(**{name: a if a is None or isinstance(a, bool) else ws.load(a) for name, a in stored.items()})
