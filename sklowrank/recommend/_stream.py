"""Pairs that arrive in batches: new values of known rows, new rows, new columns."""

from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

from ..impute._observed_cells import ListedCells, linear_weights
from ..impute._online import absorb
from ..impute._row_equations import augmented, pairs_of
from ._identifiers import together
from ._reading import Columns


class Stretch(NamedTuple):
    """Values of a stream, with their pairs; arrays of shape (n_samples,), Z of shape (n_samples, n_further)."""

    rows: Any
    cols: Any
    Z: Any
    y: Any
    weights: Any  # None where each is one

    def columns(self):
        """Return the pairs without their values."""
        return Columns(self.rows, self.cols, self.Z)

    def weighted(self):
        """Return the same with weights written out."""
        return self if self.weights is not None else self._replace(weights=np.ones(len(self.y)))

    def followed_by(self, other):
        """Return both, one after the other."""
        ids = (together([a, b]) for a, b in ((self.rows, other.rows), (self.cols, other.cols)))
        return Stretch(*ids, *(np.concatenate([a, b]) for a, b in zip(self[2:], other[2:])))

    def present(self):
        """Return what has weight."""
        there = self.weights > 0
        return self if there.all() else Stretch(*(part[there] for part in self))


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
    """Return a CSR matrix whose rows and columns stand at other places of a larger one."""
    entries = seen.tocoo()
    return sp.csr_matrix((entries.data, (rows[entries.row], columns[entries.col])), shape=shape)


def absorb_pairs(rows, cols, values, weights, model, means, seen, *, batch_size, ws):
    """Return the model, the means of all rows and the CSR matrix of numbers of values after a batch of pairs.

    Only columns of the batch change, and rows of it; `seen` (m, n) says what was known before.
    """
    touched, place = np.unique(rows, return_inverse=True)
    known, at = seen[touched], ws.load(touched)
    concerned = np.union1d(known.indices, cols)
    cells = ListedCells(
        ws, place, np.searchsorted(concerned, cols), values, (len(touched), len(concerned)), weights=weights
    )
    counts = ws.load(np.asarray(seen.sum(0), dtype=np.float64).ravel()[concerned])
    there = ws.load(concerned)
    part = model._replace(mean=model.mean[there], cov=model.cov[there], noise=model.noise[there])
    part, solved = absorb(cells, part, counts, batch_size=batch_size, earlier=(known[:, concerned], means[at], ws))
    new = cells.column_counts > 0
    mean, cov, noise = model.mean.clone(), model.cov.clone(), model.noise.clone()
    mean[there[new]], cov[there[new]], noise[there[new]] = part.mean[new], part.cov[new], part.noise[new]
    means = means.clone()
    means[at] = solved
    seen = seen + cells_at(cells.structure, touched, concerned, seen.shape)
    return model._replace(mean=mean, cov=cov, noise=noise), means, seen


def absorb_covariates(Z, values, weights, rows, cols, model, means, gram, coef):
    """Return the sums of products of covariates and their weights after a batch, the low-rank part being given.

    `values` are those of the pairs with the linear term in them; ridge regression, recursively.
    """
    rest = values - pairs_of(*augmented(means, model), rows, cols)
    weighted = Z * weights.unsqueeze(1)
    products = gram @ coef + coef + weighted.mT @ rest
    gram = gram + weighted.mT @ Z
    return gram, linear_weights(gram, products)
