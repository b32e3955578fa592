"""A classifier of images whose features do not change when an image is turned."""

from functools import partial
from numbers import Integral, Real
from typing import Any, Literal, Self

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.callback import CallbackSupportMixin
from sklearn.utils.validation import check_is_fitted
from torch import nn

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep, options, recall
from .._core.modes import in_plain_modes
from .._core.validation import check_classes, check_count, check_fit_data, check_new_data, on_host
from .._core.workspace import open_workspace
from .._nets.designs import fit_design, own_randomness
from .._nets.parameters import NETWORK_CONSTRAINTS, network_parameters
from .._nets.schedules import one_cycle
from .._nets.scores import ScoredClasses
from .._nets.targets import labels_head, weighted
from .._nets.training import Training
from . import _lie_group_conv_solver as solver
from ._lie_group_conv_network import GROUPS, group_elements

_ADAMW = {"optimizer": torch.optim.AdamW, "optimizer__fused": True}


@network_parameters(module_params="")
class LieGroupConvClassifier(
    ScoredClasses,
    CallbackSupportMixin,
    ClassNamePrefixFeaturesOutMixin,
    TransformerMixin,
    ClassifierMixin,
    BaseEstimator,
):
    """Classify images by features that hardly change when an image is turned.

    Images are convolved with kernels that are moved by sampled elements of a group of linear maps, and the features
    are the largest values over the elements and the places of the image. A network that was trained on upright images
    recognises turned ones, and `transform` returns features for another classifier. For rows that are flattened images
    of one object without an up or down, such as digits in any direction or tiles of a microscope; not for ordinary
    tables. The background of the images should be 0, and columns are not to be standardised one by one, which would
    not turn with the images. Where the possible turns are known and training is cheap, a plain classifier that is
    trained on turned copies of the images is as good or better; for turns by up to 20 degrees a plain classifier is
    better.

    Parameters
    ----------
    image_shape : (height, width), (height, width, channels) or None, default=None
        Shape of the image that a row is, channels last. None warns, and takes the smallest square that holds the
        columns, of one channel, with zeros appended.
    group : {"so2", "sl2", "gl2"}, default="so2"
        Group of linear maps of the plane: rotations, rotations and strains that preserve areas, all invertible maps
        that preserve the orientation. Training takes more epochs for larger groups.
    n_group_samples : int, default=8
        Number of elements of the group in a pass. With "so2" and a multiple of 4, quarter turns of a square image
        change nothing but rounding.
    n_test_samples : int, default=3
        Number of passes, each with elements of its own, over which the features of new rows are averaged.
    spd_scale : float, default=0.02
        Variance of the coordinates of the logarithm of the strain, at most 1. For "sl2" and "gl2" alone.
    n_channels : int, default=16
        Number of kernels. There are four times as many features.
    kernel_size : int, default=11
        Width of the kernels in pixels of the enlarged image.
    kernel_points : int, default=5
        Number of free values of a kernel on each side, at least 2, between which it is interpolated. With fewer values
        kernels are smoother.
    pad : int, default=3
        Width of the margin of zeros around an image, in pixels.
    learning_rate : float, default=6e-3
        Step size of the optimizer. It rises to this value in three tenths of the steps, and falls to nearly 0.
    weight_decay : float, default=0.05
        Strength of the weight decay of the optimizer. AdamW takes this share times the step size off the weights.
    batch_size : int, default=64
        Number of rows per training step; it changes the result. At most all rows.
    max_iter : int, default=30
        Maximum number of iterations. An iteration is an epoch; only a callback ends the training before.
    <computing parameters>

    Attributes
    ----------
    classes_ : array of shape (n_classes,)
        Class labels.
    image_shape_ : tuple of ints
        Shape of the images.
    group_elements_ : array of shape (n_test_samples, n_group_samples, 2, 2)
        Elements of the group with which new rows are answered, float64.
    weights_ : dict of arrays
        Weights of the network, float32, by their names in torch.
    scale_ : float
        Largest absolute value of X, by which rows are divided; 1 where it is 0.
    loss_curve_ : list of floats
        Mean loss of each epoch.
    n_iter_ : int
        Number of epochs.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where all are strings.

    See Also
    --------
    NetworkClassifier : A network that takes any `module`, such as a plain convolutional one.
    GrassmannClassifier : A classifier of rows whose direction tells the class.

    Notes
    -----
    An invertible matrix that preserves the orientation is :math:`g = P R` with a rotation R and a symmetric positive
    definite :math:`P = \\exp(S)`; for "sl2" S has trace zero, for "so2" it is zero. The angles of the
    `n_group_samples` rotations are equidistant, with one random offset for each batch, and the coordinates of S in an
    orthonormal basis are normal with variance `spd_scale`. A kernel k is a table of `kernel_points` squared values on
    :math:`[-1, 1]^2`, zero outside of the unit disc. For an image f the value at the place t and the element g is

    .. math:: h(t, g) = |\\det g^{-1}| \\sum_x k(g^{-1} x) \\, f(t + x),

    with the sum over the pixels x of the kernel and bilinear interpolation of k. Two layers that are shared by all
    places and elements follow, and the maximum over both is a feature. Images whose shorter side is below 15 pixels are
    enlarged, and those for which the places t would not be symmetric about the centre get one pixel more on a side. An
    image that is turned by a quarter has the same values h, at other places and elements; other turns change features
    by the interpolation, and by the sampling of angles.

    An epoch takes O(m p n_group_samples n_channels) time for m rows of p places, times the pixels of a kernel; memory
    is that of a batch. Training is in float32. Answers are computed in float64.

    References
    ----------
    .. [1] M. Mironenco, P. Forré, "Lie group decompositions for equivariant neural networks", ICLR 2024.

    Examples
    --------
    >>> import numpy as np
    >>> from sklearn.datasets import load_digits
    >>> from sklowrank.neural import LieGroupConvClassifier
    >>> X, y = load_digits(n_class=2, return_X_y=True)
    >>> model = LieGroupConvClassifier((8, 8), n_channels=4, max_iter=10, random_state=0).fit(X[::2], y[::2])
    >>> turned = np.rot90(X[1::2].reshape(-1, 8, 8), axes=(1, 2)).reshape(-1, 64)
    >>> model.score(turned, y[1::2]) > 0.95
    True
    >>> np.allclose(model.transform(turned), model.transform(X[1::2]))
    True
    """

    _parameter_constraints = {
        "image_shape": ["array-like", None],
        "group": [StrOptions(set(GROUPS))],
        "n_group_samples": [Interval(Integral, 1, None, closed="left")],
        "n_test_samples": [Interval(Integral, 1, None, closed="left")],
        "spd_scale": [Interval(Real, 0, 1, closed="both")],  # beyond it the inverse of an element may not be finite
        "n_channels": [Interval(Integral, 1, None, closed="left")],
        "kernel_size": [Interval(Integral, 1, None, closed="left")],
        "kernel_points": [Interval(Integral, 2, None, closed="left")],
        "pad": [Interval(Integral, 0, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        **{name: NETWORK_CONSTRAINTS[name] for name in ("weight_decay", "batch_size", "max_iter")},
        **{name: NETWORK_CONSTRAINTS[name] for name in ("device", "random_state", "verbose")},
    }

    # Set by fit
    classes_: np.ndarray
    image_shape_: tuple[int, ...]
    group_elements_: np.ndarray
    weights_: dict[str, np.ndarray]
    scale_: float
    loss_curve_: list[float]
    n_iter_: int
    n_features_in_: int
    feature_names_in_: np.ndarray

    def __init__(
        self,
        image_shape: tuple[int, ...] | None = None,
        *,
        group: Literal["so2", "sl2", "gl2"] = "so2",
        n_group_samples: int = 8,
        n_test_samples: int = 3,
        spd_scale: float = 0.02,
        n_channels: int = 16,
        kernel_size: int = 11,
        kernel_points: int = 5,
        pad: int = 3,
        learning_rate: float = 6e-3,
        weight_decay: float = 0.05,
        batch_size: int = 64,
        max_iter: int = 30,
        device: str = "auto",
        random_state: RandomState = None,
        verbose: int = 0,
    ):
        self.image_shape = image_shape
        self.group = group
        self.n_group_samples = n_group_samples
        self.n_test_samples = n_test_samples
        self.spd_scale = spd_scale
        self.n_channels = n_channels
        self.kernel_size = kernel_size
        self.kernel_points = kernel_points
        self.pad = pad
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y) -> Self:
        """Train the network.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The images, one in each row, channels last. The background should be 0, as the margin is.
        y : array-like of shape (n_samples,)
            Their classes, two at least.

        Returns
        -------
        self : LieGroupConvClassifier
        """
        X, y = check_fit_data(self, X, y)
        check_classes(on_host(y))
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        randomness, (head, classes) = own_randomness(ws), labels_head(y)
        codes = head.encode(on_host(y))
        problem = solver.lifted_images(ws.load(X), codes, head.n_out, options(self, solver.Options), randomness)
        fitted = fit_design(
            self,
            problem.design,
            problem.batches,
            weighted(head.loss),
            options(self, Training, net_params=_ADAMW),
            ws=ws,
            randomness=randomness,
            described=partial(solver.described, problem, **classes),
            schedule=partial(one_cycle, peak=self.learning_rate),
            X=X,
            y=y,
        )
        return keep(self, ws, fitted.model, **fitted.attributes)

    def transform(self, X):
        """Return the invariant features of images.

        Parameters
        ----------
        X : array-like or tensor of shape (n_samples, n_features)
            The images.

        Returns
        -------
        features : array of shape (n_samples, 4 * n_channels)
        """
        ws, features = self._answers(X, solver.feature_network, "transform")
        return ws.answer(features)

    def sample_group(self, n_samples: int | None = None, random_state: RandomState = None) -> np.ndarray:
        """Draw elements of the group as the network does; there need be no fit before.

        Parameters
        ----------
        n_samples : int or None, default=None
            Number of elements. None is `n_group_samples`.
        random_state : int, RandomState instance or None, default=None
            Seed or generator of random numbers; pass an int for reproducible results.

        Returns
        -------
        elements : array of shape (n_samples, 2, 2)
            They map coordinates (x to the right, y down) of a kernel to those of its moved copy.
        """
        self._validate_params()
        count = self.n_group_samples if n_samples is None else check_count(n_samples, "n_samples", "sample_group")
        ws = open_workspace(np.empty((0, 0)), device="cpu", random_state=random_state)
        return ws.store(group_elements(ws.generator, group=self.group, n_samples=count, spd_scale=self.spd_scale))

    @in_plain_modes
    def network(self, device: torch.device | str = "cpu") -> nn.Module:
        """Return the fitted network as a torch module.

        It is a new one at each call, in float32 and eval mode, takes images as `predict` does, in float32, and gives
        the scores whose softmax is `predict_proba`.

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
        return solver.score_network(model, device, torch.float32)

    def _scores(self, X, method: str):
        """Return the workspace of new rows, and the scores of their classes."""
        return self._answers(X, solver.score_network, method)

    @in_plain_modes
    def _answers(self, X, network: Any, method: str):
        """Return the workspace of new rows, and what a network of the model makes of them."""
        X = check_new_data(self, X, like="group_elements_", method=method)
        ws = open_workspace(X, device=self.device)
        model = recall(self, solver.Model, ws.exact())
        return ws, solver.answers(network(model, ws.device, torch.float64), X, model, ws)

    @property
    def _n_features_out(self):
        return len(self.weights_["head.0.weight"])

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.array_api_support = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags
