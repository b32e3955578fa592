"""Sharpness-aware steps: the gradient at weights moved uphill, as far as the outputs have changed."""

from collections.abc import Mapping
from itertools import takewhile
from numbers import Real

import torch
from skorch.dataset import unpack_data

from .._core.compat import Interval, StrOptions
from .._nets.training import Rule
from ._sharpness_aware_solver import (
    ascent,
    divergence,
    metric_of,
    outputs_of,
    restored,
    second_order,
    without_dropout,
)

_COMPARED = ("theta_prev", "theta_init", "fisher")  # radii that need former weights


class SharpnessAware(Rule):
    r"""Steps by the gradient at adversarially moved weights, with a radius set by the change of the outputs.

    A training rule that looks for flat minima. At each step the weights move a little way up the loss, and the
    optimizer steps from where they were with the gradient found there. How far they move is a number (SAM, ASAM) or
    is measured at each step: how much the output distribution changes under noise in the inputs, or has changed since
    the previous or the initial weights (TRAM). Use it where inputs will be noisier than those of the training, or to go
    on with a fitted network on other rows without losing the former ones. Do not use it where training time is what
    limits, because a step takes more than twice as long, or where plain training does not overfit.

    Parameters
    ----------
    radius : {"input_noise", "theta_prev", "theta_init", "fisher"}, float or None, default="input_noise"
        How far the weights move. "input_noise": by the divergence of the outputs between inputs and noised inputs.
        "theta_prev": between the present and the previous weights. "theta_init": between the present weights and those
        at the start of this call of `fit` or `partial_fit`. "fisher": by half the squared distance from the previous
        weights in the metric of squared gradients, in which the direction is the steepest, too. A float > 0 is the
        radius itself: SAM, or ASAM with `adaptive`. None: steps of the optimizer alone.
    radius_scale : float > 0, default=5.0
        Factor of the measured divergence. A larger one gives flatter minima, and slower progress. "theta_prev" needs
        10 or more from a random start. A float `radius` is not multiplied.
    rho_max : float > 0, default=0.5
        Largest measured radius.
    ema_decay : float in [0, 1], default=0.0
        Weights that "theta_prev" and "fisher" compare with: 0 is the weights before the last step, 1 is those at the
        start, and in between is a moving average, farther away the larger it is.
    noise_scale : float > 0, default=0.1
        Size of the noise of "input_noise", in the units in which the network gets its inputs: standard deviations of
        features where the estimator standardises.
    noise_type : {"normal", "uniform"}, default="normal"
        Noise with standard deviation `noise_scale`, or uniform in plus and minus `noise_scale`.
    divergence : {"forward", "reverse", "symmetric"}, default="forward"
        Divergence for "theta_prev" and "theta_init": "forward" is KL(former || present), "reverse" is KL(present ||
        former), "symmetric" is their sum, which "input_noise" always takes.
    adaptive : bool, default=False
        Whether each weight moves in proportion to its square, which does not depend on how layers are scaled. "fisher"
        has a metric of its own and refuses it.

    See Also
    --------
    OrderedRank : Trains layers in factors that are ordered by importance.
    RandomSubspace : Trains few numbers in a random subspace of all weights.

    Notes
    -----
    With gradient :math:`g` at the weights :math:`\theta`, the optimizer gets the gradient at :math:`\theta + e`,

    .. math::
        e = d\, \frac{T^2 g}{\|T g\|}, \qquad
        d = \min\Bigl(\rho_{\max},\; s\, \frac1n \sum_i \mathrm{KL}\bigl(p_i \,\|\, q_i\bigr)\Bigr),

    on the same batch, where :math:`T = 1`, or :math:`T = |\theta|` if `adaptive`, and :math:`s` is `radius_scale`. The
    present outputs are those of the first pass. Rows are weighted as in the loss. What the outputs are is read from
    the criterion:

    - logits of classes with ``CrossEntropyLoss``, which is that of :class:`NetworkClassifier`, and any criterion of a
      ``NeuralNetClassifier`` that is not named here;
    - probabilities of classes with ``NLLLoss`` in a ``NeuralNetClassifier``, log-probabilities in another net;
    - a logit for each of several yes-or-no questions with ``BCEWithLogitsLoss`` and ``MultiLabelSoftMarginLoss``, a
      probability with ``BCELoss``;
    - else means of Gaussians of unit variance: the divergence is half the mean squared difference. It has the unit of
      the targets; standardise them, as :class:`NetworkRegressor` does.

    "fisher" takes :math:`e = d M^{-1} g / \sqrt{g^\top M^{-1} g}` with the diagonal metric :math:`M = 1 + F / \bar F`,
    where :math:`F` is the mean of squared gradients so far and :math:`\bar F` its mean over all weights, and
    :math:`d = \min(\rho_{\max}, s\, \Delta^\top M \Delta / 2)` for the difference :math:`\Delta` from former weights.
    Without the 1, weights of small gradients move so far that training can fail.

    The noise of "input_noise" is drawn once for all rows of a batch, so that a row of weight two counts as two copies.
    Where outputs are compared with former weights, there are none in the first step, which is one of the optimizer
    alone.

    A step takes two passes forward and back; "input_noise" and "theta_..." take one more forward. Memory grows by a
    copy of the weights, and another one for former weights with a decay, for "theta_init" and for "fisher". Weights are
    restored from the copy, bit for bit. Running statistics of batch normalisation see the first pass only. In a network
    with dropout layers outputs are compared without dropout, at the cost of one more pass forward.

    Callbacks before the rule, such as gradient clipping, see the gradient of either pass. Gradients that are
    accumulated over several batches are not supported.

    What it reports: `radius_curve`, the mean radius of each epoch of the last call.

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

    _parameter_constraints: dict = {
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
        radius="input_noise",
        *,
        radius_scale=5.0,
        rho_max=0.5,
        ema_decay=0.0,
        noise_scale=0.1,
        noise_type="normal",
        divergence="forward",
        adaptive=False,
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
        """Begin: no layer is replaced."""
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
        """Drop the copies of weights."""
        self._forget()
        return []

    def report(self):
        """Return the mean radius of each epoch."""
        return {"radius_curve": list(self.radius_curve_)}

    def on_batch_begin(self, net, batch=None, training=False, **kwargs):
        """Listen to what the network gets and what it answers."""
        if training and self.radius is not None:
            self._stop_listening()
            self.listener_ = net.module_.register_forward_hook(self._heard, with_kwargs=True)

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Stop listening."""
        self._stop_listening()

    def on_epoch_end(self, net, **kwargs):
        """Note the mean radius."""
        self.radius_curve_.append(float(self.total_) / max(self.n_steps_, 1))
        self.total_, self.n_steps_ = 0.0, 0

    def on_grad_computed(self, net, named_parameters, batch=None, training=True, **kwargs):
        """Put the gradient at the moved weights in the place of the one at the weights."""
        parameters = list(dict.fromkeys(p for _, p in named_parameters if p.requires_grad))
        gradients = {p: p.grad for p in parameters if p.grad is not None}
        if self.radius is None or not gradients:
            return
        Xi = unpack_data(batch)[0]
        more = {k: v for k, v in (self.pass_ or ((), {}, None))[1].items() if not (isinstance(Xi, Mapping) and k in Xi)}
        with restored(net.module_, parameters) as weights:
            moves = self._moves(net, batch, weights, gradients)
            if moves is None:
                return
            with torch.no_grad():
                torch._foreach_add_(list(moves), list(moves.values()))
            for parameter in parameters:
                parameter.grad = None
            del gradients, moves
            net.train_step_single(batch, **more)
        before = takewhile(lambda callback: callback is not self, (callback for _, callback in net.callbacks_))
        for callback in (net, *before):
            callback.on_grad_computed(net, named_parameters=named_parameters, batch=batch, training=training, **kwargs)

    @torch.no_grad()
    def _moves(self, net, batch, weights, gradients):
        """Return by how much each parameter moves; None where there are no former weights yet."""
        self.n_steps_ += 1
        metric = self._metric(gradients) if self.radius == "fisher" else None
        former = self._former(weights) if self.radius in _COMPARED else {}
        if former is weights:
            return None
        if isinstance(self.radius, Real):
            radius = self.radius
        else:
            if metric is not None:
                found = second_order(former, weights, metric)
            else:
                found = self._divergence(net, batch, weights, former)
            radius = (self.radius_scale * found).clamp(0, self.rho_max)
        self.total_ = self.total_ + radius
        return ascent(gradients, weights if self.adaptive else None, metric, radius)

    def _divergence(self, net, batch, weights, former):
        """Return the divergence of the outputs at the former weights, or of noised inputs, from the present ones."""
        if self.pass_ is None:
            raise ValueError(
                f"radius={self.radius!r} compares outputs of the module, and the net calls only parts of it. Pass a "
                "number as radius, or 'fisher'."
            )
        inputs, named_inputs, outputs = self.pass_
        with without_dropout(net.module_) as had_dropout:
            if had_dropout:
                outputs = net.module_(*inputs, **named_inputs)
            if former:
                torch._foreach_copy_(list(weights), list(former.values()))
            else:
                inputs, named_inputs = self._noised(inputs, named_inputs)
            others = net.module_(*inputs, **named_inputs)
            if former:
                torch._foreach_copy_(list(weights), list(weights.values()))
        others, outputs = (part[0] if isinstance(part, tuple) else part for part in (others, outputs))
        direction = self.divergence if former else "symmetric"
        shares = net.row_weights(unpack_data(batch)[1]) if hasattr(net, "row_weights") else None
        return divergence(others, outputs, outputs_of(net), direction, shares)

    def _heard(self, module, inputs, named_inputs, outputs):
        self.pass_ = inputs, named_inputs, outputs

    def _stop_listening(self):
        if hasattr(self, "listener_"):
            self.listener_.remove()
            del self.listener_
        self.pass_ = None

    def _forget(self):
        self._stop_listening()
        self.former_, self.fisher_, self.n_squares_ = {}, {}, 0

    def _former(self, weights):
        """Return the weights to compare with, and prepare those of the next step; the same weights in the first one."""
        if not self.former_:
            self.former_ = weights
            return weights
        former = {p: self.former_.get(p, value) for p, value in weights.items()}
        decay = 1.0 if self.radius == "theta_init" else self.ema_decay
        if decay == 0:
            self.former_ = weights
        elif decay == 1:
            self.former_ = former
        else:
            averages = torch._foreach_lerp(list(former.values()), list(weights.values()), 1 - decay)
            self.former_ = dict(zip(former, averages))
        return former

    def _metric(self, gradients):
        """Take the gradients into the mean of squares, and return its metric."""
        self.n_squares_ += 1
        for p, g in gradients.items():
            self.fisher_.setdefault(p, torch.zeros_like(g)).lerp_(g.square(), 1 / self.n_squares_)
        return metric_of({p: self.fisher_[p] for p in gradients})

    def _noised(self, inputs, named_inputs):
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
