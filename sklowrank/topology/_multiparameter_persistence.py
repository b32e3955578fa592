"""Multiparameter persistence vectors: components and loops of shapes as two functions vary together."""

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from numbers import Integral, Real
from typing import Any, Literal, NamedTuple, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import forget_columns, keep, options, recall
from .._core.modes import in_plain_modes
from .._core.validation import check_fit_data, check_new_data, is_integer
from .._core.workspace import open_workspace
from ._filtrations import ScaleOptions, fit_scales, in_box, over_blocks
from ._multiparameter_persistence_solver import LineOptions, bytes_of_lines, line_vectors
from ._objects import ObjectOptions, kind_of, read_objects


class MultiparameterPersistence(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    """Describe components and loops of point clouds, graphs or series, as two functions vary together.

    A row of features for each object of a list, for any classifier or regressor. One function is the distance between
    points, the other a value at each point: a measured one (`second="column"` or a function), or one of the points
    alone. Use it where the class lies in how a measured value is spread over the shape, and neither the shape nor the
    values alone distinguish the classes. Where the shape alone does, one-parameter persistence or a histogram of
    distances is faster and often as accurate: try these first.

    Parameters
    ----------
    degrees : tuple of int, default=(0, 1)
        Degrees of homology: 0 for components, 1 for loops. Degree 0 alone takes a fifth of the time.
    kind : {"auto", "cloud", "graph", "series"}, default="auto"
        What the objects are. "auto" takes a list of arrays of shape (n_points, n_dims), or an array in three
        dimensions, for clouds; a list of sparse matrices for graphs, whose stored values are the lengths of edges; a
        table for series, one in each row, which are delay-embedded. Pass one cloud as a list, ``[points]``.
    second : {"codensity", "eccentricity", "column"} or callable, default="codensity"
        Second function, of which small values enter first. "column": the last column of clouds is a measured value, not
        a coordinate. A function gets a cloud, a graph or the embedded points of a series, and returns a value for each
        vertex. "codensity": minus the logarithm of a Gaussian kernel density, for graphs minus the weighted degree.
        "eccentricity": the mean distance to the points of the object.
    bandwidth : float or "auto", default="auto"
        Width of the kernel of "codensity" in units of X. "auto" is a quarter of the median over the objects of their
        median distances. A wider kernel is smoother.
    max_edge : float or "auto", default="auto"
        Length of the longest edges, in units of X. "auto" is the 90 % quantile of the enclosing radii of the training
        clouds, the radius of a cloud being the least over its points of the largest distance to others; for graphs
        twice their longest edge. A smaller value is faster, and spreads the lines over smaller shapes.
    max_points : int, default=100
        Largest number of vertices of a cloud or of an embedded series. Of larger ones as many points that are far from
        one another are taken; densities and mean distances are still those over all points. Time grows with its cube.
    resolution : tuple of int, default=(15, 16)
        Number of lines, and of times on each line.
    sigma : float, default=0.08
        Width of the kernel around bars, in units of the box. A wider one is smoother and less sensitive to noise.
    weight_power : float, default=1.0
        Power of the length of a bar by which it counts. At 1 or above, vectors change little with X; larger values give
        short bars less weight.
    delay : int, default=1
        Number of steps between the coordinates of embedded series.
    embedding_dim : int, default=3
        Number of coordinates of embedded series. Series shorter than ``(embedding_dim - 1) * delay + 2`` are points of
        one dimension.
    backend : {"auto", "native", "gudhi"}, default="auto"
        What finds the bars; the vectors are the same. "native" takes many objects at once. "gudhi" needs the package of
        this name (extra ``topology``) and less memory, and is faster for graphs, whose many loops do not end. "auto" is
        "gudhi" for the loops of graphs on the CPU, where it is installed, and "native" else.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1". Objects of a list are answered by an array of numpy.

    Attributes
    ----------
    box_ : array of shape (2, 2)
        Range of the two functions over which lines run: 0 and `max_edge_`, and the 1 % and 99 % quantiles of the second
        values of the training objects. Values outside are not clipped.
    bandwidth_ : float or None
        Width of the kernel; None if `second` is not "codensity", and for graphs.
    max_edge_ : float
        Length of the longest edges.
    kind_ : str
        What the training objects are: "cloud", "graph" or "series".
    n_features_out_ : int
        Number of features: degrees times lines times times.
    n_features_in_ : int
        Number of steps of the series; set for series alone.
    feature_names_in_ : ndarray of shape (n_features_in_,)
        Names of the columns, if series come as a data frame whose columns have names that are all strings.

    See Also
    --------
    sklowrank.inspection.PersistenceSurfaceDisplay : The vector of an object on the plane of the two functions.
    sklearn.preprocessing.StandardScaler : Scale the features before a linear model.

    Notes
    -----
    An edge of length r enters a flag complex at :math:`(r, f)` in units of the box, f being the larger second value of
    its ends. On each diagonal line :math:`z(t) = (t + c/2, t - c/2)` this is the one-parameter filtration
    :math:`\\max(r - c/2, f + c/2)`, whose bars :math:`(b, d)` give

    .. math:: V_c(t) = \\sum_{(b, d)} (d - b)^p \\, \\mathrm{clip}\\bigl(1 + \\min(t - b, d - t) / \\sigma, 0, 1\\bigr).

    Features are these values in the order degree, line, time: offsets c are spaced between -0.9 and 0.9, times between
    0 and 1. This is the representation of [1]_ restricted to lines, where the depth of a point in a summand is exact;
    bars need no matching between lines. Bars that never end do so at 1.5. Computed in float64.

    All lines of many objects are reduced together. On a line, one pass over the edges finds components by merging, and
    loops from the triangles of each edge: for n vertices and m edges in O(n m) operations, and O(n²) for each loop that
    ends; memory O(n²) on each line. Objects are processed in blocks; the memory does not depend on their number. The
    vectors depend neither on the order of the points nor on the units of distances and values.

    References
    ----------
    .. [1] D. Loiseaux, M. Carrière, A. J. Blumberg, "A framework for fast and stable representations of multiparameter
       persistent homology decompositions", NeurIPS, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.topology import MultiparameterPersistence
    >>> rng = np.random.default_rng(0)
    >>> rings = [rng.normal(size=(40, 2)) for _ in range(20)]
    >>> rings = [points / np.linalg.norm(points, axis=1, keepdims=True) for points in rings]
    >>> halves = [points[:, :1] for points in rings]  # a value that changes along the ring, and the same shuffled
    >>> X = [np.hstack([points, value]) for points, value in zip(rings, halves)]
    >>> X += [np.hstack([points, rng.permutation(value)]) for points, value in zip(rings, halves)]
    >>> features = MultiparameterPersistence(second="column", resolution=(5, 8)).fit_transform(X)
    >>> features.shape
    (40, 80)
    >>> from sklearn.neighbors import KNeighborsClassifier
    >>> y = [0] * 20 + [1] * 20
    >>> KNeighborsClassifier(3).fit(features[::2], y[::2]).score(features[1::2], y[1::2])
    1.0
    """

    _parameter_constraints = {
        "degrees": [tuple, list],
        "kind": [StrOptions({"auto", "cloud", "graph", "series"})],
        "second": [StrOptions({"codensity", "eccentricity", "column"}), callable],
        "bandwidth": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "max_edge": [Interval(Real, 0, None, closed="neither"), StrOptions({"auto"})],
        "max_points": [Interval(Integral, 1, None, closed="left")],
        "resolution": [tuple, list],
        "sigma": [Interval(Real, 0, None, closed="neither")],
        "weight_power": [Interval(Real, 0, None, closed="left")],
        "delay": [Interval(Integral, 1, None, closed="left")],
        "embedding_dim": [Interval(Integral, 1, None, closed="left")],
        "backend": [StrOptions({"auto", "native", "gudhi"})],
        "device": [str],
    }

    # Set by fit
    box_: np.ndarray
    bandwidth_: float | None
    max_edge_: float
    kind_: str
    n_features_out_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        degrees: tuple[int, ...] = (0, 1),
        *,
        kind: Literal["auto", "cloud", "graph", "series"] = "auto",
        second: Literal["codensity", "eccentricity", "column"] | Callable[..., Any] = "codensity",
        bandwidth: float | Literal["auto"] = "auto",
        max_edge: float | Literal["auto"] = "auto",
        max_points: int = 100,
        resolution: tuple[int, int] = (15, 16),
        sigma: float = 0.08,
        weight_power: float = 1.0,
        delay: int = 1,
        embedding_dim: int = 3,
        backend: Literal["auto", "native", "gudhi"] = "auto",
        device: str = "auto",
    ):
        self.degrees = degrees
        self.kind = kind
        self.second = second
        self.bandwidth = bandwidth
        self.max_edge = max_edge
        self.max_points = max_points
        self.resolution = resolution
        self.sigma = sigma
        self.weight_power = weight_power
        self.delay = delay
        self.embedding_dim = embedding_dim
        self.backend = backend
        self.device = device

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None) -> Self:
        """Find the box and the scales of the objects.

        Parameters
        ----------
        X : list of arrays, list of sparse matrices, or array-like of shape (n_objects, n_steps)
            The objects, as `kind` says; clouds of equal size may be an array of shape (n_objects, n_points, n_dims).
        y : Ignored
            Not used, present for API consistency by convention.

        Returns
        -------
        self : MultiparameterPersistence

        Raises
        ------
        ValueError
            If an object is not what `kind` asks for; the error names its number.
        """
        kind = kind_of(X, self.kind)
        _check_parameters(self.degrees, self.resolution, self.second, kind)
        if kind == "series":
            X = check_fit_data(self, X)
        else:
            forget_columns(self)
        ws = _workspace(X, self.device)
        reading = options(self, ObjectOptions, kind=kind)
        objects = read_objects(X, reading)
        n_dims = None if kind == "graph" else objects[0].n_dims
        scales = fit_scales(objects, options(self, ScaleOptions), ws)
        model = PersistenceModel(kind, n_dims, *scales, reading, options(self, LineOptions))
        size = len(self.degrees) * self.resolution[0] * self.resolution[1]
        public = {"kind_": kind, "box_": model.box, "bandwidth_": model.bandwidth, "max_edge_": model.max_edge}
        return keep(self, ws, model, **public, n_features_out_=size)

    @in_plain_modes
    def transform(self, X):
        """Return the vectors of objects.

        Parameters
        ----------
        X : list of arrays, list of sparse matrices, or array-like of shape (n_objects, n_steps)
            The objects, of the kind of those in `fit`.

        Returns
        -------
        features : array of shape (n_objects, n_features_out_)
            Values in the order degree, line, time; float64, or float32 where X is one array of it.
        """
        check_is_fitted(self)
        if self.kind_ == "series":
            X = check_new_data(self, X, method="transform", like="box_")
        else:
            kind_of(X, self.kind_)
        ws = _workspace(X, self.device)
        model = recall(self, PersistenceModel, ws.exact())
        objects = read_objects(X, model.reading, model.n_dims)
        chosen = model.lines._replace(backend=_chosen_backend(self.backend, model, ws.device))

        def vectors(place):
            found = in_box([objects[k] for k in place], model.reading.second, model, ws)
            return place, line_vectors(found, chosen).flatten(1)

        answer = torch.empty((len(objects), self.n_features_out_), dtype=torch.float64, device=ws.device)
        for place, part in over_blocks(objects, vectors, partial(bytes_of_lines, chosen.resolution[0])):
            answer[torch.from_numpy(place).to(ws.device)] = part
        return ws.answer(answer)

    @property
    def _n_features_out(self):
        return self.n_features_out_

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.three_d_array = True
        tags.array_api_support = True
        return tags


class PersistenceModel(NamedTuple):
    """What `transform` needs of a fit; parameters that are set after it change nothing but where it is computed."""

    kind: str
    n_dims: int | None  # None for graphs
    box: torch.Tensor
    bandwidth: float | None
    max_edge: float
    reading: ObjectOptions
    lines: LineOptions


def _workspace(X, device):
    """Return the workspace of one array, or of a list of objects, which is answered by an array of numpy."""
    array = X if hasattr(X, "shape") and str(X.dtype) != "object" else np.empty(0)
    return open_workspace(array, device=device)


def _chosen_backend(backend, model, device):
    """Return what finds the bars: the time of the sweep grows with the loops that are alive, many in graphs."""
    if backend != "auto":
        return backend
    loops_of_graphs = model.kind == "graph" and 1 in model.lines.degrees and device.type == "cpu"
    return "gudhi" if loops_of_graphs and find_spec("gudhi") else "native"


def _check_parameters(degrees, resolution, second, kind):
    """Refuse tuples that are none of those that the docstring names, and second values that a kind does not have."""
    whole = all(is_integer(degree, 0) for degree in degrees)
    if not degrees or not whole or not {*degrees} <= {0, 1} or len({*degrees}) < len(degrees):
        raise ValueError(f"degrees={degrees!r} should be a tuple of 0 and 1 without repeats, such as (0, 1).")
    if len(resolution) != 2 or not all(map(is_integer, resolution)):
        raise ValueError(f"resolution={resolution!r} should be a pair of integers of at least 1: lines and times.")
    if (second == "column" and kind == "series") or (second in ("column", "eccentricity") and kind == "graph"):
        raise ValueError(f"second={second!r} is not for kind={kind!r}. Pass 'codensity' or a function.")
