"""Metric learning by a network whose embedding is shared out among learners, as many as training asks for."""

import math
from collections.abc import Callable
from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
from scipy.sparse import issparse
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import fitted_attributes, keep, options, recall
from .._core.iterate import drive
from .._core.modes import in_plain_modes
from .._core.validation import check_fit_data, check_new_data, on_host
from .._core.warn import warn
from .._core.workspace import open_workspace
from .._nets.parameters import NETWORK_CONSTRAINTS, network_parameters
from .._nets.randomness import fit_randomness
from . import _dynamic_subspace_solver as solver


@network_parameters(width="width", module_params='``"module__activation"``, ``"module__dropout"``')
class DynamicSubspaceMetricLearner(
    CallbackSupportMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator
):
    """TODO

    """

    _parameter_constraints = {
        **{name: NETWORK_CONSTRAINTS[name] for name in ("hidden_layer_sizes", "module", "net_params")},
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "max_learners": [Interval(Integral, 1, None, closed="left")],
        "grow": [StrOptions({"plateau", "fixed"})],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "tol": NETWORK_CONSTRAINTS["tol"],
        "recluster_every": [Interval(Integral, 1, None, closed="left")],
        "attention": ["boolean"],
        "loss": [StrOptions({"margin", "proxy_anchor"})],
        "margin": [Interval(Real, 0, None, closed="left")],
        "image_shape": ["array-like", None],
        "batch_size": NETWORK_CONSTRAINTS["batch_size"],
        "samples_per_class": [Interval(Integral, 2, None, closed="left")],
        **{name: NETWORK_CONSTRAINTS[name] for name in ("learning_rate", "max_iter")},
        **{name: NETWORK_CONSTRAINTS[name] for name in ("device", "random_state", "verbose")},
    }

    def __init__(
        self,
        n_components: int = 32,
        max_learners: int = 4,
        *,
        grow: Literal["plateau", "fixed"] = "plateau",
        patience: int = 6,
        tol: float = 0.02,
        recluster_every: int = 5,
        attention: bool = True,
        loss: Literal["margin", "proxy_anchor"] = "margin",
        margin: float = 0.2,
        hidden_layer_sizes: ArrayLike = (128,),
        module: Callable[..., nn.Module] | nn.Module | None = None,
        net_params: dict[str, Any] | None = None,
        image_shape: tuple[int, ...] | None = None,
        batch_size: int = 80,
        samples_per_class: int = 4,
        learning_rate: float = 1e-3,
        max_iter: int = 60,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.n_components = n_components
        self.max_learners = max_learners
        self.grow = grow
        self.patience = patience
        self.tol = tol
        self.recluster_every = recluster_every
        self.attention = attention
        self.loss = loss
        self.margin = margin
        self.hidden_layer_sizes = hidden_layer_sizes
        self.module = module
        self.net_params = net_params
        self.image_shape = image_shape
        self.batch_size = batch_size
        self.samples_per_class = samples_per_class
        self.learning_rate = learning_rate
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        X, y = check_fit_data(self, X, y, accept_sparse="csr")
        check_classification_targets(y)
        classes, codes = np.unique(on_host(y), return_inverse=True)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        found = options(self, solver.Options)
        problem = solver.metric_problem(X, codes, found, ws, fit_randomness(self, ws))

        def attributes(snapshot):
            model, public = solver.described(problem, snapshot)
            return fitted_attributes(ws, model, classes_=classes, **public)

        run = drive(self, solver.training(problem), attributes=attributes, X=X, y=y, tol=0.0)
        model, public = solver.described(problem, run.state)
        return keep(self, ws, model, classes_=classes, loss_curve_=run.loss_curve, n_iter_=run.n_iter, **public)

    @in_plain_modes
    def transform(self, X):
        X = check_new_data(self, X, like="mean_", method="transform", accept_sparse="csr")
        ws = open_workspace(X, device=self.device)
        return ws.answer(solver.embedding(X, recall(self, solver.Model, ws.exact()), ws))

    @property
    def _n_features_out(self):
        return self.learner_slices_[-1].stop
