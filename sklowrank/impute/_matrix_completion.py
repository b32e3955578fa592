"""Matrix completion for tables: missing values are filled by a low-rank model, with their standard errors."""

from functools import partial
from numbers import Real
from typing import Any, Literal, Self

import numpy as np
import scipy.sparse as sp
import torch
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.impute import MissingIndicator
from sklearn.utils.metaestimators import available_if

from .._core.annotations import RandomState
from .._core.compat import StrOptions, _fit_context
from .._core.fitted import fitted_attributes, keep, options, public_attributes, recall
from .._core.iterate import drive
from .._core.tags import partitioned
from .._core.validation import check_fit_rows, check_new_data, on_host
from .._core.workspace import open_workspace
from ._columns import (
    ColumnOptions,
    Columns,
    cells_of_table,
    column_scaling,
    columns_with_more,
    missing_indicator,
    observed_cells,
    warn_of_dropped,
    which_rows_have_values,
)
from ._fitted_model import Posterior, RowStream, described_table, means_of_known_rows, stream_of, table_attributes
from ._matrix_completion_solver import completion_problem, sweeps
from ._online import ROUNDS, absorb
from ._options import CONSTRAINTS, NOT_CONVERGED, CompletionOptions, check_clip, checked_options
from ._sparse_input import dense_if_zeros, table_validation
from ._table import load_table, stacked
from ._table_methods import CompletedTableMixin


class MatrixCompletionImputer(CallbackSupportMixin, CompletedTableMixin, BaseEstimator):
    """Impute missing values of a numeric table with a low-rank model.

    Missing values are predicted from correlated columns. A drop-in replacement for
    :class:`~sklearn.impute.IterativeImputer` whose cost is linear in the number of observed values, that transforms new
    rows, and that gives the standard error of each imputed value. The default, variational Bayes, has no penalty to
    tune and switches surplus components off. For rows near a curved surface, such as images,
    :class:`~sklearn.impute.KNNImputer` can be more accurate.

    In a dense X, NaN is missing and **zero is a value**. In a sparse X, `unstored` says what cells that are not stored
    mean; a stored zero is a value.

    Parameters
    ----------
    n_components : int or "auto", default="auto"
        Number of components. At least 1; "variational" inference uses at most this number: with "auto", which is
        ``max(1, min(20, n_features - 1, n_samples - 1))``, those that raise the lower bound of the evidence, with an
        int those that stay in use. The cost of a sweep grows with it. An int above ``min(n_samples, n_features)`` is
        reduced to that, with a warning.
    inference : {"variational", "map"}, default="variational"
        Kind of inference. "variational": variational Bayes, which learns the noise of each column and the variance of
        each component, and gives standard errors. "map": penalised alternating least squares, which is faster, needs
        `alpha` tuned and gives no standard errors.
    alpha : float, default=1.0
        Strength of the penalty. Only for "map": the weight of the squared factors and offsets, at least 0. Raising it
        shrinks imputed values towards the column means.
    solver : {"auto", "cholesky", "cg"}, default="auto"
        Algorithm of the fit. Only for "map". "cholesky" solves exactly, in time proportional to the square of
        `n_components`; "cg" takes a few steps of conjugate gradients per sweep, in time proportional to `n_components`;
        "auto" is "cholesky" up to 16 components and "cg" above.
    cg_steps : int, default=3
        Number of conjugate-gradient steps per half sweep, warm-started. Only for ``solver="cg"``.
    fit_intercept : bool, default=True
        Whether to fit intercepts. If True, columns are centred and each row and column has an offset; if False,
        nothing is subtracted.
    scale : bool, default=True
        Whether to divide each column by its standard deviation. That of its observed values.
    nonnegative : bool, default=False
        Whether factors are non-negative. Only for "map" without conjugate gradients; columns are not centred
        and there are no offsets.
    clip : None, "observed" or (low, high), default=None
        Bounds of the predicted values. The observed range of each column, or two bounds, each of them a number or an
        array of shape (n_features,), -inf and inf included.
    init : {"svd", "random"}, default="svd"
        Initialisation of the fit. Only for "map": the leading singular vectors of the zero-filled table, or random
        factors.
    max_iter : int, default=1000
        Maximum number of iterations. An iteration is a sweep over rows and columns.
    tol : float, default=1e-3
        Tolerance of the stopping criterion. "variational": the change of the logarithm of the noise variance and of the
        lower bound per observed value in a sweep; "map": the relative change of the root mean squared residual.
    missing_values : float or int, default=nan
        Placeholder of missing values in X.
    unstored : {"auto", "missing", "zero"}, default="auto"
        Meaning of the cells that a sparse matrix, or a sparse column of a data frame, does not store. "missing":
        missing values, as in ratings; the table never becomes dense. "zero": zeros, as in one-hot columns; the table is
        made dense, at most 2**27 cells. "auto": the fill value of a column of a data frame; in a matrix that stores
        missing values (NaN, or `missing_values`) zeros; in any other matrix missing values, with a warning. The meaning
        found in `fit` holds for later matrices too.
    add_indicator : bool, default=False
        Whether to append an indicator column, 1 where the value is missing, for each feature with missing values in
        `fit`.
    keep_empty_features : bool, default=False
        Whether to keep features without any observed value, as zeros. Otherwise they are dropped, with a warning.
    batch_size : int or "auto", default="auto"
        Number of rows processed at once; it bounds memory and does not change the result. "auto" bounds the equations
        of a block of rows to 32 MiB.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration.

    Attributes
    ----------
    components_ : ndarray of shape (n_components, n_features)
        Column factors, strongest first; the largest entry of each is positive. Components switched off, and columns
        that the model leaves out (empty, or constant under `fit_intercept`), are zero.
    row_embedding_ : ndarray of shape (n_samples, n_components)
        Row factors of the training rows.
    row_intercept_ : ndarray of shape (n_samples,)
        Row offsets, in units of the scaled columns.
    intercept_ : ndarray of shape (n_features,)
        Column offsets, in units of the scaled columns.
    mean_ : ndarray of shape (n_features,)
        Means of the observed values; zeros without `fit_intercept`, NaN where nothing was observed. The model of a
        value is ``mean_ + scale_ * (row_intercept_ + row_embedding_ @ components_ + intercept_)``.
    scale_ : ndarray of shape (n_features,)
        Standard deviations of the observed values; 1 where it is 0 or `scale` is False.
    noise_variance_ : float
        Noise variance in squared units of the scaled columns, the mean over columns; for "map" the mean squared
        residual.
    feature_noise_variance_ : ndarray of shape (n_features,)
        Noise variance of each column, in squared units of the scaled columns; for "map" the mean squared residual.
    component_variance_ : ndarray of shape (n_components,)
        Variance of the scaled table that each component explains: the product of the mean squares of its row factors
        and of its column factors.
    n_components_effective_ : int
        Number of components with a variance above 0.1 % of the largest.
    components_cov_ : ndarray of shape (n_features, n_components + 1, n_components + 1)
        Posterior covariance of each column's factors and offset. Only for "variational".
    loss_curve_ : list of float
        Negative lower bound of the log-evidence per observed value after each sweep, which can rise where components
        are added; for "map" the penalised objective per observed value. Both in units of the scaled columns, divided by
        their root mean square.
    n_iter_ : int
        Number of sweeps, those over a sample of the rows included.
    indicator_ : MissingIndicator or None
        Scikit-learn's indicator of the features with missing values in `fit`; None without `add_indicator`.
    unstored_ : {"missing", "zero"} or None
        What the unstored cells of a sparse X meant in `fit`; None where it had none, or columns that differ.
    n_samples_seen_ : int
        Number of rows of `fit`, and of `partial_fit` since.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features, where X had names that are strings.

    See Also
    --------
    sklowrank.recommend.MatrixFactorizationRegressor : The same model for (row, column, value) lists.
    sklearn.impute.IterativeImputer : One regression per column, in turns.
    sklearn.impute.KNNImputer : Means over similar rows.

    Notes
    -----
    A scaled cell is :math:`x_{ij} = u_i^\\top v_j + b_i + c_j + \\varepsilon_{ij}` with
    :math:`\\varepsilon_{ij} \\sim N(0, \\sigma_j^2)` and normal priors whose variances are learnt, one per component
    ("automatic relevance determination"). "variational" maximises the lower bound of the evidence over
    :math:`\\prod_i q(u_i, b_i) \\prod_j q(v_j, c_j)`; rotating the factors after each sweep so that both sides are
    uncorrelated lets it converge in tens of sweeps. The noise variance of a column is drawn towards the common one,
    on the log scale, with the weight of five cells. The offsets of the columns have a prior variance of at least 1 in
    units of the scaled columns, so that the mean of a column is estimated by the model, not by its observed values,
    where values are missing at random given other columns. Components are added, five at first, to a fit that has
    nearly converged; in tables of more than 4,096 rows and 32 rows per column their number is found on half as many
    rows, drawn at random. The
    posterior is computed in float64 whatever the precision of X. "map" minimises

    .. math:: \\sum_{ij\\ \\mathrm{observed}} (x_{ij} - u_i^\\top v_j - b_i - c_j)^2
              + \\alpha \\left(\\|U\\|^2 + \\|V\\|^2 + \\|b\\|^2 + \\|c\\|^2\\right).

    With k components a sweep costs O(cells k²) for the sums and O((n_samples + n_features) k³) for the solves; with
    conjugate gradients O(cells k). Memory: two copies of the table, n_features k² numbers, and a block of rows.
    The posterior of rows given columns is exact, and the other way round; the approximation is that both are
    independent, which makes standard errors slightly too small where there are few columns.

    References
    ----------
    .. [1] A. Ilin, T. Raiko, "Practical approaches to principal component analysis in the presence of missing values",
       Journal of Machine Learning Research, 2010.
    .. [2] P. Jain, P. Netrapalli, S. Sanghavi, "Low-rank matrix completion using alternating minimization", STOC 2013.
    .. [3] Y. Gu, Z. Song, J. Yin, L. Zhang, "Low rank matrix completion via robust alternating minimization in nearly
       linear time", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.impute import MatrixCompletionImputer
    >>> x = np.arange(1.0, 41.0)
    >>> X = np.column_stack([x, 2 * x, 50 - x, np.sqrt(x)])
    >>> X[2, 1] = np.nan
    >>> imputer = MatrixCompletionImputer(2, random_state=0).fit(X)
    >>> imputer.transform(X)[2].round(1)
    array([ 3. ,  6. , 47. ,  1.7])
    >>> bool(0 < imputer.transform_std(X)[2, 1] < 0.5)
    True
    """

    _parameter_constraints = {
        **CONSTRAINTS,
        "scale": ["boolean"],
        "missing_values": [Real],
        "unstored": [StrOptions({"auto", "missing", "zero"})],
        "add_indicator": ["boolean"],
        "keep_empty_features": ["boolean"],
    }

    # Set by fit
    components_: np.ndarray
    row_embedding_: np.ndarray
    row_intercept_: np.ndarray
    intercept_: np.ndarray
    mean_: np.ndarray
    scale_: np.ndarray
    noise_variance_: float
    feature_noise_variance_: np.ndarray
    component_variance_: np.ndarray
    n_components_effective_: int
    loss_curve_: list[float]
    n_iter_: int
    indicator_: MissingIndicator | None
    unstored_: Literal["missing", "zero"] | None
    n_samples_seen_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int | Literal["auto"] = "auto",
        *,
        inference: Literal["variational", "map"] = "variational",
        alpha: float = 1.0,
        solver: Literal["auto", "cholesky", "cg"] = "auto",
        cg_steps: int = 3,
        fit_intercept: bool = True,
        scale: bool = True,
        nonnegative: bool = False,
        clip: tuple[ArrayLike, ArrayLike] | list[Any] | Literal["observed"] | None = None,
        init: Literal["svd", "random"] = "svd",
        max_iter: int = 1000,
        tol: float = 1e-3,
        missing_values: float = np.nan,
        unstored: Literal["auto", "missing", "zero"] = "auto",
        add_indicator: bool = False,
        keep_empty_features: bool = False,
        batch_size: int | Literal["auto"] = "auto",
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.inference = inference
        self.alpha = alpha
        self.solver = solver
        self.cg_steps = cg_steps
        self.fit_intercept = fit_intercept
        self.scale = scale
        self.nonnegative = nonnegative
        self.clip = clip
        self.init = init
        self.max_iter = max_iter
        self.tol = tol
        self.missing_values = missing_values
        self.unstored = unstored
        self.add_indicator = add_indicator
        self.keep_empty_features = keep_empty_features
        self.batch_size = batch_size
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Fit the model to the observed cells.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The table. NaN, or `missing_values`, is missing; of a sparse X see `unstored`.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : MatrixCompletionImputer
        """
        X, meaning = dense_if_zeros(X, self.unstored, self.missing_values)
        X = check_fit_rows(self, X, sliced=False, **table_validation(self.missing_values))
        return self._fit(X, y, meaning, RowStream(None, X.shape[0]))

    def _fit(self, X, y, meaning, stream):
        """Fit to a validated table, of whose unstored cells the meaning is known."""
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        ws = ws.exact() if self.inference == "variational" else ws
        chosen = checked_options(options(self, CompletionOptions), X.shape)
        of_columns = options(self, ColumnOptions, clip=check_clip(self.clip, X.shape[1]), centred=chosen.offsets)
        rows = load_table(X, ws, self.missing_values)
        columns, unit = column_scaling(rows, of_columns, ws)
        warn_of_dropped(columns, getattr(self, "feature_names_in_", np.arange(X.shape[1])))
        cells, sample, has_values = cells_of_table(rows, columns, unit, ws)
        problem = completion_problem(cells, chosen, unit, sample=sample, offset_variance=1.0)

        indicator = missing_indicator(columns, self.missing_values) if self.add_indicator else None
        known = {"indicator_": indicator, "unstored_": meaning, "n_samples_seen_": X.shape[0]}
        describe = partial(described_table, problem, columns, has_values, known, stream, ws)

        def attributes(model):
            models, public = describe(model)
            return fitted_attributes(ws, *models, **public)

        run = drive(self, sweeps(problem, ws), attributes=attributes, X=X, y=y, advice=NOT_CONVERGED)
        models, public = describe(run.state)
        return keep(self, ws, *models, **public, n_iter_=run.n_iter, loss_curve_=run.loss_curve)

    @available_if(CompletedTableMixin._keeps_posterior)
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y=None) -> Self:
        """Update the fit with further rows, each of which is given once; the first call is `fit`.

        Only for "variational". The columns' posterior after the earlier rows is their prior for the new ones (streaming
        variational Bayes): new rows and columns are solved in turns, and nothing of the earlier rows is needed. Exact
        are the equations of new rows and what they add to those of the columns; approximate is that earlier rows are
        not visited again, so that their `row_embedding_` belongs to the columns of then. Means, scales, priors, the
        components in use and the features that are dropped or have indicators stay as in the last full fit. Since a few
        rows determine none of these, the first 1,000 rows are kept, and fitted anew each time their number has doubled.
        A call copies the factors of all rows so far: pass some hundred rows at a time.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The new rows.
        y : ignored
            Present for pipelines.

        Returns
        -------
        self : MatrixCompletionImputer
            `row_embedding_` and `row_intercept_` have the rows of all calls; `n_iter_` counts rounds.
        """
        first = not hasattr(self, "_fitted")
        seen = None if first else self.unstored_
        X, meaning = dense_if_zeros(X, self.unstored, self.missing_values, seen=seen)
        if first:
            X = check_fit_rows(self, X, sliced=False, **table_validation(self.missing_values))
            return self._fit(X, y, meaning, stream_of(X))
        validation = table_validation(self.missing_values)
        X = check_new_data(self, X, like="components_", method="partial_fit", **validation)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        stream = recall(self, RowStream, ws)
        if stream.first_rows is not None:
            stream = stream._replace(first_rows=stacked(stream.first_rows, on_host(X)))
            if stream.first_rows.shape[0] >= 2 * stream.n_rows_fitted:
                X = stream.first_rows
                X = X if sp.issparse(X) else ws.store(torch.from_numpy(X))  # in the user's library
                return self._fit(X, y, seen or meaning, stream_of(X))
        return self._absorb(load_table(X, ws, self.missing_values), stream, ws.exact())

    def _absorb(self, rows, stream, ws):
        """Update the columns with further rows of a loaded table, and append these."""
        (columns, model, chosen), posterior = self._recall(ws), recall(self, Posterior, ws)
        cells, there = observed_cells(rows, columns, ws), which_rows_have_values(rows, ws)
        means = means_of_known_rows(posterior, ws.load(self.row_embedding_), ws.load(self.row_intercept_))
        new = means.new_zeros(len(rows), means.shape[1])
        if cells.column_counts.sum() > 0:
            model, new[there] = absorb(cells, model, columns.count[columns.modelled], chosen)
        columns = columns_with_more(recall(self, Columns, ws), rows, widened=self.clip == "observed")
        means, unit = torch.cat([means, new]), posterior.unit
        changed = table_attributes(model, means, None, columns, unit, chosen, ws)
        counts = {"n_samples_seen_": self.n_samples_seen_ + len(rows), "n_iter_": self.n_iter_ + ROUNDS}
        models = (Posterior(*model[1:], unit, chosen), columns, stream)
        return keep(self, ws, *models, **{**public_attributes(self), **changed, **counts})

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.allow_nan = bool(np.isnan(self.missing_values))
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)
