"""Functional-map alignment: partners between two clouds or meshes that are bent versions of one another."""

from numbers import Integral, Real
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.validation import check_fit_data, check_new_data
from .._core.workspace import open_workspace
from .._nets.layers import layer_sizes
from .._nets.parameters import NETWORK_CONSTRAINTS
from ._functional_map_inputs import check_columns, check_inputs, check_target, check_truth, two_shapes
from ._functional_map_solver import (
    AlignmentModel,
    AlignmentOptions,
    align,
    codes_of,
    mean_error,
    partners_of,
    positions,
)


class FunctionalMapAligner(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""Find partners between two point clouds, or meshes, that are bent versions of one another.

    Bending a surface changes distances in space, but not distances along the surface, and hence not the eigenfunctions
    of its Laplacian. A small matrix, the functional map, takes those of the source to those of the target; points with
    the same values of all eigenfunctions are partners. The clouds need no common points and no equal numbers of them.
    For rigid motions of the same points, Procrustes analysis (:func:`scipy.spatial.procrustes`) is enough.

    Parameters
    ----------
    n_components : int, default=80
        Number of components. Here eigenfunctions of either shape, at most two fewer than distinct rows of the smaller
        one. More resolve finer detail; beyond a quarter of the rows they follow the sampling and errors grow.
    n_components_init : int, default=4
        Number of eigenfunctions of the first map. Few suit coarse starts; more make sense where partners in `init` or
        `landmarks` are accurate. The starts by signs, with which the first three of `init` compete, always have four.
    step : int, default=2
        By how many eigenfunctions the map grows in a refinement.
    init : {"nearest", "cpd", "field", "landmarks"} or array-like of shape (n_target,), default="nearest"
        Initialisation of the fit. "nearest": nearest points, after a rigid motion if `rigid_prealign`. "cpd": after
        coherent point drift, by the package pycpd. "field": after a deformation by a network that reads eigenfunctions
        and keeps the distances of neighbours. "landmarks": heat from rows of which the partners are known. An array has
        for each target row the index of its partner in X. The first three compare places, so X and the target need as
        many columns; their map competes with those of all signs of the first eigenfunctions, and where several fit it
        decides.
    landmarks : tuple of two array-like of shape (n_landmarks,), default=None
        Rows of X, and their partners in the target, for `init="landmarks"`; with another one they are not used, with a
        warning.
    refine : {"zoomout", "spectral_field", "none"}, default="zoomout"
        "zoomout": alternate partners and maps of more and more eigenfunctions. "spectral_field": move the codes by a
        network afterwards, for shapes that are stretched. "none": keep the partners of the start.
    n_neighbors : int, default=20
        Number of nearest neighbours. Of points without triangles, for the Laplacian; and for new rows. At most one less
        than the distinct rows. Below 12, triangulations have gaps and errors grow.
    faces, target_faces : array-like of shape (n_faces, 3), default=None
        Triangles of the source and of the target, as indices of rows. Clouds without triangles are triangulated near
        each point if neighbours lie in planes, in both clouds; else they are graphs of neighbours.
    symmetric : bool, default=True
        Whether the map is the mean of those of both directions; it takes twice the time of the refinement.
    rigid_prealign : bool, default=True
        Whether to look for a rigid motion of the source, by closest points. It is made only if it brings the clouds as
        near to one another as their points are.
    hidden_layer_sizes : tuple of int, default=(64, 64)
        Widths of the hidden layers of the default network. For the two fields.
    field_steps : int, default=400
        Number of steps of the training of a field, with all sampled rows each.
    learning_rate : float, default=5e-3
        Step size of the optimizer. For the two fields.
    lambda_iso : float, default=1.0
        Weight of the relative changes of distances between neighbours, for `init="field"`. It falls to a tenth after
        half of the steps.
    device : str, default="auto"
        Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda",
        "cuda:1". Eigenfunctions are always computed on the CPU.
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. For networks, and the start of the
        eigenvalue solver, which changes results by rounding alone.

    Attributes
    ----------
    functional_map_ : array of shape (n_components, n_components)
        Takes coefficients of functions on the source to those on the target.
    evals_, target_evals_ : arrays of shape (n_components,)
        Eigenvalues of both Laplacians, ascending, for shapes of unit area.
    correspondence_ : array of shape (n_target,)
        For each target row its partner in X.
    inverse_correspondence_ : array of shape (n_samples,)
        For each row of X its partner in the target.
    deformed_ : array of shape (n_samples, n_target_features)
        Places of the rows of X on the target.
    cycle_error_ : float
        Mean distance of rows of X from where the way to the target and back ends, over their root mean square distance
        from their mean. A map that collapses has a large one.
    n_features_in_ : int
        Number of columns of X.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where it has names.

    See Also
    --------
    sklearn.manifold.Isomap : Coordinates of one cloud from distances along it.

    Notes
    -----
    Let :math:`\Phi` and :math:`\Psi` be the eigenfunctions of source and target at their rows, and :math:`M` the
    masses of target rows. ZoomOut [2]_ alternates, for :math:`k` from `n_components_init` to `n_components`,

    .. math:: C = \Psi_k^\top M \Phi_k[p], \qquad
        p(i) = \arg\min_j \| \Psi_k[i] - C \, \Phi_k[j] \|,

    up to 20 with the partners :math:`p` of target rows alone, and then, if `symmetric`, with those of both directions.
    On more than 2,000 rows of either shape, well spread ones of them are used until the last step. Eigenfunctions take
    about O(n_samples n_components²) time, the last partners O(n_samples n_target n_components), in blocks: memory is
    that of the eigenfunctions. Equal rows count as one. Everything is in float64. With fewer than eight distinct rows
    partners are nearest rows, and of shapes in several parts they can be in the wrong part, both with a warning. In
    more than 64 dimensions rigid motions are sought along the 64 axes of most variance of both clouds.

    References
    ----------
    .. [1] M. Ovsjanikov, M. Ben-Chen, J. Solomon, A. Butscher, L. Guibas, "Functional maps: a flexible representation
       of maps between shapes", ACM Transactions on Graphics 31(4), 2012.
    .. [2] S. Melzi, J. Ren, E. Rodolà, A. Sharma, P. Wonka, M. Ovsjanikov, "ZoomOut: spectral upsampling for efficient
       shape correspondence", ACM Transactions on Graphics 38(6), 2019.
    .. [3] S. Lin, B. Zhou, Z. Zheng, H. Zhang, Y. Liu, "Leveraging intrinsic properties for non-rigid garment
       alignment", ICCV, 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.manifold import FunctionalMapAligner
    >>> sheet = np.random.RandomState(0).rand(400, 2) * [2, 1]
    >>> sheet = sheet[(sheet[:, 1] < 1 - sheet[:, 0] / 4)]  # a corner is cut off
    >>> flat = np.c_[sheet, np.zeros(len(sheet))]
    >>> rolled = np.c_[np.sin(sheet[:, 0]), sheet[:, 1], 1 - np.cos(sheet[:, 0])]
    >>> model = FunctionalMapAligner(40, random_state=0).fit(flat, X_target=rolled)
    >>> float(np.mean(model.correspondence_ == np.arange(len(sheet)))) > 0.9
    True
    """

    _parameter_constraints = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "n_components_init": [Interval(Integral, 1, None, closed="left")],
        "step": [Interval(Integral, 1, None, closed="left")],
        "init": [StrOptions({"nearest", "cpd", "field", "landmarks"}), "array-like"],
        "landmarks": ["array-like", tuple, None],
        "refine": [StrOptions({"zoomout", "spectral_field", "none"})],
        "n_neighbors": [Interval(Integral, 1, None, closed="left")],
        "faces": ["array-like", None],
        "target_faces": ["array-like", None],
        "symmetric": ["boolean"],
        "rigid_prealign": ["boolean"],
        **{name: NETWORK_CONSTRAINTS[name] for name in ("hidden_layer_sizes", "learning_rate")},
        "field_steps": [Interval(Integral, 1, None, closed="left")],
        "lambda_iso": [Interval(Real, 0, None, closed="left")],
        "device": [str],
        "random_state": ["random_state"],
    }

    # Set by fit
    functional_map_: np.ndarray
    correspondence_: np.ndarray
    inverse_correspondence_: np.ndarray
    deformed_: np.ndarray
    evals_: np.ndarray
    target_evals_: np.ndarray
    cycle_error_: float
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        n_components: int = 80,
        *,
        n_components_init: int = 4,
        step: int = 2,
        init: Literal["nearest", "cpd", "field", "landmarks"] | ArrayLike = "nearest",
        landmarks: tuple[ArrayLike, ArrayLike] | None = None,
        refine: Literal["zoomout", "spectral_field", "none"] = "zoomout",
        n_neighbors: int = 20,
        faces: ArrayLike | None = None,
        target_faces: ArrayLike | None = None,
        symmetric: bool = True,
        rigid_prealign: bool = True,
        hidden_layer_sizes: tuple[int, ...] = (64, 64),
        field_steps: int = 400,
        learning_rate: float = 5e-3,
        lambda_iso: float = 1.0,
        device: str = "auto",
        random_state: RandomState = None,
    ):
        self.n_components = n_components
        self.n_components_init = n_components_init
        self.step = step
        self.init = init
        self.landmarks = landmarks
        self.refine = refine
        self.n_neighbors = n_neighbors
        self.faces = faces
        self.target_faces = target_faces
        self.symmetric = symmetric
        self.rigid_prealign = rigid_prealign
        self.hidden_layer_sizes = hidden_layer_sizes
        self.field_steps = field_steps
        self.learning_rate = learning_rate
        self.lambda_iso = lambda_iso
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, X_target=None) -> Self:
        """Find the partners.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The source.
        y : None
            Not used.
        X_target : array-like or tensor of shape (n_target, n_target_features), default=None
            The target; X itself if None. The steps of a pipeline before this one do not transform it: do so first.
            Cross-validation splits it like X where both have as many rows.

        Returns
        -------
        self : FunctionalMapAligner

        Raises
        ------
        ValueError
            If landmarks, faces or an array `init` name rows that there are not, or X and the target have no columns
            that `init` could compare.
        """
        X = check_fit_data(self, X)
        goal = X if X_target is None else check_target(X_target)
        check_columns(getattr(self, "feature_names_in_", None), X_target)
        start, known = self.init, {"landmarks": self.landmarks, "faces": self.faces, "target_faces": self.target_faces}
        inputs, sizes = check_inputs(X, goal, init=start, **known), layer_sizes(self.hidden_layer_sizes)
        ws = open_workspace(X, device=self.device, random_state=self.random_state).exact()
        source, target, inputs = two_shapes(ws.load(X), None if X_target is None else ws.load(goal), inputs)
        kind = start if isinstance(start, str) else "indices"
        chosen = options(self, AlignmentOptions, init=kind, hidden_layer_sizes=tuple(sizes))
        found = align(source, target, inputs, chosen, ws.generator)
        return keep(
            self,
            ws,
            found.model,
            functional_map_=found.functional_map.to(ws.precision),
            evals_=found.values.to(ws.precision),
            target_evals_=found.target_values.to(ws.precision),
            correspondence_=found.correspondence,
            inverse_correspondence_=found.inverse,
            deformed_=found.deformed.to(ws.precision),
            cycle_error_=found.cycle_error,
        )

    def transform(self, X):
        """Return where rows are in target space.

        Codes of a new row are those of its neighbours in the training rows, with the weights that rebuild it from them.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows of the source's space.

        Returns
        -------
        X_new : array of shape (n_samples, n_target_features)
            Places between the three target rows with the nearest codes.
        """
        X, ws, model = self._recalled(X, "transform")
        return ws.answer(positions(model, codes_of(model, X)))

    def predict(self, X):
        """Return the partners of rows in the target.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows of the source's space.

        Returns
        -------
        partners : array of shape (n_samples,)
            Indices of target rows.
        """
        X, ws, model = self._recalled(X, "predict")
        return ws.answer(partners_of(model, X))

    def score(self, X, y):
        """Return the negative mean error of the places of rows, over the size of the target.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            Rows of the source's space.
        y : array-like of shape (n_samples,)
            Indices of their true partners in the target.

        Returns
        -------
        score : float
            Zero at best. The size is the root mean square distance of target rows from their mean.
        """
        X, ws, model = self._recalled(X, "score")
        truth = check_truth(y, len(X), len(model.target_place))
        return -float(mean_error(model, X, ws.load(truth)))

    @property
    def _n_features_out(self):
        return self.deformed_.shape[1]

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        return tags

    def _recalled(self, X, method):
        X = check_new_data(self, X, like="deformed_", method=method)
        ws = open_workspace(X, device=self.device).exact()
        return ws.load(X), ws, recall(self, AlignmentModel, ws)
