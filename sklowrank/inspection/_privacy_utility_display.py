"""A picture of what privacy costs: the score of a private estimator against its budget."""

import warnings
from typing import Any, Self

import numpy as np
from sklearn.base import clone
from sklearn.model_selection import ShuffleSplit, StratifiedShuffleSplit, cross_val_score, validation_curve

from .._core.compat import check_matplotlib_support
from ..privacy import PrivacyLeakWarning, PrivacyWarning

_PRIVATE, _PLAIN = "#0f766e", "#c08a3e"


class PrivacyUtilityDisplay:
    """Scores on rows that were held out, for several budgets, beside an estimator without privacy.

    It fits many times and looks at scores: both say something about the rows. So draw it of public rows that are like
    the private ones, choose `epsilon`, and fit the private rows once. Make one by :meth:`from_estimator`.

    Parameters
    ----------
    epsilons : ndarray of shape (n_epsilons,)
        The budgets.
    scores : ndarray of shape (n_epsilons, n_repeats)
        Scores on rows that were held out.
    reference : ndarray of shape (n_repeats,) or None
        Scores of an estimator without privacy, on the same rows.
    name, reference_name : str
        What is drawn.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    ax_ : matplotlib Axes
        The axes.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklowrank.inspection import PrivacyUtilityDisplay
    >>> from sklowrank.privacy import PrivateSimilarityClassifier
    >>> X, y = load_digits(return_X_y=True)
    >>> model = PrivateSimilarityClassifier(similarity="linear", bounds=(0, 1), classes=range(10))
    >>> display = PrivacyUtilityDisplay.from_estimator(model, X / 16, y, epsilons=[0.01, 10.0], n_repeats=2)
    >>> bool(display.scores[0].mean() < display.scores[1].mean())
    True
    """

    figure_: Any
    ax_: Any

    def __init__(
        self,
        epsilons: np.ndarray,
        scores: np.ndarray,
        *,
        reference: np.ndarray | None = None,
        name: str = "private",
        reference_name: str = "without privacy",
    ):
        self.epsilons = epsilons
        self.scores = scores
        self.reference = reference
        self.name = name
        self.reference_name = reference_name

    @classmethod
    def from_estimator(
        cls,
        estimator,
        X,
        y=None,
        *,
        epsilons=(0.1, 0.3, 1.0, 3.0, 10.0),
        reference=None,
        n_repeats=5,
        test_size=0.25,
        scoring=None,
        random_state=0,
        ax=None,
    ):
        """Fit with each budget, several times, and draw the scores.

        Parameters
        ----------
        estimator : estimator with a parameter `epsilon`
            It is cloned. Without a `random_state` each fit has noise of its own.
        X : array-like of shape (n_samples, n_features)
            Rows; not the private ones.
        y : array-like of shape (n_samples,), default=None
            Their classes, where the estimator asks for them.
        epsilons : array-like of float, default=(0.1, 0.3, 1.0, 3.0, 10.0)
            The budgets.
        reference : estimator, default=None
            One without privacy, fitted and scored on the same rows.
        n_repeats : int, default=5
            How many times rows are split at random.
        test_size : float, default=0.25
            Share of the rows that is held out.
        scoring : str or callable, default=None
            As in :func:`~sklearn.model_selection.validation_curve`; None takes the estimator's own score.
        random_state : int, RandomState instance or None, default=0
            Seeds the splits, not the noise.
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        display : PrivacyUtilityDisplay
        """
        if "epsilon" not in estimator.get_params():
            raise ValueError(f"{type(estimator).__name__} has no parameter epsilon. Pass a private estimator.")
        splits = ShuffleSplit if y is None else StratifiedShuffleSplit
        cv = splits(n_repeats, test_size=test_size, random_state=random_state)
        cv = list(cv.split(X, y))  # the same rows for all
        epsilons = np.sort(np.asarray(epsilons, dtype=float))
        options = {"cv": cv, "scoring": scoring, "error_score": "raise"}
        with warnings.catch_warnings():
            for category in (PrivacyLeakWarning, PrivacyWarning):
                warnings.simplefilter("ignore", category)  # these rows are not private
            name = {"param_name": "epsilon", "param_range": epsilons}
            scores = validation_curve(clone(estimator), X, y, **name, **options)[1]
            plain = None if reference is None else cross_val_score(clone(reference), X, y, **options)
        display = cls(
            epsilons,
            scores,
            reference=plain,
            name=type(estimator).__name__,
            reference_name=f"{type(reference).__name__}, without privacy",
        )
        return display.plot(ax=ax)

    def plot(self, *, ax=None) -> Self:
        """Draw means and ranges of the scores.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Where to draw; None makes a figure.

        Returns
        -------
        self : PrivacyUtilityDisplay
        """
        check_matplotlib_support("PrivacyUtilityDisplay.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(5, 3.4), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        ax.fill_between(self.epsilons, self.scores.min(1), self.scores.max(1), color=_PRIVATE, alpha=0.2, linewidth=0)
        ax.plot(self.epsilons, self.scores.mean(1), "o-", color=_PRIVATE, markersize=4, label=self.name)
        if self.reference is not None:
            ax.axhline(self.reference.mean(), color=_PLAIN, linestyle="--", linewidth=1, label=self.reference_name)
        ax.set_xscale("log")
        ax.set(xlabel="epsilon (smaller: more private)", ylabel="score on rows held out")
        ax.legend(frameon=False, fontsize="small")
        return self
