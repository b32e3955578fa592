"""What the classifier and the regressor of every width share: parameters, their descriptions, methods."""

from collections.abc import Callable
from functools import partial
from numbers import Integral, Real

import numpy as np
import torch
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.compat import Interval, StrOptions
from .._core.docs import documented as filled
from .._core.fitted import keep, options, recall, update_attributes
from .._core.modes import in_plain_modes
from .._core.validation import check_new_data, on_host
from .._core.workspace import Workspace, open_workspace
from .._nets.designs import fit_design, own_randomness
from .._nets.layers import ACTIVATIONS
from .._nets.parameters import NETWORK_CONSTRAINTS
from .._nets.schedules import cosine
from . import _morphable_solver as solver
from ._morphable_network import network_of_width

_PARAMETERS = """
width_range : pair of ints, default=(16, 64)
    Smallest and largest width of the hidden layers; all of these have the same width.
weight_function : {"nested", "spectral"}, default="nested"
    How weights depend on the width. "nested": a network has the first units of the largest one, and larger ones are
    more accurate. "spectral": weights are a smooth function of the position of a unit, given by few numbers; networks
    of all widths are nearly one function.
train_widths : int or array-like of ints, default=7
    Widths in `width_range` that :meth:`size_curve` shows, and among which "spectral" draws in training; an int is the
    number of evenly spaced widths. "nested" draws among all widths of the range.
default_width : int or None, default=None
    Width of methods that are given none; None is the largest of `width_range`. It may be set after `fit`.
n_hidden_layers : int, default=2
    Number of hidden layers.
n_frequencies : int, default=16
    Number of frequencies of the sines and cosines of "spectral"; at most the smallest width.
activation : {"relu", "gelu", "tanh", "identity"}, default="relu"
    Activation of the hidden layers.
standardize : bool, default=True
    Whether to centre each column and divide it by its standard deviation. <standardize>
learning_rate : float, default=3e-3
    Step size of the optimizer. Adam; the rate falls to 0 along a cosine.
weight_decay : float, default=0.0
    Strength of the weight decay of the optimizer. Adam adds this share of the weights to their gradients.
batch_size : int, default=64
    Number of rows per training step; it changes the result. At most all rows.
max_iter : int, default=100
    Maximum number of iterations. An iteration is an epoch. All are run unless a callback ends the training.
device : str, default="auto"
    Where to compute: "auto" (a tensor's own device, else the first CUDA device, else the CPU), "cpu", "cuda", "cuda:1".
random_state : int, RandomState instance or None, default=None
    Seed or generator of random numbers; pass an int for reproducible results. It decides weights, batches and the
    widths of training steps.
verbose : int, default=0
    0 prints nothing, 1 prints a line per iteration. An iteration is an epoch.
"""
_ATTRIBUTES = """
weights_ : dict of arrays
    What all networks are computed from, float32, with R rows: units of the largest width ("nested"), or functions
    ("spectral"). "first" (R, n_features + 1) with the offsets in the last column, "hidden0" (R, R), "hidden0_bias"
    (R,), ..., "last" (R, n_outputs) and "last_bias" (n_outputs,).
n_parameters_ : int
    Number of numbers in `weights_`.
train_widths_ : array of shape (n_widths,)
    Widths of `train_widths`, in increasing order.
mean_, scale_ : arrays of shape (n_features,)
    What the columns of X are centred with and divided by, float64.
loss_curve_ : list of floats
    Mean loss of each epoch, over the widths that were drawn.
n_iter_ : int
    Number of epochs.
n_features_in_ : int
    Number of features.
feature_names_in_ : array of shape (n_features_in_,)
    Names of the columns of X, where all are strings.
"""
_NOTES = """
Each training step draws a width h and takes a step of Adam for the network of this width. With "nested", layer l of the
network of width h has the weights

.. math:: W_1 = A_{:h}, \\qquad W_l = h^{-1/2} (B_l)_{:h,:h}, \\qquad W_L = h^{-1/2} (D^\\top)_{:,:h},

as slimmable networks do [1]_: small networks stay accurate because their units are in every step. With "spectral",
unit i has the position :math:`u_i = (i + 1/2) / h`, the row :math:`\\phi_i` of :math:`\\Phi_h` consists of the 2 F + 1
functions :math:`1, \\sqrt 2 \\sin(\\pi f u_i), \\sqrt 2 \\cos(\\pi f u_i)` divided by :math:`\\sqrt{2 F + 1}`, and

.. math:: W_1 = \\Phi_h A, \\qquad W_l = \\Phi_h B_l \\Phi_h^\\top / h, \\qquad W_L = (\\Phi_h D)^\\top / h,

so that sums over units approximate integrals [2]_. This is the idea of neural metamorphosis [3]_, weights as a function
of positions, with a basis in the place of a network that generates weights. Networks with more than 2 F + 1 units
hardly differ. At the start, weights of the largest network have the variances of torch's linear layers.

A step takes O(b h (p + h)) time for b rows, p features and hidden layers of width h. Training is in float32, answers
are computed in float64 with the weights in float32 that :meth:`network` has.
"""
_REFERENCES = """
.. [1] J. Yu, L. Yang, N. Xu, J. Yang, T. Huang, "Slimmable neural networks", ICLR 2019.
.. [2] K. Solodskikh, A. Kurbanov, R. Aydarkhanov, I. Zhelavskaya, Y. Parfenov, D. Song, S. Lefkimmiatis, "Integral
   neural networks", CVPR 2023.
.. [3] X. Yang, X. Wang, "Neural metamorphosis", ECCV 2024.
"""
_WIDTH = """
width : int or None, default=None
    Width of the hidden layers, from 1 to the largest of `width_range`, or to twice the largest with "spectral". None is
    `default_width`. Outside of `width_range` it warns.
"""

_COMPUTING = ("device", "random_state", "verbose")
_OF_TRAINING = ("standardize", "learning_rate", "weight_decay", "batch_size", "max_iter", *_COMPUTING)
_ALSO_OF_ONE_NETWORK = ("classes_", "y_mean_", "y_scale_", "loss_curve_", "n_iter_")


def documented(*, standardize: str) -> Callable[[type], type]:
    """Return a decorator that fills in the parts of docstrings that both classes share."""
    return filled(
        parameters=_PARAMETERS.replace("<standardize>", standardize),
        attributes=_ATTRIBUTES,
        notes=_NOTES,
        references=_REFERENCES,
        width=_WIDTH,
    )


@filled(width=_WIDTH)
class MorphableMethods:
    """Methods and annotations of both classes."""

    _parameter_constraints = {
        "width_range": ["array-like"],
        "weight_function": [StrOptions({"nested", "spectral"})],
        "train_widths": [Interval(Integral, 1, None, closed="left"), "array-like"],
        "default_width": [Interval(Integral, 1, None, closed="left"), None],
        "n_hidden_layers": [Interval(Integral, 1, None, closed="left")],
        "n_frequencies": [Interval(Integral, 1, None, closed="left")],
        "activation": [StrOptions(set(ACTIVATIONS))],
        "standardize": ["boolean"],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        **{name: NETWORK_CONSTRAINTS[name] for name in ("weight_decay", "batch_size", "max_iter", *_COMPUTING)},
    }

    # Set by fit
    weights_: dict[str, np.ndarray]
    n_parameters_: int
    train_widths_: np.ndarray
    mean_: np.ndarray
    scale_: np.ndarray
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    @in_plain_modes
    def network(self, width: int | None = None, device: torch.device | str = "cpu") -> nn.Module:
        """Return the network of a width as a torch module.

        It is a new one at each call, in float32 and eval mode, of linear layers and activations. It takes standardised
        rows, ``(X - mean_) / scale_``.

        Parameters
        ----------
        <width>
        device : str or torch.device, default="cpu"
            Where its weights are.

        Returns
        -------
        network : torch.nn.Module
        """
        model, width = self._asked(width)
        return network_of_width(model.weights, model.shape, width).to(device)

    def n_parameters(self, width: int | None = None) -> int:
        """Return the number of parameters of the network of a width.

        Parameters
        ----------
        <width>

        Returns
        -------
        n_parameters : int
        """
        model, width = self._asked(width)
        return model.shape.n_parameters(width)

    def size_curve(self, X, y, widths=None) -> tuple[np.ndarray, np.ndarray]:
        """Return the scores of several widths.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The rows.
        y : array-like
            Their classes or values, as `score` takes them.
        widths : array-like of ints, default=None
            The widths, as methods take them; None are those of `train_widths_`.

        Returns
        -------
        widths : array of shape (n_widths,)
            The widths, as they were given.
        scores : array of shape (n_widths,)
            Accuracies, or R², of their networks.
        """
        model, _ = self._asked(None)
        widths = solver.widths_of_curve(model.shape, self.train_widths_ if widths is None else widths)
        scores = [self.resized(width).score(X, y) for width in widths.tolist()]
        return widths, np.array(scores, dtype=np.float64)

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()  # type: ignore[misc]
        tags.array_api_support = True
        return tags

    def _trained(self, X, y, ws: Workspace, head):
        """Train the weights of all widths, and keep them with what the head says of the targets."""
        target = head[0].encode(on_host(y))
        problem = solver.problem_of_widths(X, target, head[0], options(self, solver.Options), ws)
        fitted = fit_design(
            self,
            problem.design,
            problem.batches,
            problem.loss,
            problem.training,
            ws=ws,
            randomness=own_randomness(ws),
            described=partial(solver.described, problem, head[1]),
            schedule=cosine,
            X=X,
            y=y,
        )
        return keep(self, ws, fitted.model, **fitted.attributes)

    def _asked(self, width) -> tuple[solver.Model, int]:
        """Return the model, on the CPU, and the width of a call."""
        check_is_fitted(self)
        model = recall(self, solver.Model, open_workspace(self.mean_, device="cpu").exact())
        return model, solver.asked_width(model.shape, width, self.default_width)

    def _outputs(self, X, width, method) -> tuple[Workspace, torch.Tensor]:
        """Validate new rows; return the workspace and the outputs of the network of a width."""
        X = check_new_data(self, X, like="mean_", method=method)
        ws = open_workspace(X, device=self.device)
        model = recall(self, solver.Model, ws.exact())
        width = solver.asked_width(model.shape, width, self.default_width)
        return ws, solver.outputs_at(ws.load(X), model, width)

    def _resized(self, cls: type, width):
        """Return a fitted estimator with one network, that of a width."""
        model, width = self._asked(width)
        as_here = {name: getattr(self, name) for name in _OF_TRAINING}
        plain = cls((width,) * model.shape.n_hidden_layers, activation=model.shape.activation, tol=0.0, **as_here)
        network, found = solver.network_model(model, width)
        kept = {name: value for name, value in vars(self).items() if name in _ALSO_OF_ONE_NETWORK}
        columns = {name: value for name, value in vars(self).items() if name in ("n_features_in_", "feature_names_in_")}
        ws = open_workspace(self.mean_, device="cpu")
        return update_attributes(keep(plain, ws, network, **kept, **found), columns)
