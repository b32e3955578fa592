"""What a fit stores of pairs: which it has seen, what it says of unknown ones, and what further values add."""

from typing import NamedTuple

import numpy as np
import scipy.sparse as sp
import torch

from .._core.blocks import join_blocks, rows_per_block
from ..impute._cell_values import (
    row_covariances,
    values_of_pairs,
    variance_factors_of_columns,
    variance_factors_of_rows,
)
from ..impute._fitted_model import Posterior, factor_attributes, in_original_units, mean_squared_residual
from ..impute._observed_cells import ListedCells, linear_weights, pattern_of
from ..impute._online import absorb
from ..impute._row_equations import (
    RowPosterior,
    bytes_per_row,
    factors_of_cells,
    means_of_rows,
    row_equations,
    with_ordered_components,
)
from ._reading import Observations

_KEPT_PER_ENTITY = 20  # values of a stream are kept until there are so many per row and column, within bounds
_LEAST_KEPT, _MOST_KEPT = 1000, 1_000_000


class KnownPairs(NamedTuple):
    """What is stored of the pairs and values of a fit, beside the model and the public attributes."""

    bounds: tuple[float, float] | None  # of predictions
    covariate_mean: np.ndarray  # (n_further,)
    covariate_spread: np.ndarray
    covariate_gram: np.ndarray  # (n_further, n_further): sums of products of standardised covariates
    seen: dict[str, np.ndarray]  # numbers of values (n_rows, n_columns), see :func:`pack`


class PairStream(NamedTuple):
    """What `partial_fit` keeps of its first values."""

    first_values: Observations | None  # with weights; None once there are enough of them
    n_values_fitted: int  # in the last full fit


def pack(seen):
    """Return a CSR matrix as plain arrays: these load without trust in further types."""
    return {"indptr": seen.indptr, "indices": seen.indices, "data": seen.data}


def unpack(arrays, n_columns):
    """Return the CSR matrix that :func:`pack` took apart."""
    shape = len(arrays["indptr"]) - 1, n_columns
    return sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)


def with_unknown_row(seen):
    """Append an empty row to a CSR matrix, that of identifiers not seen in fit; the memory is shared."""
    indptr = np.append(seen.indptr, seen.indptr[-1])
    return sp.csr_matrix((seen.data, seen.indices, indptr), shape=(seen.shape[0] + 1, seen.shape[1]))


def sides_with_unknown(u, b, v, c):
    """Return P, F with P[i] . F[j] the deviation of a value from the mean; the last row of each stands for unknowns.

    u, b are factors (m, k) and offsets (m,) of rows, v, c those of columns, (k, n) and (n,).
    """
    P = torch.cat([u, b[:, None], torch.ones_like(b)[:, None]], 1)
    F = torch.cat([v.mT, torch.ones_like(c)[:, None], c[:, None]], 1)
    P, F = (torch.nn.functional.pad(side, (0, 0, 0, 1)) for side in (P, F))
    P[-1, -1] = F[-1, -2] = 1  # an unknown row has the offset of its column, and the other way round
    return P, F


def standard_errors(rows, cols, means, seen, model, options, ws):
    """Return the predictive standard errors of pairs of positions, in the units of the model.

    Positions one past the end stand for unknowns. The rows' posterior covariances are not stored: they follow from the
    pattern of `seen`, the CSR matrix of numbers of observations, and are solved in blocks, in the order of the rows.
    """
    equations, structure, wider = row_equations(model, options), with_unknown_row(seen), _with_unknown_column(model)
    means = torch.nn.functional.pad(means, (0, 0, 0, 1))
    F, cols, order = variance_factors_of_columns(wider, options), ws.load(cols), np.argsort(rows, kind="stable")

    def one_block(part):
        few, place = np.unique(rows[order[part]], return_inverse=True)
        cov = row_covariances(pattern_of(structure[few], ws), equations)
        P = variance_factors_of_rows(RowPosterior(means[ws.load(few)], cov, None), options)
        columns = cols[ws.load(order[part])]
        return (values_of_pairs(P, F, ws.load(place), columns) + wider.noise[columns]).sqrt()

    need = bytes_per_row(model, options)
    block = rows_per_block(options.batch_size, len(rows), need)
    sorted_std = ws.answer(join_blocks(one_block, len(rows), block, bytes_per_row=need))
    std = np.empty_like(sorted_std)
    std[order] = sorted_std
    return std


def _with_unknown_column(model):
    """Append a column of which only the prior is known."""
    prior = (1 / model.column_ridge).diag()[None]
    return model._replace(
        mean=torch.nn.functional.pad(model.mean, (0, 0, 0, 1)),
        cov=torch.cat([model.cov, prior]),
        noise=torch.cat([model.noise, model.noise.mean()[None]]),
    )


# Further values


def columns_at(model, place, n_columns):
    """Return a model whose columns stand at other places of a wider one; of new ones only the prior is known."""
    mean = model.mean.new_zeros(n_columns, model.mean.shape[1])
    cov = (1 / model.column_ridge).diag().repeat(n_columns, 1, 1)
    noise = model.noise.mean().repeat(n_columns)
    mean[place], cov[place], noise[place] = model.mean, model.cov, model.noise
    return model._replace(mean=mean, cov=cov, noise=noise)


def rows_at(means, place, n_rows):
    """Return means of rows at other places of a longer list; new ones are zero, their prior's."""
    longer = means.new_zeros(n_rows, means.shape[1])
    longer[place] = means
    return longer


def cells_at(seen, rows, columns, shape):
    """Return a CSR matrix whose rows and columns stand at other places of a larger one; None: columns stay."""
    entries = seen.tocoo()
    columns = entries.col if columns is None else columns[entries.col]
    return sp.csr_matrix((entries.data, (rows[entries.row], columns)), shape=shape)


def absorb_pairs(rows, cols, values, weights, model, means, seen, options, ws):
    """Return the model, the means of all rows and the CSR matrix of numbers of values after a batch of pairs.

    Only columns of the batch change, and rows of it; `seen` (m, n) says what was known before.
    """
    touched, place = np.unique(rows, return_inverse=True)
    known, at = seen[touched], ws.load(touched)
    concerned = np.union1d(known.indices, cols)
    shape = (len(touched), len(concerned))
    cells = ListedCells(ws, place, np.searchsorted(concerned, cols), values, shape, weights=weights)
    counts = ws.load(np.asarray(seen.sum(0), dtype=np.float64).ravel()[concerned])
    there = ws.load(concerned)
    part = model._replace(mean=model.mean[there], cov=model.cov[there], noise=model.noise[there])
    part, solved = absorb(cells, part, counts, options, earlier=(known[:, concerned], means[at], ws))
    new = cells.column_counts > 0
    mean, cov, noise = model.mean.clone(), model.cov.clone(), model.noise.clone()
    mean[there[new]], cov[there[new]], noise[there[new]] = part.mean[new], part.cov[new], part.noise[new]
    means = means.clone()
    means[at] = solved
    seen = seen + cells_at(cells.structure, touched, concerned, seen.shape)
    return model._replace(mean=mean, cov=cov, noise=noise), means, seen


def absorb_covariates(Z, values, weights, rows, cols, model, means, options, gram, coef):
    """Return the sums of products of covariates and their weights after a batch, the low-rank part being given.

    `values` are those of the pairs with the linear term in them; ridge regression, recursively.
    """
    residual = values - values_of_pairs(*factors_of_cells(means, model, options), rows, cols)
    weighted = Z * weights.unsqueeze(1)
    products = gram @ coef + coef + weighted.mT @ residual
    gram = gram + weighted.mT @ Z
    return gram, linear_weights(gram, products)


# From a solver's model to what a fit stores and shows


def stream_of(observations, found) -> PairStream:
    """Return the stream that a fit to its first values starts."""
    enough = _KEPT_PER_ENTITY * (len(found.row_ids) + len(found.col_ids))
    few = len(observations.y) < min(max(enough, _LEAST_KEPT), _MOST_KEPT)
    return PairStream(observations.weighted() if few else None, len(observations.y))


def described_pairs(problem, found, bounds, stream, ws, model):
    """Return what `keep` stores of a solver's model, and the public attributes."""
    model = with_ordered_components(model, problem.options)
    means = means_of_rows(problem.cells, model, problem.options)
    noise = None if problem.options.variational else mean_squared_residual(problem, model, means)
    posterior = Posterior(*model[1:], problem.unit, problem.options)
    gram, seen = ws.store(found.cells.covariate_gram()), pack(found.structure())
    known = KnownPairs(bounds, found.centre, found.spread, gram, seen)
    return (posterior, known, stream), {
        **pair_attributes(model, found.sorted_rows(means), noise, posterior, ws),
        "row_ids_": found.row_ids,
        "col_ids_": found.col_ids,
        "mean_": found.mean,
        "coef_": found.unit * ws.store(found.cells.weights) / found.spread,
        "n_samples_seen_": found.n_values,
    }


def pair_attributes(model, means, noise_variance, posterior, ws):
    """Return the fitted attributes of a model; its noise is learnt where `noise_variance` is None."""
    found = in_original_units(model, means, posterior.unit, posterior.options)
    return {
        **factor_attributes(found, ws),
        "components_": ws.answer(found.column_factors.mT),
        "col_intercept_": ws.answer(found.column_intercept),
        "noise_variance_": float(found.noise_variance.mean()) if noise_variance is None else noise_variance,
    }
