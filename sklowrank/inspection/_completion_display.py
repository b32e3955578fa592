"""Display of imputed values with their intervals, and with the true values where these are known."""

from typing import Any, Self

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._core.compat import check_matplotlib_support
from .._core.validation import is_integer

_OBSERVED, _FILLED = "0.75", "#0f766e"


class CompletionDisplay:
    """Imputed values of some columns with their intervals, among the observed values or against the true ones.

    Without true values, rows are drawn in their order: observed values as dots, imputed ones with intervals. With them,
    imputed values are drawn against the true ones, and accurate ones lie on the diagonal. Make one by
    :meth:`from_estimator`.

    Parameters
    ----------
    observed : ndarray of shape (n_samples, n_columns)
        The table; NaN is missing.
    filled : ndarray of shape (n_samples, n_columns)
        The filled table.
    half_width : ndarray of shape (n_samples, n_columns) or None
        Half the width of the interval of each imputed value.
    truth : ndarray of shape (n_samples, n_columns) or None
        The whole table.
    names : list of str
        Names of the columns.
    level : float
        Nominal coverage of the intervals.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    axes_ : ndarray of shape (n_columns,)
        One matplotlib Axes for each column.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_wine
    >>> from sklowrank.impute import MatrixCompletionImputer
    >>> from sklowrank.inspection import CompletionDisplay
    >>> X = load_wine(as_frame=True).data
    >>> table = X.mask(np.random.default_rng(0).random(X.shape) < 0.3)
    >>> imputer = MatrixCompletionImputer(random_state=0).fit(table)
    >>> display = CompletionDisplay.from_estimator(imputer, table, X_true=X, features=["flavanoids", "hue"])
    >>> display.axes_.shape
    (2,)
    >>> bool(0.85 < display.coverage() < 1.0)  # of 95 % intervals
    True
    """

    figure_: Any
    axes_: np.ndarray

    def __init__(
        self,
        observed: np.ndarray,
        filled: np.ndarray,
        *,
        half_width: np.ndarray | None = None,
        truth: np.ndarray | None = None,
        names: list[str],
        level: float = 0.95,
    ):
        self.observed = observed
        self.filled = filled
        self.half_width = half_width
        self.truth = truth
        self.names = names
        self.level = level

    @classmethod
    def from_estimator(cls, estimator, X, *, X_true=None, features=None, level=0.95, axes=None):
        """Fill a table and draw some of its columns.

        Parameters
        ----------
        estimator : MatrixCompletionImputer, any other imputer, or a Pipeline that ends with one
            Fitted. Intervals need `transform_std`.
        X : array-like or DataFrame of shape (n_samples, n_features)
            The table; NaN is missing.
        X_true : array-like or DataFrame of shape (n_samples, n_features), default=None
            The complete table, where values were removed to measure the imputation.
        features : list of int or str, default=None
            Columns to draw. None takes the three with the most missing values.
        level : float in (0, 1), default=0.95
            Nominal coverage of the intervals, if errors are normal.
        axes : array of matplotlib Axes, default=None
            Where to draw, one Axes for each column at least. None makes a figure.

        Returns
        -------
        display : CompletionDisplay
        """
        from scipy.special import ndtri

        check_is_fitted(estimator)
        if not 0 < level < 1:
            raise ValueError(f"level={level} must lie strictly between 0 and 1.")
        model, table = estimator, X
        if isinstance(estimator, Pipeline):
            model, table = estimator[-1], estimator[:-1].transform(X) if len(estimator) > 1 else X
        names = [str(name) for name in getattr(table, "columns", np.arange(np.shape(table)[1]))]
        observed, filled = np.asarray(table, dtype=float), np.asarray(model.transform(table), dtype=float)
        if filled.shape != observed.shape:
            raise ValueError(
                f"transform gives {filled.shape[1]} columns for n_features={observed.shape[1]}: some are new or gone. "
                "Fit with keep_empty_features=True and add_indicator=False."
            )
        std = np.asarray(model.transform_std(table), dtype=float) if hasattr(model, "transform_std") else None
        truth = None if X_true is None else np.asarray(X_true, dtype=float)
        if truth is not None and truth.shape != observed.shape:
            raise ValueError(f"X_true has shape {truth.shape}, but X has {observed.shape}.")
        chosen = _chosen(features, names, observed)
        half_width = None if std is None else ndtri(0.5 + level / 2) * std[:, chosen]
        truth = None if truth is None else truth[:, chosen]
        display = cls(
            observed[:, chosen],
            filled[:, chosen],
            half_width=half_width,
            truth=truth,
            names=[names[j] for j in chosen],
            level=level,
        )
        return display.plot(axes=axes)

    def coverage(self):
        """Return the coverage: the share of imputed values whose interval contains the true value.

        Returns
        -------
        share : float
            NaN without intervals or truth.
        """
        if self.half_width is None or self.truth is None:
            return float("nan")
        missing = np.isnan(self.observed) & ~np.isnan(self.truth)
        return (
            float((np.abs(self.filled - self.truth) <= self.half_width)[missing].mean())
            if missing.any()
            else float("nan")
        )

    def plot(self, *, axes=None) -> Self:
        """Draw the columns.

        Parameters
        ----------
        axes : array of matplotlib Axes, default=None
            Where to draw, one Axes for each column at least. None makes a figure.

        Returns
        -------
        self : CompletionDisplay
        """
        check_matplotlib_support("CompletionDisplay.plot")
        import matplotlib.pyplot as plt

        n_columns = len(self.names)
        if axes is None:
            _, axes = plt.subplots(1, n_columns, squeeze=False, figsize=(3.6 * n_columns, 3.4), layout="constrained")
        axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
        if len(axes) < n_columns:
            raise ValueError(f"There are {len(axes)} axes for {n_columns} columns. Pass one for each.")
        self.axes_, self.figure_ = axes[:n_columns], axes[0].figure
        for j, (name, panel) in enumerate(zip(self.names, self.axes_)):
            (self._draw_rows if self.truth is None else self._draw_against_truth)(panel, j)
            panel.set_title(name, fontsize="medium")
        return self

    def _draw_rows(self, panel, j):
        rows, missing = np.arange(len(self.observed)), np.isnan(self.observed[:, j])
        panel.plot(rows[~missing], self.observed[~missing, j], ".", color=_OBSERVED, markersize=4, label="observed")
        self._draw_filled(panel, rows[missing], j, missing)
        panel.set(xlabel="row")
        panel.legend(frameon=False, fontsize="small")

    def _draw_against_truth(self, panel, j):
        missing = np.isnan(self.observed[:, j]) & ~np.isnan(self.truth[:, j])
        self._draw_filled(panel, self.truth[missing, j], j, missing)
        low, high = np.nanmin(self.truth[:, j]), np.nanmax(self.truth[:, j])
        panel.plot([low, high], [low, high], color="0.5", linewidth=0.8)
        panel.set(xlabel="truth", ylabel="filled")

    def _draw_filled(self, panel, x, j, missing):
        width = None if self.half_width is None else self.half_width[missing, j]
        style = {"color": _FILLED, "markersize": 4, "elinewidth": 0.8, "alpha": 0.8}
        label = "filled" if width is None else f"filled, {100 * self.level:g} % intervals"
        panel.errorbar(x, self.filled[missing, j], yerr=width, fmt="o", label=label, **style)


def _chosen(features, names, observed):
    """Return the positions of the columns to draw."""
    if features is None:
        missing = np.isnan(observed).sum(0)
        return np.sort(np.argsort(-missing, kind="stable")[: min(3, len(names))])
    places = []
    for feature in features:
        if isinstance(feature, str) and feature not in names:
            raise ValueError(f"features names {feature!r}, which is no column of X.")
        places.append(names.index(feature) if isinstance(feature, str) else feature)
    if not places or not all(is_integer(place, 0) and place < len(names) for place in places):
        raise ValueError(f"features={features} must name columns of X, which has n_features={len(names)}.")
    return np.array(places)
