"""The methods of the imputer that ask a fitted model."""

from numbers import Real

import numpy as np
import scipy.sparse as sp
import torch
from sklearn.base import TransformerMixin
from sklearn.utils import check_array
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._core.compat import OUTPUT_ADAPTERS, check_feature_names_in, get_output_config
from .._core.fitted import recall
from .._core.validation import check_count, check_new_data
from .._core.workspace import open_workspace
from ._cell_values import values_of_pairs
from ._columns import Columns, entries_to_original_units
from ._completed_table import (
    TableModel,
    drawn_tables,
    filled_table,
    means_of_table,
    posterior_covariances,
    score_of_hidden,
    standard_errors,
    unfilled_table,
)
from ._fitted_model import Posterior, in_original_units, model_of
from ._options import has_posterior
from ._sparse_input import MOST_DENSE_CELLS, dense_if_zeros, table_validation
from ._table import check_positions, load_table


class CompletedTableMixin(TransformerMixin):
    """Methods that read a fitted model of a table; :class:`MatrixCompletionImputer` fits it."""

    def _keeps_posterior(self):
        return has_posterior(getattr(self, "_fitted", None), self.inference, type(self).__name__)

    def _has_indicator(self):
        fitted = hasattr(self, "_fitted")
        if not (self.indicator_ is not None if fitted else self.add_indicator):
            raise AttributeError("inverse_transform needs the indicator columns of a fit with add_indicator=True.")
        return True

    def transform(self, X):
        """Fill the missing values of X with the model's means; observed values come back bit for bit.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The table; its rows need not be those of `fit`.

        Returns
        -------
        X_filled : array of shape (n_samples, n_features_out)
            Dense. Features without any value in `fit` are dropped unless `keep_empty_features`; with `add_indicator`
            the indicator columns follow.

        Raises
        ------
        ValueError
            If X is sparse and has more than 2**27 cells, since the answer is dense.
        """
        rows, fitted, ws = self._open(X, "transform")
        return ws.answer(filled_table(rows, fitted, ws, indicators=self.indicator_ is not None))

    @available_if(_has_indicator)
    def inverse_transform(self, X):
        """Undo the filling of a table by its indicator columns; only with `add_indicator`.

        As in :class:`~sklearn.impute.SimpleImputer`: features without missing values in `fit` have no indicator and
        stay filled, and features that were dropped come back without values.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features_out)
            What `transform` returned with `add_indicator`.

        Returns
        -------
        X_original : array of shape (n_samples, n_features)
            The table with its missing values.

        Raises
        ------
        ValueError
            If X has another number of columns.
        """
        check_is_fitted(self)
        X = check_array(X, dtype="numeric", ensure_all_finite="allow-nan", input_name="X")
        names = self.get_feature_names_out()
        if X.shape[1] != len(names):
            raise ValueError(f"X has {X.shape[1]} columns, but transform returns {len(names)}: {names}.")
        ws = open_workspace(X, device=self.device)
        return ws.store(unfilled_table(ws.load(X).to(ws.dtype), recall(self, Columns, ws), self.missing_values))

    @available_if(_keeps_posterior)
    def transform_std(self, X):
        """Return the standard error of each value that `transform` fills in, noise included.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The table.

        Returns
        -------
        std : array of shape (n_samples, n_features_kept)
            In the units of the columns; 0 at observed values, and in columns whose observed values are all equal, which
            say nothing of their spread. In columns with few values it is wider by the ratio of the quantiles of
            Student's t and the normal distribution at 90 %. Without the columns of `add_indicator`. A data frame where
            `set_output` asks for one.
        """
        rows, fitted, ws = self._open(X, "transform_std")
        return self._framed(ws.answer(standard_errors(rows, fitted, ws)), X)

    @available_if(_keeps_posterior)
    def sample(self, X, n_draws=1, random_state=None):
        """Draw filled tables from the posterior, for multiple imputation.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The table.
        n_draws : int, default=1
            Number of tables, above 0.
        random_state : int, RandomState instance or None, default=None
            Seed or generator of random numbers; pass an int for reproducible results.

        Returns
        -------
        draws : array of shape (n_draws, n_samples, n_features_kept), or list of n_draws data frames
            Observed values are the same in each. Column factors, row factors, noise, and the scale of each column given
            its number of values are drawn anew for each table. Data frames, of shape (n_samples, n_features_kept),
            where `set_output` asks for them.
        """
        n_draws = check_count(n_draws, "n_draws", "sample")
        rows, fitted, ws = self._open(X, "sample", random_state=random_state)
        tables = drawn_tables(rows, fitted, n_draws, ws)
        if get_output_config("transform", self)["dense"] == "default":
            return ws.answer(torch.stack(tables))
        return [self._framed(ws.answer(filled), X) for filled in tables]

    def embed(self, X):
        """Return the row factors of X, given the columns of the fit.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The table; its rows may be new.

        Returns
        -------
        factors : array of shape (n_samples, n_components)
        """
        rows, fitted, ws = self._open(X, "embed", dense_answer=False)
        return ws.answer(
            in_original_units(fitted.model, means_of_table(rows, fitted, ws), 1.0, fitted.options).row_factors
        )

    def predict_entries(self, rows, columns):
        """Return the model's values of single cells of the training table, observed or not.

        Parameters
        ----------
        rows, columns : array-like of int, of shape (n_cells,)
            Positions of training rows and of features.

        Returns
        -------
        values : array of shape (n_cells,)
            In the units of the columns, within the bounds of `clip`; NaN in features that are dropped.
        """
        check_is_fitted(self)
        ws = open_workspace(self.components_, device=self.device)
        rows = ws.load(check_positions(rows, "rows", self.row_embedding_.shape[0]))
        columns = ws.load(check_positions(columns, "columns", self.n_features_in_))
        u, v, b, c = (ws.load(a) for a in (self.row_embedding_, self.components_, self.row_intercept_, self.intercept_))
        values = values_of_pairs(u, v.mT, rows, columns) + b[rows] + c[columns]
        return ws.store(entries_to_original_units(values, columns, recall(self, Columns, ws)))

    def score(self, X, y=None, mask_fraction=0.1):
        """Return minus the root mean squared standardised error at observed values that are hidden and filled.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The table.
        y : ignored
            Present for grid searches.
        mask_fraction : float in (0, 1), default=0.1
            Share of the observed values that is hidden; at least one. The same cells on every call, so that candidates
            are compared on the same cells.

        Returns
        -------
        score : float
            At most 0: errors are divided by the columns' standard deviations in `fit`, so column means score about -1.
            0 where no column varies.
        """
        rows, fitted, ws = self._open(X, "score", dense_answer=False)
        if not (isinstance(mask_fraction, Real) and 0 < mask_fraction < 1):
            raise ValueError(f"mask_fraction={mask_fraction!r} must lie strictly between 0 and 1.")
        return score_of_hidden(rows, fitted, mask_fraction, ws)

    def get_feature_names_out(self, input_features=None):
        """Return the names of the output's columns: the features kept, then ``missingindicator_<name>``.

        Parameters
        ----------
        input_features : array-like of str or None, default=None
            Names of the columns of X, where `fit` has not seen them.

        Returns
        -------
        names : ndarray of str
        """
        check_is_fitted(self)
        names = check_feature_names_in(self, input_features)
        kept = names[self._fitted["kept"]]
        return kept if self.indicator_ is None else np.r_[kept, self.indicator_.get_feature_names_out(names)]

    @property
    def components_cov_(self):
        """Posterior covariance of each column's factors and offset."""
        if not hasattr(self, "_fitted") or self._fitted["cov"] is None:
            raise AttributeError(
                "components_cov_ belongs to a fitted MatrixCompletionImputer(inference='variational')."
            )
        ws = open_workspace(self.components_, device=self.device).exact()
        return ws.answer(posterior_covariances(self._recall(ws)))

    def _open(self, X, method, *, dense_answer=True, random_state=None):
        """Validate new rows; return them loaded, with the model and the workspace to compute in."""
        check_is_fitted(self)
        X, _ = dense_if_zeros(X, self.unstored, self.missing_values, seen=self.unstored_)
        X = check_new_data(self, X, like="components_", method=method, **table_validation(self.missing_values))
        if dense_answer and sp.issparse(X) and X.shape[0] * X.shape[1] > MOST_DENSE_CELLS:
            raise ValueError(
                f"{method} of a sparse X answers with a dense table, and n_samples={X.shape[0]} times "
                f"n_features={X.shape[1]} is above {MOST_DENSE_CELLS} cells. Pass fewer rows, ask predict_entries for "
                "single cells, or use sklowrank.recommend.MatrixFactorizationRegressor."
            )
        ws = open_workspace(X, device=self.device, random_state=random_state)
        rows, ws = load_table(X, ws, self.missing_values), ws if self._fitted["cov"] is None else ws.exact()
        return rows, self._recall(ws), ws

    def _recall(self, ws) -> TableModel:
        """Return the fitted model, with columns whose scale has its unit in it."""
        columns, posterior = recall(self, Columns, ws), recall(self, Posterior, ws)
        components, intercept = ws.load(self.components_).mT, ws.load(self.intercept_)
        model = model_of(posterior, components[columns.modelled], intercept[columns.modelled])
        columns = columns._replace(scale=columns.scale * posterior.unit)
        return TableModel(columns, model, posterior.options._replace(batch_size=self.batch_size))

    def _framed(self, values, X):
        """Return values of the kept features in the container that `set_output` asks for."""
        container = get_output_config("transform", self)["dense"]
        if container == "default":
            return values
        names = check_feature_names_in(self)[self._fitted["kept"]]
        return OUTPUT_ADAPTERS.adapters[container].create_container(values, X, columns=names)
