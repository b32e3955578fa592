"""The methods of the classifier that ask its label space: errors as distances, the locus, labels to add."""

from typing import Literal

import numpy as np
from sklearn.utils.validation import check_consistent_length, check_is_fitted, column_or_1d

from .._core.compat import check_sample_weight
from .._core.fitted import options, recall
from .._core.validation import check_count, on_host
from ._label_spaces import (
    LabelSpace,
    SpaceOptions,
    distances_from,
    distances_of_pairs,
    observed_distances,
    positions,
)
from ._loci import farthest_labels, locus
from ._trees import next_nodes


class LabelSpaceMixin:
    """Methods that read a label space; :class:`LokiClassifier` makes it.

    ``_means(X, method)`` returns the positions of the predicted labels first.
    """

    def score_distance(self, X, y, sample_weight=None) -> float:
        """Return the mean distance of predictions from the true labels, to the power of `power`; lower is better.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, as the classifier takes them.
        y : array-like of shape (n_samples,)
            Their labels, of `classes_`.
        sample_weight : array-like of shape (n_samples,), default=None
            Weights of the rows.

        Returns
        -------
        score : float
        """
        at, _, _ = self._means(X, "score_distance")
        space = recall(self, LabelSpace, None)
        true = positions(column_or_1d(on_host(y)), space.labels)
        check_consistent_length(at, true)
        weights = check_sample_weight(on_host(sample_weight), true[:, None], ensure_non_negative=True)
        away = distances_of_pairs(space, at.cpu().numpy(), true, options(self, SpaceOptions))
        return float(np.average(away**self.power, weights=weights))

    def locus(self, method: Literal["auto", "exact", "sample"] = "auto"):
        """Return the labels that some probabilities lead to.

        Parameters
        ----------
        method : {"auto", "exact", "sample"}, default="auto"
            "exact": paths between observed nodes for a tree all of whose nodes are labels, the range of observed labels
            on a line, and else a non-negative least squares problem for each label. "sample": labels that are predicted
            for some of 12,288 random probabilities, a part of the locus. "auto" is "sample" where there are more than
            2,000 such problems.

        Returns
        -------
        labels : array of shape (n_labels,)
            In the order of `classes_`.
        """
        check_is_fitted(self)
        space = recall(self, LabelSpace, None)
        return space.labels[locus(space, method, self.power)]

    def next_class(self, n_classes: int = 1, candidates=None):
        """Return the labels from which training rows would be most useful: those farthest from the locus.

        With a tree all of whose nodes are labels, the locus grows by the path to each label that is picked. For other
        metrics, where the paper has no rule, labels are picked farthest first from the locus and from one another.

        Parameters
        ----------
        n_classes : int, default=1
            Number of labels; there are fewer where no label is left outside of the locus.
        candidates : array-like or None, default=None
            Labels to choose from; None is all.

        Returns
        -------
        labels : array of shape (n_labels,)
            In the order in which they are picked.
        """
        check_is_fitted(self)
        n_classes = check_count(n_classes, "n_classes", "next_class")
        space, asked = recall(self, LabelSpace, None), options(self, SpaceOptions)
        allowed = np.arange(len(space.labels)) if candidates is None else np.unique(positions(candidates, space.labels))
        if space.is_whole_tree and self.power >= 1:  # functionals are convex along paths
            label = np.argsort(space.tree.node)  # of each node
            nodes = next_nodes(space.tree, space.tree.node[space.observed], n_classes, space.tree.node[allowed])
            return space.labels[label[nodes]]
        inside = locus(space, "auto", self.power)
        found = farthest_labels(lambda rows: distances_from(space, rows, asked), inside, n_classes, allowed)
        return space.labels[found]

    @property
    def distances_(self):
        """Distances of the observed labels to all."""
        check_is_fitted(self)
        return observed_distances(recall(self, LabelSpace, None))
