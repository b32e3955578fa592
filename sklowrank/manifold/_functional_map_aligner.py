"""Functional-map alignment: partners between two clouds or meshes that are bent versions of one another."""

from numbers import Integral
from typing import Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.validation import check_fit_data, check_new_data
from .._core.workspace import open_workspace
from ._functional_map_inputs import check_inputs, check_target, check_truth, two_shapes
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
    """Find partners between two clouds of points, or two meshes, that are bent versions of one another.
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
        init="nearest",
        landmarks=None,
        refine: Literal["zoomout", "spectral_field", "none"] = "zoomout",
        n_neighbors: int = 20,
        faces=None,
        target_faces=None,
        symmetric: bool = True,
        rigid_prealign: bool = True,
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
        self.device = device
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y=None, *, X_target=None) -> Self:
        """Find the partners."""
        X = check_fit_data(self, X)
        goal = X if X_target is None else check_target(X_target, X)
        start, known = self.init, {"landmarks": self.landmarks, "faces": self.faces, "target_faces": self.target_faces}
        inputs = check_inputs(X, goal, init=start, **known)
        ws = open_workspace(X, device=self.device, random_state=self.random_state).exact()
        source, target, inputs = two_shapes(ws.load(X), None if X_target is None else ws.load(goal), inputs)
        chosen = options(self, AlignmentOptions, init=start if isinstance(start, str) else "indices")
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
        """Return where rows are in target space."""
        X, ws, model = self._recalled(X, "transform")
        return ws.answer(positions(model, codes_of(model, X)))

    def predict(self, X):
        """Return the partners of rows in the target."""
        X, ws, model = self._recalled(X, "predict")
        return ws.answer(partners_of(model, X))

    def score(self, X, y):
        """Return the negative mean error of the places of rows, over the size of the target."""
        X, ws, model = self._recalled(X, "score")
        truth = check_truth(y, len(X), len(model.target_place))
        return -float(mean_error(model, X, ws.load(truth)))

    @property
    def _n_features_out(self):
        return self.deformed_.shape[1]

    def _recalled(self, X, method):
        X = check_new_data(self, X, like="deformed_", method=method)
        ws = open_workspace(X, device=self.device).exact()
        return ws.load(X), ws, recall(self, AlignmentModel, ws)
