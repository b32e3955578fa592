"""Which pairs a model has seen, and what it says of pairs whose row or column it has not."""

import numpy as np
import scipy.sparse as sp
import torch

from .._core.blocks import in_blocks, rows_per_block
from ..impute._observed_cells import face_of
from ..impute._row_equations import (
    Rows,
    bytes_per_row,
    pairs_of,
    row_covariances,
    seen_by_rows,
    variance_of_columns,
    variance_of_rows,
)


def sides_with_unknown(u, b, v, c):
    """Return P, F with P[i] . F[j] the deviation of a value from the mean; the last row of each stands for unknowns.

    u, b are factors (m, k) and offsets (m,) of rows, v, c those of columns, (k, n) and (n,).
    """
    P = torch.cat([u, b[:, None], torch.ones_like(b)[:, None]], 1)
    F = torch.cat([v.mT, torch.ones_like(c)[:, None], c[:, None]], 1)
    P, F = (torch.nn.functional.pad(side, (0, 0, 0, 1)) for side in (P, F))
    P[-1, -1] = F[-1, -2] = 1  # an unknown row has the offset of its column, and the other way round
    return P, F


def standard_errors(rows, cols, means, seen, model, batch_size, ws):
    """Return the predictive standard errors of pairs of positions, in the units of the model.

    Positions one past the end stand for unknowns. The rows' posterior covariances are not stored: they follow from the
    pattern of `seen`, the CSR matrix of numbers of observations, and are solved in blocks, in the order of the rows.
    """
    equations, structure, wider = seen_by_rows(model), with_unknown_row(seen), _with_unknown_column(model)
    means = torch.nn.functional.pad(means, (0, 0, 0, 1))
    F, cols, order = variance_of_columns(wider), ws.load(cols), np.argsort(rows, kind="stable")

    def one_block(part):
        few, place = np.unique(rows[order[part]], return_inverse=True)
        cov = row_covariances(face_of(structure[few], ws), model, equations)
        P = variance_of_rows(Rows(means[ws.load(few)], cov, None), wider)
        columns = cols[ws.load(order[part])]
        return (pairs_of(P, F, ws.load(place), columns) + wider.noise[columns]).sqrt()

    need = bytes_per_row(model)
    parts = in_blocks(one_block, len(rows), rows_per_block(batch_size, len(rows), need), bytes_per_row=need)
    sorted_std = ws.answer(torch.cat(list(parts)))
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


def with_unknown_row(seen):
    """Append an empty row to a CSR matrix, that of identifiers not seen in fit; the memory is shared."""
    indptr = np.append(seen.indptr, seen.indptr[-1])
    return sp.csr_matrix((seen.data, seen.indices, indptr), shape=(seen.shape[0] + 1, seen.shape[1]))


def at_rows(seen, place, n_rows):
    """Return the rows of a CSR matrix at other places of a taller one."""
    entries = seen.tocoo()
    return sp.csr_matrix((entries.data, (place[entries.row], entries.col)), shape=(n_rows, seen.shape[1]))


def pack(seen):
    """Return a CSR matrix as plain arrays: these load without trust in further types."""
    return {"indptr": seen.indptr, "indices": seen.indices, "data": seen.data}


def unpack(arrays, n_columns):
    """Return the CSR matrix that :func:`pack` took apart."""
    shape = len(arrays["indptr"]) - 1, n_columns
    return sp.csr_matrix((arrays["data"], arrays["indices"], arrays["indptr"]), shape=shape)
