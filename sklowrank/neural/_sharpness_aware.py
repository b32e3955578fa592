"""Sharpness-aware minimisation: steps by the gradient at perturbed weights."""

from collections.abc import Mapping
from numbers import Real
from typing import Literal

import torch
from skorch.dataset import unpack_data

from .._core.compat import Interval, StrOptions
from .._nets.outputs import divergence, outputs_of
from .._nets.training import Rule
from ._sharpness_aware_solver import metric_of, restored, second_order, steepest_perturbation, without_dropout

_WITH_REFERENCE = ("theta_prev", "theta_init", "fisher")  # radii that need reference weights


class SharpnessAware(Rule):
    r"""Sharpness-aware minimisation with a fixed radius (SAM, ASAM) or one set by the change of the outputs (TRAM).

    A training rule that looks for flat minima. At each step the weights are perturbed along the gradient, and the
    optimizer steps from the unperturbed weights by the gradient at the perturbed ones. The radius of the perturbation
    is a number, or is measured at each step: the divergence between the output distributions with and without noise in
    the inputs, or between those at the present weights and at reference weights. Use it where inputs will be noisier
    than in training, or to continue the training of a fitted network on other rows and keep its accuracy on the former
    ones. Do not use it where training time is limited, because a step takes more than twice as long, or where plain
    training does not overfit.

    Parameters
    ----------
    radius : {"input_noise", "theta_prev", "theta_init", "fisher"}, float or None, default="input_noise"
        Radius of the perturbation. "input_noise": the divergence of the outputs between inputs and inputs with noise.
        "theta_prev": the divergence between the present and the previous weights. "theta_init": that between the
        present weights and those at the start of this call of `fit` or `partial_fit`. "fisher": half the squared
        distance from the previous weights in the metric of squared gradients, in which the perturbation is the steepest
        one, too. A float > 0 is the radius itself: SAM, or ASAM with `adaptive`. None: no perturbation.
    radius_scale : float > 0, default=5.0
        Factor of the measured divergence. A larger one gives flatter minima and slower progress. "theta_prev" needs 10
        or more from a random start. A float `radius` is not multiplied.
    rho_max : float > 0, default=0.5
        Largest measured radius.
    ema_decay : float in [0, 1], default=0.0
        Decay of the reference weights of "theta_prev" and "fisher", which are a moving average: 0 is the weights before
        the last step, 1 is those at the start. A larger one gives a larger radius.
    noise_scale : float > 0, default=0.1
        Size of the noise of "input_noise", in the units of the network's inputs: standard deviations of features where
        the estimator standardises.
    noise_type : {"normal", "uniform"}, default="normal"
        Distribution of the noise: normal with standard deviation `noise_scale`, or uniform between minus and plus
        `noise_scale`.
    divergence : {"forward", "reverse", "symmetric"}, default="forward"
        Kullback-Leibler divergence for "theta_prev" and "theta_init": "forward" is KL(reference || present), "reverse"
        is KL(present || reference), "symmetric" is their sum, which "input_noise" always uses.
    adaptive : bool, default=False
        Whether the perturbation of a weight is proportional to its square, which makes it independent of how layers are
        scaled. "fisher" has a metric of its own and refuses it.

    See Also
    --------
    OrderedRank : Trains layers in factors that are ordered by importance.
    RandomSubspace : Trains few numbers in a random subspace of all weights.

    Notes
    -----
    With gradient :math:`g` at the weights :math:`\theta`, the optimizer gets the gradient at :math:`\theta + e` on the
    same batch,

    .. math::
        e = d\, \frac{T^2 g}{\|T g\|}, \qquad
        d = \min\Bigl(\rho_{\max},\; s\, \frac1n \sum_i \mathrm{KL}\bigl(p_i \,\|\, q_i\bigr)\Bigr),

    where :math:`T = 1`, or :math:`T = |\theta|` if `adaptive`, :math:`s` is `radius_scale`, and :math:`q_i` is given by
    the outputs of the first pass. Rows are weighted as in the loss. The kind of the outputs is read from the criterion:

    - logits of classes with ``CrossEntropyLoss``, which is that of :class:`NetworkClassifier`, and with any criterion
      of a ``NeuralNetClassifier`` that is not named here;
    - probabilities of classes with ``NLLLoss`` in a ``NeuralNetClassifier``, log-probabilities in another net;
    - logits of binary labels with ``BCEWithLogitsLoss`` and ``MultiLabelSoftMarginLoss``, their probabilities with
      ``BCELoss``;
    - otherwise means of Gaussians of unit variance: the divergence is half the mean squared difference. It depends on
      the unit of the targets; standardise them, as :class:`NetworkRegressor` does.

    "fisher" takes :math:`e = d M^{-1} g / \sqrt{g^\top M^{-1} g}` with the diagonal metric :math:`M = 1 + F / \bar F`,
    where :math:`F` is the mean of squared gradients so far and :math:`\bar F` its mean over all weights, and
    :math:`d = \min(\rho_{\max}, s\, \Delta^\top M \Delta / 2)` for the difference :math:`\Delta` from the reference
    weights. Without the 1, weights with small gradients are perturbed until training can fail.

    The noise of "input_noise" is drawn once for all rows of a batch, so that a row of weight two counts as two copies.
    With reference weights the first step is one of the optimizer alone.

    A step takes two forward and backward passes; "input_noise", "theta_prev" and "theta_init" take one more forward
    pass. Memory grows by a copy of the weights, and by another one for "theta_init", for "fisher" and for a moving
    average. Weights are restored from the copy, bit for bit. Running statistics of batch normalisation are updated by
    the first pass only. In a network with dropout layers outputs are compared without dropout, which takes another
    forward pass.

    Callbacks before the rule, such as gradient clipping, are called for the gradients of both passes. Accumulation of
    gradients over several batches is not supported.

    Reported: `radius_curve`, the mean radius of each epoch of the last call.

    References
    ----------
    Sherborne, T., Saphra, N., Dasigi, P. and Peng, H. (2024). TRAM: bridging trust regions and sharpness aware
    minimization. International Conference on Learning Representations.

    Foret, P., Kleiner, A., Mobahi, H. and Neyshabur, B. (2021). Sharpness-aware minimization for efficiently improving
    generalization. International Conference on Learning Representations.

    Kwon, J., Kim, J., Park, H. and Choi, I. K. (2021). ASAM: adaptive sharpness-aware minimization for scale-invariant
    learning of deep neural networks. International Conference on Machine Learning.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklowrank.neural import NetworkClassifier, SharpnessAware
    >>> X, y = load_iris(return_X_y=True)
    >>> model = NetworkClassifier((16,), training=SharpnessAware(), max_iter=20, tol=0, random_state=0).fit(X, y)
    >>> len(model.training_["radius_curve"])
    20
    """

    _parameter_constraints = {
        "radius": [
            StrOptions({"input_noise", "theta_prev", "theta_init", "fisher"}),
            Interval(Real, 0, None, closed="neither"),
            None,
        ],
        "radius_scale": [Interval(Real, 0, None, closed="neither")],
        "rho_max": [Interval(Real, 0, None, closed="neither")],
        "ema_decay": [Interval(Real, 0, 1, closed="both")],
        "noise_scale": [Interval(Real, 0, None, closed="neither")],
        "noise_type": [StrOptions({"normal", "uniform"})],
        "divergence": [StrOptions({"forward", "reverse", "symmetric"})],
        "adaptive": ["boolean"],
    }

    def __init__(
        self,
        radius: Literal["input_noise", "theta_prev", "theta_init", "fisher"] | float | None = "input_noise",
        *,
        radius_scale: float = 5.0,
        rho_max: float = 0.5,
        ema_decay: float = 0.0,
        noise_scale: float = 0.1,
        noise_type: Literal["normal", "uniform"] = "normal",
        divergence: Literal["forward", "reverse", "symmetric"] = "forward",
        adaptive: bool = False,
    ):
        self.radius = radius
        self.radius_scale = radius_scale
        self.rho_max = rho_max
        self.ema_decay = ema_decay
        self.noise_scale = noise_scale
        self.noise_type = noise_type
        self.divergence = divergence
        self.adaptive = adaptive

    def convert(self, module):
        """Start a new training; no layer is replaced."""
        self._validate_params()
        if self.adaptive and self.radius == "fisher":
            raise ValueError("adaptive=True does not go with radius='fisher', which has a metric of its own. Set one.")
        self._forget()
        now = self.generator_.clone_state()  # batches are those of the plain training, and noise depends on no batch
        seed = torch.randint(1 << 31, (), generator=now, device="cpu", dtype=torch.int64)
        self.noise_ = torch.Generator("cpu").manual_seed(int(seed))
        self.radius_curve_, self.total_, self.n_steps_ = [], 0.0, 0
        return []

    def finish(self, module):
        """Delete the copies of weights."""
        self._forget()
        return []

    def report(self):
        """Return the mean radius of each epoch."""
        return {"radius_curve": list(self.radius_curve_)}

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Record inputs and outputs of the module in this batch."""
        if training and self.radius is not None:
            self._stop_recording()
            self.recorder_ = net.module_.register_forward_hook(self._record, with_kwargs=True)

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Stop the recording."""
        self._stop_recording()

    def on_epoch_end(self, net, **kwargs):
        """Record the mean radius."""
        self.radius_curve_.append(float(self.total_) / max(self.n_steps_, 1))
        self.total_, self.n_steps_ = 0.0, 0

    def on_grad_computed(self, net, named_parameters, batch=None, training=True, **kwargs):
        """Replace the gradient by the one at the perturbed weights."""
        parameters = list(dict.fromkeys(p for _, p in named_parameters if p.requires_grad))
        gradients = {p: p.grad for p in parameters if p.grad is not None}
        if self.radius is None or not gradients:
            return
        Xi = unpack_data(batch)[0]
        more = {k: v for k, v in (self.pass_ or ((), {}, None))[1].items() if not (isinstance(Xi, Mapping) and k in Xi)}
        with restored(net.module_, parameters) as weights:
            perturbation = self._perturbation(net, batch, weights, gradients)
            if perturbation is None:
                return
            with torch.no_grad():
                torch._foreach_add_(list(perturbation), list(perturbation.values()))
            for parameter in parameters:
                parameter.grad = None
            del gradients, perturbation
            net.train_step_single(batch, **more)
        self.hand_gradient_on(net, named_parameters=named_parameters, batch=batch, training=training, **kwargs)

    @torch.no_grad()
    def _perturbation(self, net, batch, weights, gradients):
        """Return the perturbation of each parameter; None where there are no reference weights yet."""
        self.n_steps_ += 1
        metric = self._metric(gradients) if self.radius == "fisher" else None
        reference = self._reference(weights) if self.radius in _WITH_REFERENCE else {}
        if reference is weights:
            return None
        if isinstance(self.radius, Real):
            radius = self.radius
        else:
            if metric is not None:
                found = second_order(reference, weights, metric)
            else:
                found = self._divergence(net, batch, weights, reference)
            radius = (self.radius_scale * found).clamp(0, self.rho_max)
        self.total_ = self.total_ + radius
        return steepest_perturbation(gradients, weights if self.adaptive else None, metric, radius)

    def _divergence(self, net, batch, weights, reference):
        """Return the divergence between the present outputs and those at the reference, or of inputs with noise."""
        if self.pass_ is None:
            raise ValueError(
                f"radius={self.radius!r} compares outputs of the module, and the net calls only parts of it. Pass a "
                "number as radius, or 'fisher'."
            )
        inputs, named_inputs, outputs = self.pass_
        with without_dropout(net.module_) as had_dropout:
            if had_dropout:
                outputs = net.module_(*inputs, **named_inputs)
            if reference:
                torch._foreach_copy_(list(weights), list(reference.values()))
            else:
                inputs, named_inputs = self._with_noise(inputs, named_inputs)
            others = net.module_(*inputs, **named_inputs)
            if reference:
                torch._foreach_copy_(list(weights), list(weights.values()))
        others, outputs = (part[0] if isinstance(part, tuple) else part for part in (others, outputs))
        direction = self.divergence if reference else "symmetric"
        shares = net.row_weights(unpack_data(batch)[1]) if hasattr(net, "row_weights") else None
        return divergence(others, outputs, outputs_of(net), direction, shares)

    def _record(self, module, inputs, named_inputs, outputs):
        self.pass_ = inputs, named_inputs, outputs

    def _stop_recording(self):
        if hasattr(self, "recorder_"):
            self.recorder_.remove()
            del self.recorder_
        self.pass_ = None

    def _forget(self):
        self._stop_recording()
        self.reference_, self.fisher_, self.n_squares_ = {}, {}, 0

    def _reference(self, weights):
        """Return the reference weights and update them; in the first step these are the weights themselves."""
        if not self.reference_:
            self.reference_ = weights
            return weights
        reference = {p: self.reference_.get(p, value) for p, value in weights.items()}
        decay = 1.0 if self.radius == "theta_init" else self.ema_decay
        if decay == 0:
            self.reference_ = weights
        elif decay == 1:
            self.reference_ = reference
        else:
            averages = torch._foreach_lerp(list(reference.values()), list(weights.values()), 1 - decay)
            self.reference_ = dict(zip(reference, averages))
        return reference

    def _metric(self, gradients):
        """Update the mean of squared gradients and return its metric."""
        self.n_squares_ += 1
        for p, g in gradients.items():
            self.fisher_.setdefault(p, torch.zeros_like(g)).lerp_(g.square(), 1 / self.n_squares_)
        return metric_of({p: self.fisher_[p] for p in gradients})

    def _with_noise(self, inputs, named_inputs):
        """Add one draw of noise for all rows to inputs of floating-point numbers."""
        tensors = [x for x in (*inputs, *named_inputs.values()) if isinstance(x, torch.Tensor)]
        if not any(x.is_floating_point() for x in tensors):
            raise ValueError(
                "radius='input_noise' needs inputs of floating-point numbers, and the network gets none. Use "
                "radius='theta_prev', 'theta_init' or 'fisher', or a number."
            )
        return tuple(self._noisy(x) for x in inputs), {name: self._noisy(x) for name, x in named_inputs.items()}

    def _noisy(self, x):
        if not isinstance(x, torch.Tensor) or not x.is_floating_point():
            return x
        options = {"generator": self.noise_, "device": "cpu", "dtype": torch.float64}
        if self.noise_type == "normal":
            noise = torch.randn(x.shape[1:], **options)
        else:
            noise = 2 * torch.rand(x.shape[1:], **options) - 1
        return x + (self.noise_scale * noise).to(x.dtype).to(x.device, non_blocking=True)
