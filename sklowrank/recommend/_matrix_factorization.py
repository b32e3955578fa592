"""Matrix factorization for (row, column, value) lists: ratings, sensor by time, product by store."""

from functools import partial
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, RegressorMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.metaestimators import available_if

from .._core.annotations import RandomState
from .._core.compat import StrOptions, _fit_context
from .._core.fitted import fitted_attributes, keep, options, public_attributes, recall
from .._core.iterate import drive
from .._core.tags import partitioned
from .._core.workspace import open_workspace
from ..impute._fitted_model import Posterior
from ..impute._matrix_completion_solver import completion_problem, sweeps
from ..impute._online import ROUNDS
from ..impute._options import (
    CONSTRAINTS,
    NOT_CONVERGED,
    CompletionOptions,
    automatic_components,
    check_clip,
    checked_options,
)
from ._identifiers import concat_identifiers, encode, find
from ._known_pairs import (
    KnownPairs,
    PairStream,
    absorb_covariates,
    absorb_pairs,
    cells_at,
    columns_at,
    described_pairs,
    pack,
    pair_attributes,
    rows_at,
    stream_of,
    unpack,
)
from ._listing import listed
from ._pair_methods import KnownPairsMixin


class MatrixFactorizationRegressor(CallbackSupportMixin, KnownPairsMixin, RegressorMixin, BaseEstimator):
    """Predict the value of a (row, column) pair from a list of such values.

    Each row and each column of a large, mostly unobserved matrix gets an offset and a few factors; a value is the mean
    plus both offsets plus the product of the factors. For ratings (user, film), measurements (sensor, hour), sales
    (product, shop), from thousands to hundreds of millions of values. The default, variational Bayes, has no penalty
    to tune and switches surplus components off. Where values depend on features of the pair rather than on the
    identities of row and column, choose a regressor on these features.

    Parameters
    ----------
    n_components : int or "auto", default=10
        Number of components. At least 1; "auto" is 20, or one less than the number of rows or columns where that is
        smaller. "variational" inference switches surplus components off. The cost of a sweep grows with it.
    inference : {"variational", "map"}, default="variational"
        Kind of inference. "variational": variational Bayes, which learns the noise of each column and the variance of
        each component, and gives standard errors. "map": penalised alternating least squares, which is faster, needs
        `alpha` tuned and gives no standard errors.
    alpha : float, default=1.0
        Strength of the penalty. Only for "map": the weight of the squared factors and offsets, at least 0. Raising it
        shrinks predictions towards the mean.
    reg_scaling : {"none", "count"}, default="none"
        Whether `alpha` is multiplied by the number of values of each row and column. Only for "map".
    solver : {"auto", "cholesky", "cg"}, default="auto"
        Algorithm of the fit. Only for "map". "cholesky" solves exactly, in time proportional to the square of
        `n_components`; "cg" takes a few steps of conjugate gradients per sweep, in time proportional to `n_components`;
        "auto" is "cholesky" up to 16 components and "cg" above.
    cg_steps : int, default=3
        Number of conjugate-gradient steps per half sweep, warm-started. Only for ``solver="cg"``.
    fit_intercept : bool, default=True
        Whether to fit intercepts. If True, the global mean is subtracted and each row and column has an offset; if
        False, nothing is subtracted.
    nonnegative : bool, default=False
        Whether factors are non-negative. Only for "map" without conjugate gradients; there is no mean and there are no
        offsets.
    clip : None, "observed" or (float, float), default="observed"
        Bounds of the predicted values. The range of the values in `fit`, or two numbers.
    init : {"svd", "random"}, default="svd"
        Initialisation of the fit. Only for "map": the leading singular vectors of the zero-filled matrix, or random
        factors.
    max_iter : int, default=200
        Maximum number of iterations. An iteration is a sweep over rows and columns.
    tol : float, default=1e-4
        Tolerance of the stopping criterion. "variational": the change of the logarithm of the noise variance and of the
        lower bound per observed value in a sweep; "map": the relative change of the root mean squared residual.
    batch_size : int or "auto", default="auto"
        Number of rows processed at once; it bounds memory and does not change the result. "auto" bounds the equations
        of a block of rows to 32 MiB.
    device : str, default="auto"
        Where to compute: "auto" (the first CUDA device, else the CPU), "cpu", "cuda", "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration.

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
        Noise variance in squared units of y, the mean over columns; for "map" the mean squared residual.
    component_variance_ : ndarray of shape (n_components,)
        Variance of the values that each component explains, in squared units of y.
    n_components_effective_ : int
        Number of components with a variance above 0.1 % of the largest.
    loss_curve_ : list of float
        Negative lower bound of the log-evidence per value after each sweep; for "map" the penalised objective per
        value. Both for y divided by its standard deviation.
    n_iter_ : int
        Number of sweeps.
    n_samples_seen_ : int
        Number of values of `fit`, and of `partial_fit` since, without those of weight 0.
    n_features_in_ : int
        Number of columns of X seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns of X, where they are strings.

    See Also
    --------
    sklowrank.impute.MatrixCompletionImputer : The same model for tables with missing values.

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
        stream = stream_of(observations, found) if streamed else PairStream(None, found.n_values)

        describe = partial(described_pairs, problem, found, found.ends if clip == "observed" else clip, stream, ws)

        def attributes(model):
            models, public = describe(model)
            return fitted_attributes(ws, *models, **public)

        run = drive(self, sweeps(problem, ws), attributes=attributes, X=X, y=y, advice=NOT_CONVERGED)
        models, public = describe(run.state)
        return keep(self, ws, *models, **public, n_iter_=run.n_iter, loss_curve_=run.loss_curve)

    @available_if(KnownPairsMixin._keeps_posterior)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y, sample_weight=None) -> Self:
        """Update the fit with further values, each of which is given once; the first call is `fit`.

        Only for "variational". Rows and columns may be new. The columns' posterior after the earlier values is their
        prior for the new ones (streaming variational Bayes): rows and columns of the batch are solved in turns, a row
        from all of its values. Exact are the equations of these rows and what the new values add to those of the
        columns; approximate is that rows without new values stay as they are when their columns change, and that the
        earlier values' contribution to the columns is not recomputed. The mean, the priors and the components in use
        stay as in the last full fit. Since a few values determine none of these, the first values are kept, and fitted
        anew each time their number has doubled, until there are 20 times as many as rows and columns together (at least
        1,000 and at most 1,000,000). A component that is not found in these stays off. A call copies the factors of all
        rows: pass some thousand values at a time.

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

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.string = True
        tags.transformer_tags.preserves_dtype = []  # precision is that of y
        return partitioned(tags, by="pairs")

    def _absorb(self, batch, stream, ws):
        """Update rows and columns by a batch of observations, and append new ones."""
        if not len(batch.y):
            former = (recall(self, Posterior, ws), recall(self, KnownPairs, ws))
            return keep(self, ws, *former, stream, **public_attributes(self))
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
            **pair_attributes(model, means, None, posterior, ws),
            "row_ids_": row_ids,
            "col_ids_": col_ids,
            "coef_": unit * ws.store(coef) / known.covariate_spread,
            "n_samples_seen_": self.n_samples_seen_ + len(batch.y),
            "n_iter_": self.n_iter_ + ROUNDS,
        }
        models = (posterior._replace(cov=model.cov, noise=model.noise), known, stream)
        return keep(self, ws, *models, **{**public_attributes(self), **changed})
