"""Predictions of classifiers whose networks give a score for each class."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .._core.workspace import Workspace
from .targets import chosen_classes, log_probabilities


class ScoredClasses:
    """Methods of a classifier; its `_scores` validates rows, and returns the workspace and scores (n, n_classes)."""

    if TYPE_CHECKING:
        classes_: np.ndarray
        _scores: Callable[[Any, str], tuple[Workspace, torch.Tensor]]

    def predict(self, X):
        """Return the most probable class of each row.

        Parameters
        ----------
        X : as `fit` takes it, of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        y : array of shape (n_samples,)
        """
        ws, scores = self._scores(X, "predict")
        return chosen_classes(self.classes_, scores.argmax(1), ws)

    def predict_proba(self, X):
        """Return the probabilities of the classes, the softmax of their scores.

        Parameters
        ----------
        X : as `fit` takes it, of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        probabilities : array of shape (n_samples, n_classes)
        """
        ws, scores = self._scores(X, "predict_proba")
        return ws.answer(scores.softmax(1))

    def predict_log_proba(self, X):
        """Return the logarithms of the probabilities of the classes.

        Parameters
        ----------
        X : as `fit` takes it, of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        log_probabilities : array of shape (n_samples, n_classes)
        """
        ws, scores = self._scores(X, "predict_log_proba")
        return log_probabilities(scores, ws)
