"""Metric learning by a network whose embedding is shared out among learners, as many as training asks for."""

from collections.abc import Callable
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from numpy.typing import ArrayLike
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
from ._subspace_network import Standardized


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
        """Train the network.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows, at least two.
        y : array-like of shape (n_samples,)
            Their classes. Rows of a class that has no other row are negatives of others alone.

        Returns
        -------
        self : DynamicSubspaceMetricLearner
        """
        X, y = check_fit_data(self, X, y, accept_sparse="csr", ensure_min_samples=2)
        check_classification_targets(y)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        found, codes = np.unique(on_host(y), return_inverse=True)
        classes = found if isinstance(y, np.ndarray) else torch.from_numpy(found)
        problem = solver.metric_problem(X, codes, options(self, solver.Options), ws, fit_randomness(self, ws))
        if len(classes) == 1:
            warn("y has a single class, so that there is no metric to learn: rows are projected by PCA.", UserWarning)
            model, public = solver.projected(problem)
            return keep(self, ws, model, classes_=classes, **public)

        def attributes(snapshot):
            model, public = solver.described(problem, snapshot)
            return fitted_attributes(ws, model, classes_=classes, **public)

        run = drive(self, solver.training(problem), attributes=attributes, X=X, y=y, tol=0.0)
        model, public = solver.described(problem, run.state)
        return keep(self, ws, model, classes_=classes, loss_curve_=run.loss_curve, n_iter_=run.n_iter, **public)

    @in_plain_modes
    def transform(self, X):
        """Return the embedding of rows.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        Z : array of shape (n_samples, n_components)
            The columns of each learner, `learner_slices_`, have length one in each row.
        """
        ws, model, X = self._recalled(X, "transform")
        return ws.answer(solver.embedding(X, model, ws))

    @available_if(lambda self: self.attention)
    @in_plain_modes
    def attention_map(self, X):
        """Return by what the gate multiplies the standardised cells of rows.

        It is there with ``attention=True``.

        Parameters
        ----------
        X : array-like, tensor or sparse matrix of shape (n_samples, n_features)
            The rows.

        Returns
        -------
        factors : array of shape (n_samples, n_features)
            Between 0 and 2. Of images those of the channels of a pixel are equal.
        """
        ws, model, X = self._recalled(X, "attention_map")
        return ws.answer(solver.attention_of(X, model, ws))

    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """Return the fitted network as a torch module.

        It is a new one at each call, in float32 and eval mode, takes rows as `transform` does, and gives the embedding
        before the columns of each learner are scaled to length one.

        Parameters
        ----------
        device : str or torch.device, default="cpu"
            Where its weights are.

        Returns
        -------
        network : torch.nn.Module
        """
        check_is_fitted(self)
        model = recall(self, solver.Model, open_workspace(np.empty((0, 0)), device="cpu").exact())
        return Standardized(solver.restored(model), model.mean, model.scale).to(device).eval()

    def _recalled(self, X, method):
        """Return the workspace of new rows, the model, and the rows validated."""
        X = check_new_data(self, X, like="mean_", method=method, accept_sparse="csr")
        ws = open_workspace(X, device=self.device)
        return ws, recall(self, solver.Model, ws.exact()), X

    @property
    def _n_features_out(self):
        return self.learner_slices_[-1].stop

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.target_tags.required = True
        tags.input_tags.sparse = True
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
