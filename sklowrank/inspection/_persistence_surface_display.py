"""A persistence vector as a surface on the plane of the two functions."""

from typing import Any, Self

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._core.compat import check_matplotlib_support
from .._core.fitted import recall
from .._core.validation import on_host
from .._core.workspace import open_workspace
from ..topology._multiparameter_persistence import PersistenceModel
from ..topology._multiparameter_persistence_solver import line_offsets


class PersistenceSurfaceDisplay:
    """Visualization of a persistence vector on the plane of the two functions.

    High values are where the shape has components, or loops, among edges of at most this length and points of at most
    this second value: the more of them and the longer they last on the diagonal, the higher. Use
    :meth:`from_estimator` to create a display.

    Parameters
    ----------
    lengths : ndarray of shape (n_lines + 1, n_times + 1)
        Lengths of edges at the corners of the cells around each value, in units of X.
    seconds : ndarray of shape (n_lines + 1, n_times + 1)
        Values of the second function there, in its units.
    values : ndarray of shape (n_lines, n_times)
        Values of the vector.
    degree : int
        Degree of homology: 0 for components, 1 for loops.
    second_name : str
        Name of the second function.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    ax_ : matplotlib Axes
        The axes.

    See Also
    --------
    sklowrank.topology.MultiparameterPersistence : Makes the vectors.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.inspection import PersistenceSurfaceDisplay
    >>> from sklowrank.topology import MultiparameterPersistence
    >>> angle = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    >>> rings = [np.c_[np.cos(angle), np.sin(angle), height * np.cos(angle)] for height in (1, 2, 3)]
    >>> model = MultiparameterPersistence(second="column").fit(rings)
    >>> display = PersistenceSurfaceDisplay.from_estimator(model, rings[:1])
    >>> display.values.shape
    (15, 16)
    """

    figure_: Any
    ax_: Any

    def __init__(self, lengths: np.ndarray, seconds: np.ndarray, values: np.ndarray, *, degree: int, second_name: str):
        self.lengths = lengths
        self.seconds = seconds
        self.values = values
        self.degree = degree
        self.second_name = second_name

    @classmethod
    def from_estimator(cls, estimator, X, *, degree=None, second_name=None, ax=None, cmap="magma", vmax=None):
        """Create a display of the vector of an object, or of the mean over some objects.

        Parameters
        ----------
        estimator : estimator or Pipeline
            Fitted :class:`~sklowrank.topology.MultiparameterPersistence`, or a pipeline that begins with one.
        X : list of arrays, list of sparse matrices, or array-like of shape (n_objects, n_steps)
            The objects, such as one that is wrapped in a list, or those of a class.
        degree : int, default=None
            Degree of homology to show. None shows the last one.
        second_name : str, default=None
            Name of the second function on its axis. None says which one it is.
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.
        cmap : str, default="magma"
            Name of the colormap, from 0 to the largest value.
        vmax : float, default=None
            Value at the end of the colormap, to compare displays. None takes the largest value.

        Returns
        -------
        display : PersistenceSurfaceDisplay
        """
        model = estimator[0] if isinstance(estimator, Pipeline) else estimator
        if not hasattr(model, "resolution") or not hasattr(model, "degrees"):
            raise TypeError(
                f"{type(model).__name__} makes no persistence vectors. Pass a fitted MultiparameterPersistence, or a "
                "pipeline that begins with one."
            )
        check_is_fitted(model)
        fitted = recall(model, PersistenceModel, open_workspace(np.empty(0), device="cpu"))
        degrees, resolution = tuple(fitted.lines.degrees), fitted.lines.resolution
        degree = degrees[-1] if degree is None else degree
        if degree not in degrees:
            raise ValueError(f"degree={degree!r} is not among the degrees {degrees} of the estimator.")
        if second_name is None:
            second = fitted.reading.second
            second_name = _SECOND.get(second, getattr(second, "__name__", "second value"))
            second_name = "minus the degree" if model.kind_ == "graph" and second == "codensity" else second_name
        vector = np.asarray(on_host(model.transform(X))).mean(axis=0)
        values = vector.reshape(len(degrees), *resolution)[degrees.index(degree)]
        corners = _corners(np.asarray(on_host(model.box_)), *resolution)
        return cls(*corners, values, degree=degree, second_name=second_name).plot(ax=ax, cmap=cmap, vmax=vmax)

    def plot(self, *, ax=None, cmap="magma", vmax=None) -> Self:
        """Plot the surface.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.
        cmap : str, default="magma"
            Name of the colormap, from 0 to the largest value.
        vmax : float, default=None
            Value at the end of the colormap, to compare displays. None takes the largest value.

        Returns
        -------
        self : PersistenceSurfaceDisplay
        """
        check_matplotlib_support("PersistenceSurfaceDisplay.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(4.8, 4.0), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        mesh = ax.pcolormesh(self.lengths, self.seconds, self.values, cmap=cmap, vmin=0, vmax=vmax)
        self.figure_.colorbar(mesh, ax=ax)
        title = "components" if self.degree == 0 else "loops"
        ax.set(xlabel="length of edges", ylabel=self.second_name, title=f"degree {self.degree}: {title}")
        return self


_SECOND = {"codensity": "codensity", "eccentricity": "mean distance", "column": "measured value"}


def _corners(box, n_lines, n_times):
    """Return lengths and second values at the corners of the cells around the times of each line."""
    half, t = _ends(line_offsets(n_lines))[:, None] / 2, _ends(np.linspace(0, 1, n_times))
    (_, reach), (low, high) = box
    return reach * (t + half), low + (high - low) * (t - half)


def _ends(middles):
    """Return the ends of intervals of equal length around their middles."""
    gap = middles[1] - middles[0] if len(middles) > 1 else 0.2
    return np.append(middles, middles[-1] + gap) - gap / 2
