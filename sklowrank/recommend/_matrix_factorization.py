"""Matrix factorization for (row, column, value) lists: ratings, sensor by time, product by store."""

import copy
from functools import partial
from numbers import Integral
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils import check_consistent_length, check_scalar
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted, validate_data

from .._core.annotations import RandomState
from .._core.blocks import in_blocks, rows_per_block
from .._core.compat import StrOptions, _fit_context, check_feature_names_in
from .._core.fitted import fitted_attributes, keep, options, public_attributes, recall
from .._core.iterate import drive
from .._core.tags import partitioned
from .._core.validation import explained
from .._core.workspace import on_cluster, open_workspace
from ..impute._cell_values import values_of_pairs
from ..impute._fitted_model import (
    Posterior,
    factor_attributes,
    in_original_units,
    mean_squared_residual,
    means_of_known_rows,
    model_of,
    row_attributes,
)
from ..impute._matrix_completion_solver import completion_problem, sweeps
from ..impute._observed_cells import ListedCells, pattern_of
from ..impute._online import ROUNDS
from ..impute._options import (
    CONSTRAINTS,
    CompletionOptions,
    automatic_components,
    check_clip,
    checked_options,
    has_posterior,
)
from ..impute._row_equations import means_of_rows, update_rows, with_ordered_components
from ._identifiers import check_listed, concat_identifiers, encode, find, locate
from ._known_pairs import (
    KnownPairs,
    absorb_covariates,
    absorb_pairs,
    cells_at,
    columns_at,
    pack,
    rows_at,
    sides_with_unknown,
    standard_errors,
    unpack,
    with_unknown_row,
)
from ._listing import listed
from ._reading import Observations, numeric_values, numeric_weights, pairs_of, prepared

_KEPT_PER_ENTITY = 20  # values of a stream are kept until there are so many per row and column, within bounds
_LEAST_KEPT, _MOST_KEPT = 1000, 1_000_000


class PairStream(NamedTuple):
    """What `partial_fit` keeps of its first values."""

    first_values: Observations | None  # with weights; None once there are enough of them
    n_values_fitted: int  # in the last full fit


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
    fit_intercept : bool, default=True
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
        Mean of y; 0 without `fit_intercept`.
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

    _parameter_constraints = {**CONSTRAINTS, "reg_scaling": [StrOptions({"none", "count"})]}

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
        fit_intercept: bool = True,
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
        self.fit_intercept = fit_intercept
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
        observations = self._observations(X, y, sample_weight, reset=True)
        return self._fit(observations, X, y)

    def _fit(self, observations, X, y, *, streamed=False):
        """Fit to validated observations; X and y are what the user gave, for callbacks."""
        chosen = checked_options(options(self, CompletionOptions))
        clip = check_clip(self.clip)
        ws = open_workspace(observations, device=self.device, random_state=self.random_state)
        ws = ws.exact() if chosen.variational else ws
        found = listed(observations, centred=chosen.offsets, ws=ws)
        if self.n_components == "auto":
            chosen = chosen._replace(n_components=automatic_components((len(found.row_ids), len(found.col_ids))))
        problem = completion_problem(found.cells, chosen, found.unit)
        stream = _stream(observations, found) if streamed else PairStream(None, found.n_values)

        describe = partial(_described, problem, found, found.ends if clip == "observed" else clip, stream, ws)
        steps = sweeps(problem, ws)
        run = drive(self, steps, attributes=lambda m: fitted_attributes(ws, **describe(m)), X=X, y=y)
        return keep(self, ws, **describe(run.state), n_iter_=run.n_iter, loss_curve_=run.loss_curve)

    def _keeps_posterior(self):
        return has_posterior(getattr(self, "_fitted", None), self.inference, type(self).__name__)

    @available_if(_keeps_posterior)
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
        first = not hasattr(self, "_fitted")
        batch = self._observations(X, y, sample_weight, reset=first)
        if first:
            return self._fit(batch, X, y, streamed=True)
        ws = open_workspace(self.components_, device=self.device, random_state=self.random_state).exact()
        stream, batch = recall(self, PairStream, ws), batch.weighted()
        if stream.first_values is not None:
            stream = stream._replace(first_values=stream.first_values.followed_by(batch))
            if len(stream.first_values.y) >= 2 * stream.n_values_fitted:
                return self._fit(stream.first_values, X, y, streamed=True)
        return self._absorb(batch.present(), stream, ws)

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
        return keep(grown, ws, models, **{**public_attributes(self), **changed})

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # precision is that of y
        return partitioned(tags, by="pairs")

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

    def _absorb(self, batch, stream, ws):
        """Update rows and columns by a batch of observations, and append new ones."""
        if not len(batch.y):
            return keep(
                self, ws, [recall(self, Posterior, ws), recall(self, KnownPairs, ws), stream], **public_attributes(self)
            )
        self._positions(batch)  # warns of identifiers of another kind
        (model, means, posterior), known = self._recall(ws), recall(self, KnownPairs, ws)
        row_ids, col_ids = (
            encode(concat_identifiers(ids), "row")[0]
            for ids in ((self.row_ids_, batch.rows), (self.col_ids_, batch.cols))
        )
        shape, unit, chosen = (len(row_ids), len(col_ids)), posterior.unit, posterior.options
        old_rows, old_cols = find(row_ids, self.row_ids_), find(col_ids, self.col_ids_)
        means = rows_at(means, ws.load(old_rows), shape[0])
        model = columns_at(model, ws.load(old_cols), shape[1])
        seen = cells_at(unpack(known.seen, len(self.col_ids_)), old_rows, old_cols, shape)

        rows, cols = find(row_ids, batch.rows), find(col_ids, batch.cols)
        values, Z = (batch.y - self.mean_) / unit, (batch.Z - known.covariate_mean) / known.covariate_spread
        coef = self.coef_ * known.covariate_spread / unit
        model, means, seen = absorb_pairs(rows, cols, values - Z @ coef, batch.weights, model, means, seen, chosen, ws)
        arrays = (ws.load(a) for a in (Z, values, batch.weights, rows, cols))
        gram = ws.load(known.covariate_gram)
        gram, coef = absorb_covariates(*arrays, model, means, chosen, gram, ws.load(coef))
        if self.clip == "observed":
            low, high = known.bounds
            known = known._replace(bounds=(min(low, float(batch.y.min())), max(high, float(batch.y.max()))))
        known = known._replace(covariate_gram=ws.store(gram), seen=pack(seen))
        changed = {
            **_attributes(model, means, None, posterior, ws),
            "model": [posterior._replace(cov=model.cov, noise=model.noise), known, stream],
            "row_ids_": row_ids,
            "col_ids_": col_ids,
            "coef_": unit * ws.store(coef) / known.covariate_spread,
            "n_samples_seen_": self.n_samples_seen_ + len(batch.y),
            "n_iter_": self.n_iter_ + ROUNDS,
        }
        return keep(self, ws, **{**public_attributes(self), **changed})

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


def _stream(observations, found) -> PairStream:
    """Return the stream that a fit to its first values starts."""
    enough = _KEPT_PER_ENTITY * (len(found.row_ids) + len(found.col_ids))
    few = len(observations.y) < min(max(enough, _LEAST_KEPT), _MOST_KEPT)
    return PairStream(observations.weighted() if few else None, len(observations.y))


def _described(problem, found, bounds, stream, ws, model):
    """Return the fitted attributes of a solver's model, for `keep`."""
    means = means_of_rows(problem.cells, model, problem.options)
    model, means = with_ordered_components(model, means, problem.options)
    noise = None if problem.options.variational else mean_squared_residual(problem, model, means)
    posterior = Posterior(*model[1:], problem.unit, problem.options)
    gram, seen = ws.store(found.cells.covariate_gram()), pack(found.structure())
    known = KnownPairs(bounds, found.centre, found.spread, gram, seen)
    return {
        **_attributes(model, found.sorted_rows(means), noise, posterior, ws),
        "model": [posterior, known, stream],
        "row_ids_": found.row_ids,
        "col_ids_": found.col_ids,
        "mean_": found.mean,
        "coef_": found.unit * ws.store(found.cells.weights) / found.spread,
        "n_samples_seen_": found.n_values,
    }


def _attributes(model, means, noise_variance, posterior, ws):
    """Return the fitted attributes of a model; its noise is learnt where `noise_variance` is None."""
    found = in_original_units(model, means, posterior.unit, posterior.options)
    return {
        **factor_attributes(found, ws),
        "components_": ws.answer(found.column_factors.mT),
        "col_intercept_": ws.answer(found.column_intercept),
        "noise_variance_": float(found.noise_variance.mean()) if noise_variance is None else noise_variance,
    }


def _bounded(y, bounds):
    return y if bounds is None else np.clip(y, *bounds)
