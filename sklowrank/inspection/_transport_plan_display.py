"""Picture of a transport plan: an image of its mass, or segments between two clouds."""

from typing import Any, Literal, Self

import numpy as np
from scipy.sparse import issparse
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._core.compat import check_matplotlib_support, move_to
from .._core.validation import is_integer


class TransportPlanDisplay:
    """Visualization of a transport plan, as an image or as segments between two clouds.

    In the image rows are those of the source, sorted by their first principal component, and columns those of the
    target, sorted by where their mass comes from: a sharp plan is a diagonal line, a plan with a strong entropy is
    wide. With classes both are sorted by class first: mass outside of the blocks on the diagonal goes to another class.
    Use :meth:`from_estimator` to create a display.

    Parameters
    ----------
    kind : {"image", "segments"}
        What is plotted.
    image : ndarray of shape (n_cells, n_target_cells), default=None
        Mean mass of groups of consecutive rows and columns, in units of the mean of the plan.
    ends, target_ends : ndarrays, default=None
        Positions at which classes end, in cells of the image.
    within : float, default=None
        Share of the mass between rows of equal class, between 0 and 1. None without classes.
    points, target_points : ndarrays of shape (n_source, 2) and (n_target, 2), default=None
        The clouds.
    segments : ndarray of shape (n_segments, 2, 2), default=None
        Ends of the segments, weakest first.
    strengths : ndarray of shape (n_segments,), default=None
        Mass of the pairs of the segments, relative to the largest.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    ax_ : matplotlib Axes
        The axes.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.inspection import TransportPlanDisplay
    >>> from sklowrank.transport import SinkhornTransport
    >>> X = np.random.default_rng(0).normal(size=(80, 2))
    >>> transport = SinkhornTransport(0.01).fit(X, X_target=X + 3)
    >>> display = TransportPlanDisplay.from_estimator(transport, kind="segments", n_segments=100)
    >>> display.segments.shape
    (100, 2, 2)
    """

    figure_: Any
    ax_: Any

    def __init__(
        self,
        kind: Literal["image", "segments"],
        *,
        image: np.ndarray | None = None,
        ends: np.ndarray | None = None,
        target_ends: np.ndarray | None = None,
        within: float | None = None,
        points: np.ndarray | None = None,
        target_points: np.ndarray | None = None,
        segments: np.ndarray | None = None,
        strengths: np.ndarray | None = None,
    ):
        self.kind = kind
        self.image = image
        self.ends = ends
        self.target_ends = target_ends
        self.within = within
        self.points = points
        self.target_points = target_points
        self.segments = segments
        self.strengths = strengths

    @classmethod
    def from_estimator(
        cls,
        estimator,
        *,
        kind="image",
        labels=None,
        target_labels=None,
        n_cells=300,
        n_segments=500,
        ax=None,
        cmap="magma",
    ):
        """Create a display of the plan of a fitted transport.

        Parameters
        ----------
        estimator : SinkhornTransport, OTAdaptationClassifier, OTAdaptationRegressor or Pipeline
            Fitted transport with `coupling_`, or a model with one as its `transport_`. Of a pipeline the last step is
            used.
        kind : {"image", "segments"}, default="image"
            Whether to show all of the mass as an image, or the pairs with most mass as segments. Segments need two
            features.
        labels : array-like of shape (n_source,), default=None
            Classes of the rows of `X_source_`, to sort by. For the image alone.
        target_labels : array-like of shape (n_target,), default=None
            Classes of the rows of `X_target_`, to sort by. For the image alone.
        n_cells : int, default=300
            Maximum number of cells along an edge of the image. With more rows each cell is a mean over rows.
        n_segments : int, default=500
            Number of segments.
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.
        cmap : str, default="magma"
            Name of the colormap of the image, from no mass to the largest.

        Returns
        -------
        display : TransportPlanDisplay
        """
        check_is_fitted(estimator)
        model = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        model = getattr(model, "transport_", model)
        if not hasattr(model, "coupling_"):
            raise ValueError(f"{type(model).__name__} has no coupling_. Pass a fitted SinkhornTransport.")
        for name, value in (("n_cells", n_cells), ("n_segments", n_segments)):
            if not is_integer(value):
                raise ValueError(f"{name}={value!r} should be an integer of at least 1.")
        if kind not in ("image", "segments"):
            raise ValueError(f"kind={kind!r} should be 'image' or 'segments'.")
        plan, source, target = (_on_host(table) for table in (model.coupling_, model.X_source_, model.X_target_))
        if kind == "segments":
            return cls(kind, **_segments(plan, source, target, n_segments)).plot(ax=ax, cmap=cmap)
        if (labels is None) != (target_labels is None):
            raise ValueError("Of labels and target_labels one is None. Pass both, or none.")
        named = zip((labels, target_labels), plan.shape, ("labels", "target_labels"))
        classes = [_checked_labels(found, n, name) for found, n, name in named]
        if (classes[0].dtype.kind == "U") != (classes[1].dtype.kind == "U"):
            raise ValueError(
                "Of labels and target_labels one is text, the other numbers. Pass text in both, or numbers."
            )
        return cls(kind, **_image(plan, source, *classes, n_cells)).plot(ax=ax, cmap=cmap)

    def plot(self, *, ax=None, cmap="magma") -> Self:
        """Plot the plan.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.
        cmap : str, default="magma"
            Name of the colormap of the image, from no mass to the largest.

        Returns
        -------
        self : TransportPlanDisplay
        """
        check_matplotlib_support("TransportPlanDisplay.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(4.6, 4.6), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        if self.kind == "segments":
            self._plot_segments(ax)
        else:
            self._plot_image(ax, cmap)
        return self

    def _plot_image(self, ax, cmap):
        height, width = self.image.shape
        ax.imshow(self.image**0.5, cmap=cmap, extent=(0, width, height, 0), vmin=0)  # the root shows little mass, too
        for draw, ends in ((ax.axhline, self.ends), (ax.axvline, self.target_ends)):
            for end in ends[:-1]:
                draw(end, color="white", linewidth=0.6, alpha=0.7)
        ax.set(xticks=[], yticks=[], xlabel="target rows", ylabel="source rows")
        if self.within is not None:
            ax.set_title(f"{100 * self.within:.0f} % of the mass between equal classes")

    def _plot_segments(self, ax):
        from matplotlib.collections import LineCollection

        colors = np.zeros((len(self.segments), 4))
        colors[:, :3], colors[:, 3] = 0.35, 0.1 + 0.5 * self.strengths
        ax.add_collection(LineCollection(self.segments, colors=colors, linewidths=0.7))
        ax.scatter(*self.points.T, s=12, label="source", zorder=2)
        ax.scatter(*self.target_points.T, s=12, label="target", zorder=2)
        ax.set_aspect("equal")
        ax.legend()


def _on_host(table):
    """Return a table as a dense numpy array."""
    return table.toarray() if issparse(table) else move_to(table, xp=np, device="cpu")


def _checked_labels(labels, n, name):
    """Return labels, all equal where there are none."""
    if labels is None:
        return np.zeros(n, dtype=int)
    labels = np.asarray(labels)
    labels = labels.astype(str) if labels.dtype.kind in "OS" else labels
    if labels.shape != (n,):
        raise ValueError(
            f"{name} has shape {labels.shape}, but there are {n} rows in the plan: pass their classes. With more than "
            "max_samples rows those of the plan are drawn; raise max_samples to plot all."
        )
    return labels


def _image(plan, source, labels, target_labels, n_cells):
    """Return means of the plan over groups of sorted rows and columns, and where classes end."""
    names, place = np.unique(np.r_[labels, target_labels], return_inverse=True)
    place, target_place = place[: len(labels)], place[len(labels) :]
    position = _first_component(source)
    mass = plan.sum(0)
    origin = (position @ plan) / np.where(mass > 0, mass, 1.0)
    rows, columns = np.lexsort((position, place)), np.lexsort((origin, target_place))
    cells, target_cells = (min(n, n_cells) for n in plan.shape)
    groups = [np.arange(n) * c // n for n, c in zip(plan.shape, (cells, target_cells))]
    sums = np.zeros((cells, target_cells))
    np.add.at(sums, (groups[0][:, None], groups[1]), plan[np.ix_(rows, columns)])
    sizes = np.outer(np.bincount(groups[0]), np.bincount(groups[1]))
    counts = [np.bincount(found, minlength=len(names)) for found in (place, target_place)]
    ends = [np.cumsum(n) * c / len(f) for n, c, f in zip(counts, sums.shape, (place, target_place))]
    within = float(plan[place[:, None] == target_place].sum() / plan.sum()) if len(names) > 1 else None
    return {"image": sums / sizes * plan.size, "ends": ends[0], "target_ends": ends[1], "within": within}


def _first_component(table):
    """Return the projections of rows on the direction of largest variance, with a positive largest coefficient."""
    centred = table.astype(np.float64) - table.mean(0)
    centred /= np.abs(centred).max() or 1.0
    direction = np.linalg.eigh(centred.T @ centred)[1][:, -1]
    return centred @ direction * (np.sign(direction[np.abs(direction).argmax()]) or 1.0)


def _segments(plan, source, target, n_segments):
    """Return the pairs with most mass."""
    if source.shape[1] != 2:
        raise ValueError(f"kind='segments' needs two features, and there are {source.shape[1]}. Use kind='image'.")
    count = min(n_segments, plan.size)
    strongest = np.argpartition(plan.ravel(), plan.size - count)[plan.size - count :]
    strongest = strongest[np.argsort(plan.ravel()[strongest])]
    i, j = np.unravel_index(strongest, plan.shape)
    return {
        "points": source,
        "target_points": target,
        "segments": np.stack([source[i], target[j]], axis=1),
        "strengths": plan[i, j] / plan.max(),
    }
