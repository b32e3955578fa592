"""Image of an affinity matrix with rows sorted by cluster."""

from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array, issparse
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._core.compat import check_matplotlib_support, move_to
from .._core.validation import is_integer


class AffinityDisplay:
    """Visualization of an affinity matrix, with rows sorted by cluster.

    Clusters that are well separated are blocks of high affinity on the diagonal. High affinity outside of the blocks
    connects clusters. Use :meth:`from_estimator` to create a display.

    Parameters
    ----------
    image : ndarray of shape (n_cells, n_cells)
        Mean affinities of groups of consecutive rows.
    ends : ndarray of shape (n_clusters,)
        Positions at which clusters end, in cells of the image.
    labels : ndarray of shape (n_clusters,)
        Labels of the clusters.
    within : float
        Share of the affinity within clusters, between 0 and 1.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    ax_ : matplotlib Axes
        The axes.

    Examples
    --------
    >>> from sklowrank.cluster import ThresholdedSubspaceClustering
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> from sklowrank.inspection import AffinityDisplay
    >>> X, y, _ = make_union_of_subspaces(n_clusters=3, noise=0.05, random_state=0)
    >>> model = ThresholdedSubspaceClustering(3, random_state=0).fit(X)
    >>> display = AffinityDisplay.from_estimator(model)
    >>> bool(display.within > 0.9)
    True
    """

    figure_: Any
    ax_: Any

    def __init__(self, image: np.ndarray, *, ends: np.ndarray, labels: np.ndarray, within: float):
        self.image = image
        self.ends = ends
        self.labels = labels
        self.within = within

    @classmethod
    def from_estimator(cls, estimator, *, labels=None, n_cells=300, ax=None, cmap="magma"):
        """Create a display of the affinity matrix of a fitted clusterer.

        Parameters
        ----------
        estimator : estimator or Pipeline
            Fitted clusterer with `affinity_matrix_`, sparse or dense. Of a pipeline the last step is used.
        labels : array-like of shape (n_samples,), default=None
            Labels to sort rows by, such as known classes. None uses `labels_`.
        n_cells : int, default=300
            Maximum number of cells along an edge of the image. With more rows each cell is a mean over rows.
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.
        cmap : str, default="magma"
            Name of the colormap, from affinity 0 to the largest.

        Returns
        -------
        display : AffinityDisplay
        """
        check_is_fitted(estimator)
        model = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        affinity = getattr(model, "affinity_matrix_", None)
        if affinity is None:
            raise ValueError(
                f"{type(model).__name__} has no affinity_matrix_. Pass a self-expressive clusterer, KSubspaces with "
                "an ensemble, or scikit-learn's SpectralClustering."
            )
        if not is_integer(n_cells):
            raise ValueError(f"n_cells={n_cells!r} should be an integer of at least 1.")
        affinity = affinity if issparse(affinity) else csr_array(move_to(affinity, xp=np, device="cpu"))
        labels = move_to(model.labels_, xp=np, device="cpu") if labels is None else np.asarray(labels)
        if labels.shape != affinity.shape[:1]:
            raise ValueError(f"labels has shape {labels.shape}, but the affinity matrix has shape {affinity.shape}.")
        names, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
        image, scale = _image(affinity, np.argsort(place, kind="stable"), n_cells)
        return cls(image, ends=np.cumsum(counts) * scale, labels=names, within=_share_within(affinity, place)).plot(
            ax=ax, cmap=cmap
        )

    def plot(self, *, ax=None, cmap="magma") -> Self:
        """Plot the image.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.
        cmap : str, default="magma"
            Name of the colormap, from affinity 0 to the largest.

        Returns
        -------
        self : AffinityDisplay
        """
        check_matplotlib_support("AffinityDisplay.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(4.6, 4.6), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        size = len(self.image)
        ax.imshow(self.image**0.5, cmap=cmap, extent=(0, size, size, 0), vmin=0)  # the root makes weak edges visible
        for end in self.ends[:-1]:
            ax.axhline(end, color="white", linewidth=0.6, alpha=0.7)
            ax.axvline(end, color="white", linewidth=0.6, alpha=0.7)
        middles = (np.r_[0, self.ends[:-1]] + self.ends) / 2
        ax.set_xticks([])
        ax.set_yticks(middles, [str(label) for label in self.labels])
        ax.tick_params(axis="y", length=0)
        ax.set(ylabel="cluster", title=f"{100 * self.within:.0f} % of the affinity within clusters")
        return self


def _image(affinity, order, n_cells):
    """Return means of the affinity over groups of rows in the given order, and the number of cells per row."""
    n = len(order)
    cells = min(n, n_cells)
    group = np.empty(n, dtype=np.int64)
    group[order] = np.arange(n) * cells // n
    entries = affinity.tocoo()
    size = np.bincount(group, minlength=cells)
    sums = np.zeros((cells, cells))
    np.add.at(sums, (group[entries.row], group[entries.col]), np.abs(entries.data))
    return sums / np.outer(size, size), cells / n


def _share_within(affinity, place):
    """Return the share of the affinity within clusters, without the diagonal."""
    entries = affinity.tocoo()
    apart = entries.row != entries.col
    weights = np.abs(entries.data[apart])
    total = weights.sum()
    return float(weights[place[entries.row[apart]] == place[entries.col[apart]]].sum() / total) if total else 1.0
