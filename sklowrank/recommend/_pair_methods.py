"""The methods of the regressor that ask a fitted model."""

import copy
from typing import Any

import numpy as np
import torch
from sklearn.base import TransformerMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted, validate_data

from .._core.blocks import in_blocks, rows_per_block
from .._core.compat import check_feature_names_in
from .._core.fitted import keep, public_attributes, recall
from .._core.validation import check_count, explained
from .._core.workspace import on_cluster, open_workspace
from ..impute._cell_values import values_of_pairs
from ..impute._fitted_model import Posterior, in_original_units, means_of_known_rows, model_of, row_attributes
from ..impute._observed_cells import ListedCells, pattern_of
from ..impute._options import has_posterior
from ..impute._row_equations import update_rows
from ._identifiers import check_listed, concat_identifiers, encode, find, locate
from ._known_pairs import (
    KnownPairs,
    PairStream,
    cells_at,
    pack,
    rows_at,
    sides_with_unknown,
    standard_errors,
    unpack,
    with_unknown_row,
)
from ._reading import Observations, numeric_values, numeric_weights, pairs_of, prepared


class KnownPairsMixin(TransformerMixin):
    """Methods that read a fitted model of pairs; :class:`MatrixFactorizationRegressor` fits it."""

    def _keeps_posterior(self):
        return has_posterior(getattr(self, "_fitted", None), self.inference, type(self).__name__)

    def predict(self, X, return_std=False):
        """Predict the values of pairs; an unknown row or column has the prior's factors and offset, zeros.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Pairs, and the further columns of `fit`.
        return_std : bool, default=False
            Return standard errors too, noise included; they need ``inference="variational"``.

        Returns
        -------
        y : ndarray of shape (n_samples,)
            Predictions.
        std : ndarray of shape (n_samples,)
            Only with `return_std`.

        Raises
        ------
        ValueError
            If standard errors are asked of a model fitted with ``inference="map"``.
        """
        check_is_fitted(self)
        pairs = self._pairs(X)
        if return_std and self._fitted["cov"] is None:
            raise ValueError("return_std=True needs a model fitted with inference='variational', not 'map'.")
        ws = open_workspace(self.components_, device=self.device)
        rows, cols = self._positions(pairs)
        P, F = self._sides(ws)
        known = recall(self, KnownPairs, ws)
        linear = (pairs.Z - known.covariate_mean) @ self.coef_
        y = ws.store(values_of_pairs(P, F, ws.load(rows), ws.load(cols))) + self.mean_ + linear
        y = _bounded(y, known.bounds).astype(self.components_.dtype)
        if not return_std:
            return y
        ws = ws.exact()
        model, means, posterior = self._recall(ws)
        seen = unpack(known.seen, len(self.col_ids_))
        return y, standard_errors(rows, cols, means, seen, model, posterior.options, ws) * posterior.unit

    def recommend(self, row_ids, n=10, exclude_seen=True):
        """Return for each row the columns with the highest predictions.

        Parameters
        ----------
        row_ids : array-like of shape (n_rows,)
            Identifiers; for an unknown one the columns are ranked by their offsets.
        n : int, default=10
            Columns per row, at most as many as were seen in `fit`.
        exclude_seen : bool, default=True
            Leave out the columns that the row has a value for.

        Returns
        -------
        col_ids : ndarray of shape (n_rows, n)
            Identifiers, best first.
        scores : ndarray of shape (n_rows, n)
            Predictions, with further columns of X at their means; -inf where a row has fewer than `n` columns left.

        Raises
        ------
        TypeError
            If `n` is no integer.
        ValueError
            If `n` is below 1 or too large, or `row_ids` is no list.
        """
        check_is_fitted(self)
        ws = open_workspace(self.components_, device=self.device)
        P, F = self._sides(ws)
        if check_count(n, "n", "recommend") > len(self.col_ids_):
            raise ValueError(f"n={n} must lie between 1 and the number of columns seen in fit, {len(self.col_ids_)}.")
        rows, F = locate(self.row_ids_, check_listed(row_ids, self.row_ids_), "row"), F[:-1]
        known = recall(self, KnownPairs, ws)
        seen = with_unknown_row(unpack(known.seen, len(self.col_ids_)))

        def one_block(part):
            scores = P[ws.load(rows[part])] @ F.mT
            if exclude_seen:
                there = seen[rows[part]].tocoo()
                scores[ws.load(there.row.astype(np.int64)), ws.load(there.col.astype(np.int64))] = -torch.inf
            return scores.topk(n, dim=1)

        need = 2 * F.shape[0] * ws.dtype.itemsize
        block = rows_per_block(self.batch_size, len(rows), need)
        best = [F.new_zeros(0, n).topk(n), *in_blocks(one_block, len(rows), block, bytes_per_row=need)]
        scores = ws.store(torch.cat([part.values for part in best])) + self.mean_
        bounded = np.where(np.isneginf(scores), scores, _bounded(scores, known.bounds))
        return self.col_ids_[ws.store(torch.cat([part.indices for part in best]))], bounded

    def fold_in(self, X, y, sample_weight=None):
        """Return a copy with further values of known or new rows; the columns stay as they are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Pairs, and the further columns of `fit`. Pairs with an unknown column are ignored.
        y : array-like of shape (n_samples,)
            The values.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Numbers of observations; weight 0 is the same as absence.

        Returns
        -------
        model : MatrixFactorizationRegressor
            The rows of X are solved anew from all their values; all other rows are the same.
        """
        check_is_fitted(self)
        batch = self._observations(X, y, sample_weight, reset=False).weighted().present()
        ws = open_workspace(self.components_, device=self.device)
        ws = ws if self._fitted["cov"] is None else ws.exact()
        (model, means, posterior), known = self._recall(ws), recall(self, KnownPairs, ws)
        linear = (batch.Z - known.covariate_mean) @ self.coef_
        target = (batch.y - self.mean_ - linear) / posterior.unit
        cols = self._positions(batch)[1]
        there = cols < len(self.col_ids_)

        ids, rows = encode(batch.rows, "row")
        old, seen = find(self.row_ids_, ids), unpack(known.seen, len(self.col_ids_))
        before = with_unknown_row(seen)[old]
        weights = batch.weights[there]
        cells = ListedCells(ws, rows[there], cols[there], target[there], before.shape, weights=weights)
        mean = torch.cat([means, torch.zeros_like(means[:1])])[ws.load(old)]
        cells_of_rows = cells.by_row(slice(0, len(ids)))
        mean = update_rows(cells_of_rows, pattern_of(before, ws), mean, model, posterior.options)

        row_ids = encode(concat_identifiers([self.row_ids_, ids]), "row")[0]
        place, new = find(row_ids, self.row_ids_), find(row_ids, ids)
        means = rows_at(means, ws.load(place), len(row_ids))
        means[ws.load(new)] = mean
        shape = (len(row_ids), len(self.col_ids_))
        seen = cells_at(seen, place, None, shape) + cells_at(cells.structure, new, None, shape)
        found = in_original_units(model, means, posterior.unit, posterior.options)
        models = [posterior, known._replace(seen=pack(seen)), recall(self, PairStream, ws)]
        changed = {"row_ids_": row_ids, **row_attributes(found, ws)}
        grown = copy.copy(self)  # shares the arrays of the columns, which neither changes
        return keep(grown, ws, *models, **{**public_attributes(self), **changed})

    def transform(self, X):
        """Return the factors of the row and of the column of each pair, side by side.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Pairs, and the further columns of `fit`, which are not used.

        Returns
        -------
        factors : array of shape (n_samples, 2 * n_components)
            Those of `row_embedding_` and `components_`; zeros, the prior's mean, for a row or column that is unknown.
        """
        check_is_fitted(self)
        pairs = self._pairs(X)
        ws = open_workspace(self.components_, device=self.device)
        sides = zip((self.row_embedding_, self.components_.T), self._positions(pairs))
        padded = (torch.nn.functional.pad(ws.load(side), (0, 0, 0, 1))[ws.load(at)] for side, at in sides)
        return ws.store(torch.cat(list(padded), 1))

    def get_feature_names_out(self, input_features=None):
        """Return the names of the columns of `transform`: ``row_factor0``, ..., ``column_factor0``, ....

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Only compared with the names seen in `fit`.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        check_feature_names_in(self, input_features, generate_names=False)
        width = range(len(self.components_))
        return np.array([f"{side}_factor{i}" for side in ("row", "column") for i in width], dtype=object)

    def _observations(self, X, y, sample_weight, *, reset):
        """Validate pairs and their values; those of a cluster stay there."""
        rows, y = (X.head) if on_cluster(X) else (X, y)
        pairs, y = self._pairs(rows, y, reset=reset)
        return X if on_cluster(X) else Observations(*pairs, y, numeric_weights(sample_weight, y))

    def _pairs(self, X, y: Any = "no_validation", *, reset=False):
        """Validate pairs as scikit-learn does a table; return them, and y as numbers where it is given."""
        X, y, how = prepared(X, y)
        with explained(X, dtype=None):
            X = validate_data(self, X, reset=reset, **how)
        if isinstance(y, str):
            return pairs_of(X)
        y = numeric_values(y, type(self).__name__)
        check_consistent_length(X, y)
        return pairs_of(X), y

    def _positions(self, pairs):
        """Return where the identifiers of pairs stand among those of fit, one past the end for unknown ones."""
        return locate(self.row_ids_, pairs.rows, "row"), locate(self.col_ids_, pairs.cols, "column")

    def _recall(self, ws):
        """Return the fitted model of the columns, the means of the rows, and the posterior that both belong to."""
        posterior = recall(self, Posterior, ws)
        posterior = posterior._replace(options=posterior.options._replace(batch_size=self.batch_size))
        arrays = (self.row_embedding_, self.row_intercept_, self.components_, self.col_intercept_)
        u, b, v, c = (ws.load(a) for a in arrays)
        return model_of(posterior, v.mT, c), means_of_known_rows(posterior, u, b), posterior

    def _sides(self, ws):
        arrays = (self.row_embedding_, self.row_intercept_, self.components_, self.col_intercept_)
        return sides_with_unknown(*(ws.load(a) for a in arrays))


def _bounded(y, bounds):
    return y if bounds is None else np.clip(y, *bounds)
