"""Plot of an embedding, with the errors of the distances of each row."""

from typing import Any, Self

import numpy as np
from scipy.spatial.distance import cdist
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_array, check_is_fitted

from .._core.blocks import in_blocks, rows_per_block
from .._core.compat import check_matplotlib_support, move_to
from .._core.validation import on_host


class EmbeddingDisplay:
    """Visualization of an embedding in the plane, with rows coloured by the errors of their distances.

    Distances of dark rows in the plot are those of the data; of bright rows some are not. Use
    :meth:`from_estimator` or :meth:`from_embedding` to create a display.

    Parameters
    ----------
    embedding : ndarray of shape (n_samples, 2)
        The embedded rows.
    errors : ndarray of shape (n_samples,)
        Error of each row: the root of its squared errors of distances over the sum of its squared distances.
    stress : float
        The same of all rows together.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    ax_ : matplotlib Axes
        The axes.

    See Also
    --------
    sklowrank.manifold.HeatGeodesicEmbedding : An embedding by geodesic distances.
    sklearn.manifold.Isomap : Another one.

    Examples
    --------
    >>> from sklearn.datasets import make_swiss_roll
    >>> from sklowrank.inspection import EmbeddingDisplay
    >>> from sklowrank.manifold import HeatGeodesicEmbedding
    >>> X, _ = make_swiss_roll(200, random_state=0)
    >>> display = EmbeddingDisplay.from_estimator(HeatGeodesicEmbedding(random_state=0).fit(X))
    >>> display.errors.shape
    (200,)
    >>> bool(display.stress < 0.1)
    True
    """

    figure_: Any
    ax_: Any

    def __init__(self, embedding: np.ndarray, *, errors: np.ndarray, stress: float):
        self.embedding = embedding
        self.errors = errors
        self.stress = stress

    @classmethod
    def from_estimator(cls, estimator, *, ax=None, cmap="viridis"):
        """Create a display of a fitted embedding.

        Parameters
        ----------
        estimator : estimator or Pipeline
            Fitted estimator with `embedding_` and `dist_matrix_`, such as
            :class:`~sklowrank.manifold.HeatGeodesicEmbedding` or :class:`~sklearn.manifold.Isomap`. Of a pipeline the
            last step is used. Where distances are between landmarks, these are plotted.
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.
        cmap : str, default="viridis"
            Name of the colormap, from error 0 to the largest.

        Returns
        -------
        display : EmbeddingDisplay
        """
        check_is_fitted(estimator)
        model = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        missing = [name for name in ("embedding_", "dist_matrix_") if getattr(model, name, None) is None]
        if missing:
            raise ValueError(
                f"{type(model).__name__} has no {' and no '.join(missing)}. Pass HeatGeodesicEmbedding or Isomap, or "
                "use EmbeddingDisplay.from_embedding with a matrix of distances."
            )
        embedding = move_to(model.embedding_, xp=np, device="cpu")
        landmarks = getattr(model, "landmark_indices_", None)
        if landmarks is not None:
            embedding = embedding[move_to(landmarks, xp=np, device="cpu")]
        distances = move_to(model.dist_matrix_, xp=np, device="cpu")
        return cls.from_embedding(embedding, distances, ax=ax, cmap=cmap)

    @classmethod
    def from_embedding(cls, embedding, distances, *, ax=None, cmap="viridis"):
        """Create a display of an embedding and the distances that it should have.

        Parameters
        ----------
        embedding : array-like of shape (n_samples, n_components)
            The embedded rows, in two dimensions at least. The first two are plotted, errors are of all.
        distances : array-like of shape (n_samples, n_samples)
            Distances between rows, in the units of the embedding.
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.
        cmap : str, default="viridis"
            Name of the colormap, from error 0 to the largest.

        Returns
        -------
        display : EmbeddingDisplay
        """
        embedding = on_host(embedding)
        distances = check_array(on_host(distances), dtype=np.float64, input_name="distances", ensure_2d=False)
        shape = np.shape(embedding)
        if len(shape) != 2 or shape[1] < 2:
            raise ValueError(f"embedding has shape {shape}, but two columns at least are needed for a plot.")
        embedding = check_array(embedding, dtype=np.float64, input_name="embedding")
        if distances.shape != (len(embedding), len(embedding)):
            raise ValueError(
                f"distances has shape {distances.shape}, but there are {len(embedding)} rows. Pass the distances "
                "between all of them."
            )
        if distances.min() < 0:
            raise ValueError(f"distances has negative entries, down to {distances.min():.3g}. Pass distances from 0.")
        squared, sizes = _squared_errors(embedding, distances)
        errors = np.sqrt(np.divide(squared, sizes, out=np.zeros_like(squared), where=sizes > 0))
        stress = float(np.sqrt(squared.sum() / sizes.sum())) if sizes.sum() > 0 else 0.0
        return cls(embedding[:, :2], errors=errors, stress=stress).plot(ax=ax, cmap=cmap)

    def plot(self, *, ax=None, cmap="viridis") -> Self:
        """Plot the embedding.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.
        cmap : str, default="viridis"
            Name of the colormap, from error 0 to the largest.

        Returns
        -------
        self : EmbeddingDisplay
        """
        check_matplotlib_support("EmbeddingDisplay.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(5.6, 4.6), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        order = np.argsort(self.errors, kind="stable")  # the largest errors are drawn last
        x, y = self.embedding[order].T
        points = ax.scatter(x, y, c=self.errors[order], s=12, cmap=cmap, vmin=0, linewidths=0)
        self.figure_.colorbar(points, ax=ax, label="error of distances")
        ax.set(xlabel="first component", ylabel="second component", title=f"stress {self.stress:.3f}")
        ax.set_aspect("equal", adjustable="datalim")
        return self


def _squared_errors(embedding, distances):
    """Return by row the sums of squared errors of distances, and of squared distances, in units of the largest."""
    size = 24 * len(embedding)
    unit = float(distances.max()) or 1.0
    embedding = embedding / unit

    def of(rows):
        target = distances[rows] / unit
        return ((cdist(embedding[rows], embedding) - target) ** 2).sum(1), (target**2).sum(1)

    n = len(embedding)
    parts = in_blocks(of, n, rows_per_block("auto", n, size), bytes_per_row=size)
    return tuple(np.concatenate(part) for part in zip(*parts))
