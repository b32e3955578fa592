"""Parameters, methods and covariates that both supervised dictionaries have."""

from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from scipy.sparse import issparse
from sklearn.base import ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_array, check_consistent_length
from sklearn.utils.validation import check_is_fitted

from ..._core.compat import (
    Interval,
    StrOptions,
    check_same_namespace,
    get_column_indices,
    get_feature_names,
    get_namespace,
)
from ..._core.docs import documented as filled
from ..._core.fitted import fitted_attributes, keep, recall
from ..._core.iterate import drive
from ..._core.rows import MappedRows, Rows, first_rows, map_rows, rows_of
from ..._core.tags import partitioned
from ..._core.validation import check_new_data
from ..._core.warn import warn
from ..._core.workspace import check_place, open_workspace
from .problem import Dictionary, codes_of, described, fitted_dictionary, refined, scores_of, solver_steps

CONSTRAINTS = {
    "n_components": [Interval(Integral, 1, None, closed="left")],
    "model": [StrOptions({"filter", "feature"})],
    "xi": [Interval(Real, 0, None, closed="left")],
    "C": [Interval(Real, 0, None, closed="neither")],
    "solver": [StrOptions({"auto", "lbfgs", "lpgd", "bcd"})],
    "nonnegative": ["boolean", StrOptions({"components", "codes"})],
    "center": ["boolean", StrOptions({"auto"})],
    "fit_intercept": ["boolean"],
    "covariate_columns": [None, "array-like", slice, callable],
    "init": [StrOptions({"auto", "svd", "nmf"}), "array-like"],
    "max_iter": [Interval(Integral, 1, None, closed="left")],
    "tol": [Interval(Real, 0, None, closed="left")],
    "device": [str],
    "random_state": ["random_state"],
    "verbose": ["verbose"],
}
_PARAMETERS = """
    n_components : int, default=5
        Number of components. Values above min(n_samples, n_features) are lowered to it, with a warning.
    model : {"filter", "feature"}, default="filter"
        Input of the prediction: "filter" takes the projections of the features on the components, "feature" the codes.
        In `fit` the codes of "feature" depend on y; its weights are refitted at the end on codes that do not. "feature"
        overfits where the codes can follow y at little cost: lower `C` to 0.1 or less then, and `xi` to about 0.01
        where the directions of largest variance are unrelated to y.
    xi : float, default=0.1
        Weight of the relative reconstruction error, at least 0. With 0 only the prediction counts, 0.03 to 1 is useful,
        from 3 on the components are nearly those of PCA (or NMF).
    C : float, default=1.0
        Inverse strength of the L2 penalty, above 0. The penalty is in units of X: scale the features.
    solver : {"auto", "lbfgs", "lpgd", "bcd"}, default="auto"
        Algorithm of the fit. "lbfgs" eliminates the codes, and runs 50 iterations of L-BFGS and then Newton's method;
        it is for the filter model without sign constraints. "lpgd" solves the same problem by projected gradients on a
        lifted convex one, to fewer digits. "bcd" is block coordinate descent, for `nonnegative` and the feature model.
        "auto" is "bcd" for these and "lbfgs" otherwise.
    nonnegative : bool, "components" or "codes", default=False
        Whether factors are non-negative. True constrains components and codes. Weights of the prediction are free.
    center : bool or "auto", default="auto"
        Whether to subtract the column means. "auto" is True for dense X without `nonnegative`. Sparse X stays sparse.
    fit_intercept : bool, default=True
        Whether to fit intercepts. Without one, y is not centred either.
"""
_LAST_PARAMETERS = """
    covariate_columns : None, list of int or str, slice, mask of bool or callable, default=None
        Columns of X that are covariates: they enter the prediction and not the dictionary. A callable is given X.
        Standardise them. Their penalty is a hundredth of that of the features.
    init : {"auto", "svd", "nmf"} or array of shape (n_components, n_features), default="auto"
        Initialisation of the fit. "svd" are the leading singular vectors, "nmf" their NNDSVD. "auto" is "nmf" for
        non-negative components and "svd" otherwise.
    max_iter : int, default=1000
        Maximum number of iterations.
    tol : float, default=1e-7
        Tolerance of the stopping criterion. The fit stops when four iterations, or one step of Newton's method, lower
        the objective by this share at most. The solution of "lbfgs" is then refined until a step is worth about tol² of
        the objective, so that parameters are about `tol` from the optimum.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1".
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results.
    verbose : int, default=0
        0 prints nothing, 1 prints a line per iteration.
"""
_ATTRIBUTES = """
    components_ : array of shape (n_components, n_features_dictionary)
        Dictionary: orthonormal rows, or rows of unit length where signs are constrained, by descending sum of squares
        of their codes. The largest entry of each is positive, unless only codes are non-negative. Columns are the
        features without covariates.
    coef_ : array of shape (n_scores, n_components)
        Weights of the prediction on the components. `n_scores` is the number of classes from three on, else 1.
    covariate_coef_ : array of shape (n_scores, n_covariates)
        Weights of the covariates.
    intercept_ : array of shape (n_scores,)
        Intercepts.
    feature_coef_ : array of shape (n_scores, n_features_dictionary)
        ``coef_ @ components_``: the weights of the features in the filter model.
    mean_ : array of shape (n_features_dictionary,)
        Subtracted column means; zeros without centring.
    reconstruction_error_ : float
        Squared error of the training rows reconstructed from their codes, as a share of their squares about `mean_`.
    loss_curve_ : list of float
        Objective after each iteration; for numbers, that of y divided by its standard deviation.
    n_iter_ : int
        Number of iterations.
    covariate_indices_ : ndarray of shape (n_covariates,)
        Positions of the covariates among the columns of X; empty if they were passed as ``covariates=`` or not at all.
    covariate_names_in_ : ndarray of shape (n_covariates,)
        Names of the columns of ``covariates=``, where all are strings. Later calls need them in the same order.
    n_features_in_ : int
        Number of features seen in `fit`.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the features seen in `fit`, if X had names that are strings.
"""
_MOST_NAMED = 5  # covariates in an error


# Fills the lines <shared ...> of a class's docstring with what both estimators have.
documented = filled(
    **{"shared parameters": _PARAMETERS, "shared last parameters": _LAST_PARAMETERS, "shared attributes": _ATTRIBUTES}
)


class DictionaryMethods(ClassNamePrefixFeaturesOutMixin, TransformerMixin):
    """Methods of estimators with a dictionary in `components_` and a linear rule on what it reads."""

    def _solve(self, problem, X, y, ws, **known):
        """Solve a problem and keep the model, with attributes that are known beforehand."""

        def attributes(state):
            dictionary = fitted_dictionary(problem, state)
            return fitted_attributes(ws, dictionary, **described(dictionary, ws.dtype), **known)

        run = drive(self, solver_steps(problem), attributes=attributes, X=X, y=y)
        dictionary = fitted_dictionary(problem, refined(problem, run.state, run.converged))
        found = described(dictionary, ws.dtype)
        return keep(self, ws, dictionary, **found, **known, n_iter_=run.n_iter, loss_curve_=run.loss_curve)

    def transform(self, X):
        """Return codes: coordinates of the rows in the dictionary, by least squares. They do not depend on y.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            Rows, with the columns of covariates where `covariate_columns` names some.

        Returns
        -------
        H : array of shape (n_samples, n_components)
            Codes.
        """
        X = check_new_data(self, X, like="components_", method="transform", accept_sparse="csr")
        ws = open_workspace(X, device=self.device)
        features, _ = split_columns(rows_of(X, ws), _on_host(self.covariate_indices_, ws), None, ws)
        return ws.store(codes_of(recall(self, Dictionary, ws), features.take(slice(None)), ws))

    def inverse_transform(self, X):
        """Return the rows that codes stand for.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_components)
            Codes.

        Returns
        -------
        rows : array of shape (n_samples, n_features_dictionary)
            Rows without the columns of covariates.
        """
        check_is_fitted(self)
        check_same_namespace(X, self, attribute="components_", method="inverse_transform")
        H = check_array(X, dtype="numeric", input_name="codes")
        ws = open_workspace(self.components_, device=self.device)
        n_components = self.components_.shape[0]
        if H.shape[1] != n_components:
            raise ValueError(f"codes have {H.shape[1]} columns, but the dictionary has n_components={n_components}.")
        return ws.store(ws.load(H).to(ws.dtype) @ ws.load(self.components_) + ws.load(self.mean_))

    @property
    def _n_features_out(self):
        return self.components_.shape[0]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.input_tags.sparse = True
        tags.input_tags.positive_only = self.nonnegative is True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return partitioned(tags)

    def _scores(self, X, covariates, method):
        """Return the scores (n, n_scores) of rows, a tensor, and their workspace."""
        X = check_new_data(self, X, like="components_", method=method, accept_sparse="csr")
        ws = open_workspace(X, device=self.device)
        check_covariate_names(covariates, getattr(self, "covariate_names_in_", None), type(self).__name__)
        dictionary = recall(self, Dictionary, ws)
        n_covariates = dictionary.covariate_coef.shape[1]
        indices = _on_host(self.covariate_indices_, ws)
        features, Z = split_columns(rows_of(X, ws), indices, covariates, ws, n_covariates)
        return scores_of(dictionary, features.take(slice(None)), Z, ws), ws


def _on_host(indices, ws):
    return ws.load(indices).cpu().numpy()


# Covariates


def covariate_indices(columns, X):
    """Return the positions (q,) of the columns of X that `covariate_columns` names; X as the user gave it."""
    if columns is None:
        return np.zeros(0, dtype=np.int64)
    X = first_rows(X)
    if callable(columns):
        columns = columns(X)
    if not isinstance(columns, slice):
        columns = list(columns)
    if isinstance(columns, list) and not columns:
        return np.zeros(0, dtype=np.int64)
    if not hasattr(X, "shape"):
        X = np.asarray(X)
    if columns == slice(None):
        return np.arange(X.shape[1])
    return np.asarray(get_column_indices(X, columns), dtype=np.int64)


def split_columns(rows, indices, covariates, ws, expected=None):
    """Return the features, as rows, and the covariates, a tensor (n, q).

    `indices` are the columns of `rows` that are covariates; without any, `covariates` is the user's table of them, or
    None. `expected` is the number of covariates seen in fit, None in fit itself.

    Raises
    ------
    ValueError
        If covariates are given twice, are missing, or have another shape than in fit.
    """
    if not len(indices):
        return rows, _checked_covariates(covariates, len(rows), ws, expected)
    if covariates is not None:
        raise ValueError("Covariates are columns of X (covariate_columns): covariates= cannot be given as well.")
    others = np.setdiff1d(np.arange(rows.shape[1]), indices)
    if not len(others):
        raise ValueError("covariate_columns names all columns of X, which leaves no feature for the dictionary.")
    Z = map_rows(rows, partial(_dense_columns, indices), size=16 * rows.shape[1]).to(ws.device)
    features = MappedRows(rows, partial(_columns, others), len(others))
    in_memory = rows.kind in ("memory", "csr")
    return Rows(features.take(slice(None))) if in_memory else features, Z


def _columns(indices, X):
    return X[:, indices] if issparse(X) else X[:, torch.from_numpy(indices).to(X.device)]


def _dense_columns(indices, X):
    X = _columns(indices, X)
    return torch.from_numpy(X.toarray()) if issparse(X) else X


def _checked_covariates(covariates, n_samples, ws, expected):
    """Return covariates that are no columns of X, (n, q)."""
    if covariates is None:
        if expected:
            raise ValueError(f"This model was fitted with {expected} covariates: pass covariates= here, too.")
        return torch.zeros(n_samples, 0, dtype=ws.dtype, device=ws.device)
    check_place(covariates, "covariates")
    xp, _ = get_namespace(covariates)
    try:
        Z = check_array(covariates, dtype=[xp.float64, xp.float32], input_name="covariates")
    except ValueError as error:
        if "covariates" in str(error):
            raise
        raise ValueError(f"covariates cannot be used: {error}") from error
    check_consistent_length(range(n_samples), Z)
    if expected is not None and Z.shape[1] != expected:
        raise ValueError(f"covariates has {Z.shape[1]} columns, but fit was given {expected}.")
    return ws.load(Z).to(ws.dtype)


def covariate_attributes(covariates, indices, ws):
    """Return the fitted attributes of covariates: `covariate_names_in_` only where all columns have text for a name."""
    found = {"covariate_indices_": torch.from_numpy(indices).to(ws.device)}
    names = None if covariates is None else get_feature_names(covariates)
    return found if names is None else {**found, "covariate_names_in_": names}


def check_covariate_names(covariates, seen, kind):
    """Compare the names of covariates with those `seen` in fit of a `kind`, as scikit-learn does with those of X.

    Raises
    ------
    ValueError
        If names differ, or stand in another order.
    """
    names = None if covariates is None else get_feature_names(covariates)
    if covariates is None or (names is None and seen is None):
        return
    if seen is None:
        warn(f"covariates has column names, but {kind} was fitted to covariates without names.", UserWarning)
    elif names is None:
        warn(f"covariates has no valid column names, but {kind} was fitted to covariates with names.", UserWarning)
    elif list(names) != list(seen):
        differences = {
            "Covariate names unseen at fit time:": sorted(set(names) - set(seen)),
            "Covariate names seen at fit time, yet now missing:": sorted(set(seen) - set(names)),
        }
        lines = ["The covariate names should match those that were passed during fit."]
        for what, some in differences.items():
            if some:
                lines += [what, *(f"- {name}" for name in some[:_MOST_NAMED])] + ["- ..."] * (len(some) > _MOST_NAMED)
        if not any(differences.values()):
            lines.append("Covariate names must be in the same order as they were in fit.")
        raise ValueError("\n".join(lines) + "\n")
