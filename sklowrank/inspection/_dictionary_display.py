"""A picture of a dictionary: each component as an image, or by the features that matter most in it."""

from typing import Any, Self

import numpy as np
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._core.compat import check_matplotlib_support, move_to
from .._core.validation import is_integer

_POSITIVE, _NEGATIVE = "#0f766e", "#c08a3e"


class DictionaryDisplay:
    """Components of a dictionary as images, or as bars of their leading features.

    Use :meth:`from_estimator` to make a display. Its axes are `axes_`; :meth:`plot` draws again.

    Parameters
    ----------
    components : ndarray of shape (n_components, n_features)
        The dictionary.
    feature_names : ndarray of shape (n_features,)
        Names of the features.
    weights : ndarray of shape (1, n_components) or (n_classes, n_components), default=None
        Coefficients of the components: of each class, of the second of two classes, or of a regression.
    class_names : array-like of shape (n_classes,), default=None
        Names of the classes; None where the target is a number.
    image_shape : tuple of int, default=None
        (height, width) or (height, width, channels) where features are pixels. None draws bars.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    axes_ : ndarray of shape (n_components,)
        One matplotlib Axes for each component.

    Examples
    --------
    >>> from sklearn.datasets import load_digits
    >>> from sklowrank.decomposition import SupervisedDictionaryLearning
    >>> from sklowrank.inspection import DictionaryDisplay
    >>> X, y = load_digits(return_X_y=True)
    >>> model = SupervisedDictionaryLearning(4, random_state=0).fit(X / 16, y)
    >>> display = DictionaryDisplay.from_estimator(model, image_shape=(8, 8))
    >>> display.axes_.shape
    (4,)
    """

    figure_: Any
    axes_: np.ndarray

    def __init__(
        self,
        components: np.ndarray,
        *,
        feature_names: np.ndarray,
        weights: np.ndarray | None = None,
        class_names: np.ndarray | None = None,
        image_shape: tuple[int, ...] | None = None,
    ):
        self.components = components
        self.feature_names = feature_names
        self.weights = weights
        self.class_names = class_names
        self.image_shape = image_shape

    @classmethod
    def from_estimator(cls, estimator, *, feature_names=None, image_shape=None, n_top=8, n_columns=None, axes=None):
        """Draw the components of a fitted estimator.

        Parameters
        ----------
        estimator : estimator or Pipeline
            A fitted estimator with `components_`, or a pipeline that ends with one. Its `coef_` are shown if they are
            weights of the components.
        feature_names : array-like of str, default=None
            Names of the columns of X, or of the columns without covariates. None takes those seen in fit, or x0, x1, …
        image_shape : tuple of int, default=None
            (height, width) or (height, width, channels) where features are pixels. None draws bars.
        n_top : int, default=8
            Number of features shown per component, without `image_shape`.
        n_columns : int, default=None
            Columns of the grid of axes; None takes five at most for images and three for bars.
        axes : array of matplotlib Axes, default=None
            Axes to draw on, at least one per component. None makes a figure.

        Returns
        -------
        display : DictionaryDisplay
        """
        check_is_fitted(estimator)
        model = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        if not hasattr(model, "components_"):
            raise ValueError(f"{type(model).__name__} has no components_. Pass an estimator that learns a dictionary.")
        components, classes, weights = (
            _as_numpy(getattr(model, a, None)) for a in ("components_", "classes_", "coef_")
        )
        if weights is None or weights.ndim != 2 or weights.shape[1] != len(components):
            weights = None
        display = cls(
            components,
            feature_names=_names(model, feature_names, components.shape[1]),
            weights=weights,
            class_names=classes,
            image_shape=image_shape,
        )
        return display.plot(n_top=n_top, n_columns=n_columns, axes=axes)

    def plot(self, *, n_top=8, n_columns=None, axes=None) -> Self:
        """Draw the components.

        Parameters
        ----------
        n_top : int, default=8
            Number of features shown per component, without `image_shape`.
        n_columns : int, default=None
            Columns of the grid of axes; None takes five at most for images and three for bars.
        axes : array of matplotlib Axes, default=None
            Axes to draw on, at least one per component. None makes a figure.

        Returns
        -------
        self : DictionaryDisplay
        """
        check_matplotlib_support("DictionaryDisplay.plot")
        n_features = self.components.shape[1]
        for name, value in (("n_top", n_top), ("n_columns", n_columns)):
            if value is not None and not is_integer(value):
                raise ValueError(f"{name}={value!r} should be an integer of at least 1.")
        shape = self.image_shape
        if shape is not None and not all(map(is_integer, shape)):
            raise ValueError(
                f"image_shape={shape!r} has to be (height, width) or (height, width, channels), ints >= 1."
            )
        if shape is not None and np.prod(shape) != n_features:
            raise ValueError(
                f"image_shape={shape} has {np.prod(shape)} pixels, but components have n_features={n_features}. Pass a "
                f"shape whose product is {n_features}."
            )
        self.figure_, self.axes_ = self._open(n_top, n_columns, axes)
        for k, (component, panel) in enumerate(zip(self.components, self.axes_)):
            if self.image_shape is None:
                _draw_bars(panel, component, np.asarray(self.feature_names), n_top)
            else:
                _draw_image(panel, component.reshape(self.image_shape))
            panel.set_title(self._title(k), fontsize="medium")
        return self

    def _open(self, n_top, n_columns, axes):
        """Return the figure and one Axes for each component."""
        import matplotlib.pyplot as plt

        n_components = len(self.components)
        if axes is not None:
            axes = np.atleast_1d(np.asarray(axes, dtype=object)).ravel()
            if len(axes) < n_components:
                raise ValueError(f"There are {len(axes)} axes for n_components={n_components}. Pass one for each.")
            return axes[0].figure, axes[:n_components]
        n_columns = min(n_components, n_columns or (3 if self.image_shape is None else 5))
        n_rows = -(-n_components // n_columns)
        height = 2.1 if self.image_shape is not None else 0.8 + 0.22 * min(n_top, self.components.shape[1])
        width = 1.8 if self.image_shape is not None else 3.2
        figure, axes = plt.subplots(
            n_rows, n_columns, squeeze=False, layout="constrained", figsize=(width * n_columns, height * n_rows)
        )
        for panel in axes.ravel()[n_components:]:
            panel.remove()
        return figure, axes.ravel()[:n_components]

    def _title(self, k):
        if self.weights is None:
            return f"component {k}"
        column = np.asarray(self.weights)[:, k]
        if self.class_names is None:
            return f"component {k}\nweight: {column[0]:+.2g}"
        best = 1 if len(column) == 1 else int(column.argmax())
        return f"component {k}\nclass {self.class_names[best]}: {column[0 if len(column) == 1 else best]:+.2g}"


def _draw_image(panel, image):
    """Zero is white; with negative entries red and blue are equally far from it."""
    most = float(np.abs(image).max()) or 1.0
    if image.ndim == 3:  # colours: zero is grey where there are negative entries
        panel.imshow((image / most + 1) / 2 if image.min() < 0 else image / most)
    elif image.min() < 0:
        panel.imshow(image, cmap="RdBu_r", vmin=-most, vmax=most)
    else:
        panel.imshow(image, cmap="Greys", vmin=0, vmax=most)
    panel.set(xticks=[], yticks=[])


def _draw_bars(panel, component, names, n_top):
    """Features of largest magnitude, the largest on top."""
    top = np.argsort(-np.abs(component), kind="stable")[:n_top]
    places = np.arange(len(top))
    panel.barh(places, component[top], color=np.where(component[top] < 0, _NEGATIVE, _POSITIVE))
    panel.set_yticks(places, [str(name) for name in names[top]])
    panel.invert_yaxis()
    panel.axvline(0, color="0.6", linewidth=0.8)
    panel.spines[["top", "right", "left"]].set_visible(False)
    panel.tick_params(axis="y", length=0)


def _names(model, given, n_features):
    """Return the names of the features of the dictionary, which has none for covariates."""
    seen = getattr(model, "n_features_in_", n_features)
    covariates = getattr(model, "covariate_indices_", None)
    kept = np.setdiff1d(np.arange(seen), [] if covariates is None else _as_numpy(covariates))
    if given is None:
        given = getattr(model, "feature_names_in_", np.array([f"x{i}" for i in range(seen)], dtype=object))
    given = np.asarray(given, dtype=object)
    if len(given) == n_features:
        return given
    if len(given) != seen:
        raise ValueError(
            f"feature_names has {len(given)} names, but X has n_features={seen} and components have {n_features}. "
            f"Pass one name for each."
        )
    return given[kept]


def _as_numpy(array):
    return array if array is None or isinstance(array, np.ndarray) else move_to(array, xp=np, device="cpu")
