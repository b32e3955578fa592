"""Matrix factorization for (row, column, value) lists: ratings, sensor by time, product by store."""

import copy
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_scalar
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._core.annotations import RandomState
from .._core.blocks import in_blocks, rows_per_block
from .._core.compat import StrOptions, _fit_context, check_feature_names_in, check_sample_weight
from .._core.iterate import drive
from .._core.tags import partitioned
from .._core.validation import on_host
from .._core.workspace import check_place, on_cluster, open_workspace
from ..impute._columns import check_clip
from ..impute._matrix_completion_solver import (
    CONSTRAINTS,
    automatic_components,
    check_options,
    column_offsets,
    describe,
    describe_rows,
    learns_offsets,
    load_model,
    precise,
    precise_for,
    sweeps,
)
from ..impute._observed_cells import ListedCells, face_of
from ..impute._online import ROUNDS, keeps_a_posterior
from ..impute._row_equations import (
    canonical,
    factors_of,
    means_of_rows,
    pairs_of,
    squared_error,
    update_rows,
)
from ._identifiers import check_listed, encode, find, locate, together
from ._listing import listed, listed_on_cluster
from ._pairs import at_rows, pack, sides_with_unknown, standard_errors, unpack, with_unknown_row
from ._reading import check_columns
from ._stream import Stretch, absorb_covariates, absorb_pairs, cells_at, columns_at, rows_at

_KEPT_PER_ENTITY = 20  # values of a stream are kept until there are so many per row and column, within bounds
_LEAST_KEPT, _MOST_KEPT = 1000, 1_000_000


class MatrixFactorizationRegressor(CallbackSupportMixin, RegressorMixin, TransformerMixin, BaseEstimator):
    """Predict the value of a (row, column) pair from a list of such values.

    Each row and each column of a large, mostly unobserved matrix gets an offset and a few factors; a value is the mean
    plus both offsets plus the product of the factors. For ratings (user, film), measurements (sensor, hour), sales
    (product, shop), from thousands to hundreds of millions of values. The default, variational Bayes, has no strength
    to tune and switches surplus components off. Where values depend on features of the pair far more than on which row
    and which column it is, choose a regressor on these features.

    Parameters
    ----------
    n_components : int or "auto", default=10
        Number of components at most, above 0; "auto" means 20, or one less than the rows or columns where these are
        fewer. Raising it costs time; under "variational" inference surplus components switch themselves off.
    inference : {"variational", "map"}, default="variational"
        "variational" learns the noise of each column, the strength of each component, and how sure both are. "map" is
        penalised alternating least squares: faster, with `alpha` to tune, and without standard errors.
    alpha : float, default=1.0
        Penalty of "map" on the squares of factors and offsets, at least 0. Raising it shrinks predictions towards the
        mean.
    reg_scaling : {"none", "count"}, default="none"
        For "map": `alpha` for each row and column as it is, or times its number of values.
    solver : {"auto", "cholesky", "cg"}, default="auto"
        For "map": exact solves, a few conjugate-gradient steps per sweep, or "cholesky" up to 16 components and "cg"
        above. "cg" takes time proportional to `n_components`, "cholesky" to its square.
    cg_steps : int, default=3
        For "cg": steps per half sweep, each warm-started.
    fit_intercepts : bool, default=True
        Subtract the global mean and learn an offset for each row and column. Where False, nothing is subtracted.
    nonnegative : bool, default=False
        Non-negative factors, for "map" without conjugate gradients: no mean and no offsets.
    clip : None, "observed" or (float, float), default="observed"
        Bounds of the predictions: the range of the values in `fit`, or two numbers.
    init : {"svd", "random"}, default="svd"
        For "map": start from the leading singular vectors of the zero-filled matrix, or from random factors.
    max_iter : int, default=200
        Sweeps over rows and columns at most.
    tol : float, default=1e-4
        Stop when a sweep changes the logarithm of the noise variance and the bound per value by less; for "map", the
        relative change of the root mean squared residual.
    batch_size : int or "auto", default="auto"
        Rows handled at once. It bounds the memory of the rows' equations and does not change the result.
    device : str, default="auto"
        Where to compute: "auto" (the first CUDA device, else the CPU), "cpu", "cuda", "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seeds the start.
    verbose : int, default=0
        1 prints a line per sweep.

    Attributes
    ----------
    row_ids_, col_ids_ : ndarrays of shape (n_rows,) and (n_columns,)
        Distinct identifiers, sorted. Of mixed types they are objects, sorted type by type.
    row_embedding_ : ndarray of shape (n_rows, n_components)
        Row factors.
    components_ : ndarray of shape (n_components, n_columns)
        Column factors, strongest first; components switched off are zero.
    row_intercept_, col_intercept_ : ndarrays of shape (n_rows,) and (n_columns,)
        Offsets, in units of y.
    mean_ : float
        Mean of y; 0 without `fit_intercepts`.
    coef_ : ndarray of shape (n_features_in_ - 2,)
        Weights of the further columns of X, in units of y; they act on the columns' deviations from their means.
    noise_variance_ : float
        Noise variance in squared units of y, the mean over columns; for "map" the last mean squared residual.
    component_variance_ : ndarray of shape (n_components,)
        Variance that each component gives to a value, in squared units of y.
    n_components_effective_ : int
        Components with a variance above 0.1 % of the largest.
    loss_curve_ : list of float
        After each sweep the negative lower bound of the log-evidence per value; for "map" the penalised objective per
        value. Both for y divided by its standard deviation.
    n_iter_ : int
        Sweeps run.
    n_samples_seen_ : int
        Values of `fit`, and of `partial_fit` since, but those of weight 0.
    n_features_in_ : int
        Number of columns of X seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X, where they are strings.

    See Also
    --------
    sklowrank.impute.MatrixCompletionImputer : The same model for tables with holes.

    Notes
    -----
    The model is :math:`y = \\mu + b_i + c_j + u_i^\\top v_j + z^\\top \\beta + \\varepsilon` for row i, column j and
    further columns z of X, whose weights are refitted by ridge regression after each sweep. Inference, objectives and
    cost are those of :class:`~sklowrank.impute.MatrixCompletionImputer`. A pair observed several times counts as often.
    Memory: the values twice, (n_rows + n_columns) n_components² numbers at most, and no temporary of the size of values
    times components.

    References
    ----------
    .. [1] Y. J. Lim, Y. W. Teh, "Variational Bayesian approach to movie rating prediction", KDD Cup Workshop, 2007.
    .. [2] Y. Zhou, D. Wilkinson, R. Schreiber, R. Pan, "Large-scale parallel collaborative filtering for the Netflix
       prize", AAIM 2008.
    .. [3] G. Takács, I. Pilászy, D. Tikk, "Applications of the conjugate gradient method for implicit feedback
       collaborative filtering", RecSys 2011.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.recommend import MatrixFactorizationRegressor
    >>> who, what = np.divmod(np.arange(48), 8)
    >>> y = (1.0 + who) * (1.0 + what)
    >>> X = np.column_stack([who, what])
    >>> known = np.arange(48) % 5 != 2
    >>> model = MatrixFactorizationRegressor(2, random_state=0).fit(X[known], y[known])
    >>> model.predict([[2, 6], [5, 2]]).round(1), y[[22, 42]]
    (array([21., 18.]), array([21., 18.]))
    """

    _parameter_constraints = {**CONSTRAINTS, "clip": [StrOptions({"observed"}), tuple, list, None]}

    # Set by fit
    row_ids_: np.ndarray
    col_ids_: np.ndarray
    row_embedding_: np.ndarray
    components_: np.ndarray
    row_intercept_: np.ndarray
    col_intercept_: np.ndarray
    mean_: float
    coef_: np.ndarray
    noise_variance_: float
    component_variance_: np.ndarray
    n_components_effective_: int
    loss_curve_: list[float]
    n_iter_: int
    n_samples_seen_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int | Literal["auto"] = 10,
        *,
        inference: Literal["variational", "map"] = "variational",
        alpha: float = 1.0,
        reg_scaling: Literal["none", "count"] = "none",
        solver: Literal["auto", "cholesky", "cg"] = "auto",
        cg_steps: int = 3,
        fit_intercepts: bool = True,
        nonnegative: bool = False,
        clip: tuple[ArrayLike, ArrayLike] | list[Any] | Literal["observed"] | None = "observed",
        init: Literal["svd", "random"] = "svd",
        max_iter: int = 200,
        tol: float = 1e-4,
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.inference = inference
        self.alpha = alpha
        self.reg_scaling = reg_scaling
        self.solver = solver
        self.cg_steps = cg_steps
        self.fit_intercepts = fit_intercepts
        self.nonnegative = nonnegative
        self.clip = clip
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None) -> Self:
        """Fit the model to a list of values.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The first two columns identify row and column, by numbers, text or dates. One column alone is taken for
            rows. Further columns are numbers that enter linearly. Columns of a data frame keep their types.
        y : array-like of shape (n_samples,)
            The values.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Weight k, at least 0, is the same as k observations, and 0 as absence.

        Returns
        -------
        self : MatrixFactorizationRegressor

        Raises
        ------
        ValueError
            If an identifier is missing.
        """
        pairs, values = check_columns(self, *(X.head if on_cluster(X) else (X, y)), reset=True)
        return self._fit(pairs, values, _checked_weights(sample_weight, values), X, y)

    def _fit(self, pairs, values, weights, X, y):
        """Fit to validated pairs and their values; X and y are what the user gave, for callbacks."""
        check_options(self)
        bounds = check_clip(self.clip)
        single = (X if on_cluster(X) else values).dtype == np.float32
        ws = precise(self, open_workspace(np.empty(0, np.float32 if single else np.float64), **self._place(X)))
        centred = learns_offsets(self)
        if on_cluster(X):
            found = listed_on_cluster(X, centred=centred, dtype=ws.dtype)
        else:
            found = listed(pairs, values, weights, centred=centred, ws=ws)
        cells, shape = found.cells, (len(found.row_ids), len(found.col_ids))
        n_components = automatic_components(shape) if self.n_components == "auto" else self.n_components

        def attributes(model):
            return {
                **self._attributes(canonical(model), found, n_components, ws),
                "row_ids_": found.row_ids,
                "col_ids_": found.col_ids,
                "mean_": found.mean,
                "coef_": found.unit * ws.store(cells.weights) / found.spread,
                "n_samples_seen_": len(X if on_cluster(X) else values)
                if weights is None
                else np.count_nonzero(weights),
                "_covariate_mean": found.centre,
                "_covariate_spread": found.spread,
                "_covariate_gram": ws.store(cells.covariate_gram()),
                "_bounds": found.ends if bounds == "observed" else bounds,
                "_seen": pack(found.structure()),
                "_kept": None,
            }

        run = drive(self, sweeps(self, cells, n_components, unit=found.unit, ws=ws), attributes=attributes, X=X, y=y)
        vars(self).update(attributes(run.state), n_iter_=run.n_iter, loss_curve_=run.loss_curve)
        return self

    @available_if(keeps_a_posterior)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None) -> Self:
        """Go on with further values, each of which is given once; the first call is `fit`. For "variational" alone.

        Rows, columns, and values of known ones may be new. The columns' posterior after the earlier values is their
        prior for the new ones (streaming variational Bayes): rows and columns of the batch are solved in turns, a row
        from all of its values. Exact are the equations of these rows and what the new values add to those of the
        columns; approximate is that rows without new values stay as they are when their columns move, and that what
        earlier values said of the columns is not said anew. The mean, the priors and the components in use stay as in
        the last full fit. Since a few values determine none of these, the first values are kept, and fitted anew each
        time their number has doubled, until there are 20 times as many as rows and columns together (at least 1,000
        and at most 1,000,000). A component that these do not show stays off. A call copies what is known of all rows:
        of many values give some thousand at a time.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Pairs, and the further columns of the first call.
        y : array-like of shape (n_samples,)
            The values.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Numbers of observations.

        Returns
        -------
        self : MatrixFactorizationRegressor
            Knows the rows and columns of all calls; `n_iter_` counts rounds.
        """
        first = not hasattr(self, "_model")
        pairs, values = check_columns(self, X, y, reset=first)
        weights = _checked_weights(sample_weight, values)
        if first:
            return self._fit_and_keep(Stretch(*pairs, values, weights), X, y)
        batch = Stretch(*pairs, values, np.ones(len(values)) if weights is None else weights)
        kept = None if self._kept is None else Stretch(**self._kept).followed_by(batch)
        if kept is not None and len(kept.y) >= 2 * self._n_values_fitted:
            return self._fit_and_keep(kept, X, y)
        self._absorb(batch.present())
        self._kept = None if kept is None else kept._asdict()
        return self

    def predict(self, X, return_std=False):
        """Predict the values of pairs; an unknown row or column counts with its mean, never as an error.

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
        pairs = check_columns(self, X, reset=False)
        if return_std and self._model["cov"] is None:
            raise ValueError("return_std=True needs a model fitted with inference='variational', not 'map'.")
        ws = open_workspace(self.components_, device=self.device)
        rows, cols = self._positions(pairs)
        P, F = self._sides(ws)
        linear = (pairs.Z - self._covariate_mean) @ self.coef_
        y = ws.store(pairs_of(P, F, ws.load(rows), ws.load(cols))) + self.mean_ + linear
        y = self._bounded(y).astype(self.components_.dtype)
        if not return_std:
            return y
        ws = precise_for(self._model, ws)
        model, seen = load_model(self._model, ws), unpack(self._seen, len(self.col_ids_))
        std = standard_errors(rows, cols, self._row_means(model, ws), seen, model, self.batch_size, ws)
        return y, std * self._unit

    def transform(self, X):
        """Return what the model knows of each pair: the factors of its row and those of its column, side by side.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Pairs, and the further columns of `fit`, which play no part.

        Returns
        -------
        factors : array of shape (n_samples, 2 * n_components)
            Those of `row_embedding_` and `components_`; zeros, the prior's mean, for a row or column that is unknown.
        """
        check_is_fitted(self)
        pairs = check_columns(self, X, reset=False)
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
        n = check_scalar(n, "n", Integral)
        if not 1 <= n <= len(self.col_ids_):
            raise ValueError(f"n={n} must lie between 1 and the number of columns seen in fit, {len(self.col_ids_)}.")
        rows, F = locate(self.row_ids_, check_listed(row_ids, self.row_ids_), "row"), F[:-1]
        seen = with_unknown_row(unpack(self._seen, len(self.col_ids_)))

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
        bounded = np.where(np.isneginf(scores), scores, self._bounded(scores))
        return self.col_ids_[ws.store(torch.cat([part.indices for part in best]))], bounded

    def fold_in(self, X, y, sample_weight=None):
        """Return a copy that knows more values of known or new rows; the columns stay as they are.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            Pairs, and the further columns of `fit`. Pairs whose column is unknown say nothing of their row and are left
            out.
        y : array-like of shape (n_samples,)
            The values.
        sample_weight : array-like of shape (n_samples,) or None, default=None
            Numbers of observations; a pair of weight 0 is as if it were not there.

        Returns
        -------
        model : MatrixFactorizationRegressor
            The rows of X are solved anew from all their values; all other rows are the same.
        """
        check_is_fitted(self)
        pairs, y = check_columns(self, X, y, reset=False)
        batch = Stretch(*pairs, y, _checked_weights(sample_weight, y)).weighted().present()
        ws = precise_for(self._model, open_workspace(self.components_, device=self.device))
        model = load_model(self._model, ws)
        linear = (batch.Z - self._covariate_mean) @ self.coef_
        target = (batch.y - self.mean_ - linear) / self._unit
        cols = self._positions(batch)[1]
        known = cols < len(self.col_ids_)

        ids, rows = encode(batch.rows, "row")
        old, seen = find(self.row_ids_, ids), unpack(self._seen, len(self.col_ids_))
        before = with_unknown_row(seen)[old]
        weights = batch.weights[known]
        cells = ListedCells(ws, rows[known], cols[known], target[known], before.shape, weights=weights)
        means = self._row_means(model, ws)
        mean = torch.cat([means, torch.zeros_like(means[:1])])[ws.load(old)]
        mean = update_rows(cells.by_row(slice(0, len(ids))), face_of(before, ws), mean, model)

        row_ids = encode(together([self.row_ids_, ids]), "row")[0]
        place, new = find(row_ids, self.row_ids_), find(row_ids, ids)
        grown_means = means.new_empty(len(row_ids), means.shape[1])
        grown_means[ws.load(place)], grown_means[ws.load(new)] = means, mean
        seen = at_rows(seen, place, len(row_ids)) + at_rows(cells.structure, new, len(row_ids))
        grown = copy.copy(self)  # shares the arrays of the columns, which neither changes
        vars(grown).update(
            describe_rows(model, grown_means, self._unit, len(self.components_), ws),
            row_ids_=row_ids,
            _seen=pack(seen),
        )
        return grown

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # precision is that of y
        return partitioned(tags, by="pairs")

    def _positions(self, pairs):
        """Return where the identifiers of pairs stand among those of fit, one past the end for unknown ones."""
        return locate(self.row_ids_, pairs.rows, "row"), locate(self.col_ids_, pairs.cols, "column")

    def _fit_and_keep(self, stretch, X, y):
        """Fit to the first values of a stream; few of them are kept, to be fitted anew with later ones."""
        self._fit(stretch.columns(), stretch.y, stretch.weights, X, y)
        enough = _KEPT_PER_ENTITY * (len(self.row_ids_) + len(self.col_ids_))
        few = len(stretch.y) < min(max(enough, _LEAST_KEPT), _MOST_KEPT)
        self._kept, self._n_values_fitted = (stretch.weighted()._asdict() if few else None), len(stretch.y)
        return self

    def _absorb(self, batch):
        """Update rows and columns by a batch of values, and append new ones."""
        if not len(batch.y):
            return
        ws = open_workspace(self.components_, device=self.device).exact()
        self._positions(batch)  # warns of identifiers of another kind
        row_ids, col_ids = (
            encode(together(ids), "row")[0] for ids in ((self.row_ids_, batch.rows), (self.col_ids_, batch.cols))
        )
        shape, model = (len(row_ids), len(col_ids)), load_model(self._model, ws)
        old_rows, old_cols = find(row_ids, self.row_ids_), find(col_ids, self.col_ids_)
        means = rows_at(self._row_means(model, ws), ws.load(old_rows), shape[0])
        model = columns_at(model, ws.load(old_cols), shape[1])
        seen = cells_at(unpack(self._seen, len(self.col_ids_)), old_rows, old_cols, shape)

        rows, cols = find(row_ids, batch.rows), find(col_ids, batch.cols)
        values, Z = (batch.y - self.mean_) / self._unit, (batch.Z - self._covariate_mean) / self._covariate_spread
        coef = self.coef_ * self._covariate_spread / self._unit
        model, means, seen = absorb_pairs(
            rows, cols, values - Z @ coef, batch.weights, model, means, seen, batch_size=self.batch_size, ws=ws
        )
        arrays = (ws.load(a) for a in (Z, values, batch.weights, rows, cols))
        gram, coef = absorb_covariates(*arrays, model, means, *map(ws.load, (self._covariate_gram, coef)))
        bounds = self._bounds
        if self.clip == "observed":
            bounds = min(bounds[0], float(batch.y.min())), max(bounds[1], float(batch.y.max()))
        vars(self).update(
            describe(model, means, self._unit, len(self.components_), ws),
            row_ids_=row_ids,
            col_ids_=col_ids,
            col_intercept_=ws.answer(column_offsets(model, self._unit)),
            noise_variance_=float(model.noise.mean()) * self._unit**2,
            coef_=self._unit * ws.store(coef) / self._covariate_spread,
            n_samples_seen_=self.n_samples_seen_ + len(batch.y),
            n_iter_=self.n_iter_ + ROUNDS,
            _covariate_gram=ws.store(gram),
            _bounds=bounds,
            _seen=pack(seen),
        )

    def _place(self, X):
        """Return where to compute: for pairs on a cluster the little that is left is done on the CPU."""
        return {"device": "cpu" if on_cluster(X) else self.device, "random_state": self.random_state}

    def _attributes(self, model, found, n_components, ws):
        """Return the fitted attributes of a model: one more pass over the rows, the columns being final."""
        cells, unit = found.cells, found.unit
        rows = means_of_rows(cells, model, self.batch_size)
        if model.cov is None:
            noise = float(squared_error(cells, rows, model, self.batch_size) / cells.column_counts.sum())
        else:
            noise = float(model.noise.mean())
        return {
            **describe(model, found.sorted_rows(rows), unit, n_components, ws),
            "col_intercept_": ws.answer(column_offsets(model, unit)),
            "noise_variance_": noise * unit**2,
        }

    def _row_means(self, model, ws):
        """Factors in use and offset of each row, in the units of the model."""
        u = ws.load(self.row_embedding_)[:, : factors_of(model.mean, model).shape[1]]
        return torch.cat([u, ws.load(self.row_intercept_)[:, None] / self._unit], 1) if model.offsets else u

    def _sides(self, ws):
        arrays = (self.row_embedding_, self.row_intercept_, self.components_, self.col_intercept_)
        return sides_with_unknown(*(ws.load(a) for a in arrays))

    def _bounded(self, y):
        return y if self._bounds is None else np.clip(y, *self._bounds)


def _checked_weights(sample_weight, y):
    """Return weights as float64, or None where all are one."""
    if sample_weight is None:
        return None
    check_place(sample_weight, "sample_weight")
    weights = check_sample_weight(
        on_host(sample_weight), y[:, None], dtype=np.float64, ensure_non_negative=True, allow_all_zero_weights=True
    )
    return None if (weights == 1).all() else weights
