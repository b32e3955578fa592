"""Training in a random subspace of all weights: few numbers decide them all."""

import math
from numbers import Integral

import torch
from torch import nn

from .._core.compat import Interval, StrOptions
from .._nets.architecture import Expansion, expands
from .._nets.layers import as_tensor
from .._nets.training import Rule
from ._random_projections import KINDS, chosen, random_projection

_THETA = "subspace_theta"  # a parameter of the module while it is trained


class RandomSubspace(Rule):
    r"""Train d numbers: the coordinates of all weights in a random subspace through the random start.

    A training rule that holds a network to a random subspace of its weights. The fitted network is a seed and d
    numbers: use it where models have to be small when they are stored or sent, as a strong regulariser on few rows, or
    to ask how many numbers a problem needs, for which :class:`~sklowrank.inspection.IntrinsicDimension` searches the
    smallest d. Do not use it for the best score, which training all weights has once rows are plenty, nor for speed:
    a prediction takes as long as with all weights, and a training step longer. Set `learning_rate` of the estimator to
    about 1e-2, ten times the default, or more for small d: a step of d numbers moves the weights less than one of each
    weight.

    Parameters
    ----------
    subspace_dim : int >= 1 or None, default=200
        Dimension d of the subspace, at most the number D of weights. More gives better fits; None is D.
    projection : {"auto", "dense", "sparse", "fastfood"}, default="auto"
        How the subspace is drawn. "dense": normal numbers, O(d D) time and memory. "sparse": entries -1, 0 and 1, about
        one in the root of D not 0, O(d √D + D). "fastfood": products of diagonal matrices, a permutation and
        Walsh-Hadamard transforms, O(D log D) time and O(D) memory, whatever d is. "auto": "dense" where d D <= 2e7,
        else "fastfood".

    See Also
    --------
    sklowrank.inspection.IntrinsicDimension : Searches the smallest dimension that reaches a share of the full score.
    OrderedRank : Trains layers in factors that are ordered by importance.

    Notes
    -----
    All parameters that require a gradient, biases and normalisation included, are one vector

    .. math::
        \theta^{(D)} = \theta_0^{(D)} + P \theta^{(d)}

    of length D. :math:`\theta_0` is the ordinary start, frozen; P is random and fixed, with columns of unit length over
    all D entries (with "fastfood" in expectation); :math:`\theta^{(d)}` starts at 0. The optimizer has
    :math:`\theta^{(d)}` alone, with the gradient :math:`P^\top (g + \lambda \theta^{(D)})`, where g is the gradient
    of the weights and :math:`\lambda` the `weight_decay` of each weight's group: decay is a penalty on the weights.
    Moments of Adam take 2 d numbers. Callbacks before the rule see the gradients of the weights.

    A fitted estimator of ours stores :math:`\theta^{(d)}`, seeds and buffers, and draws :math:`\theta_0` and P again
    for each prediction; `n_parameters_` is d. All weights are stored where the start cannot be drawn again: a `module`
    that is an instance or has random numbers of its own, and a training that goes on with a network that another rule,
    or another subspace, has trained. Random numbers of one seed may differ between major versions of torch.

    In a skorch net the module has ordinary weights, and is trained on in the same subspace by `partial_fit` as long as
    nothing else has changed them.

    What it reports: `theta` (d,), `seed` of the projection, `n_full_parameters` D, and the `projection` used.

    References
    ----------
    Li, C., Farkhoor, H., Liu, R. and Yosinski, J. (2018). Measuring the intrinsic dimension of objective landscapes.
    International Conference on Learning Representations.

    Le, Q., Sarlós, T. and Smola, A. (2013). Fastfood: approximating kernel expansions in loglinear time. International
    Conference on Machine Learning.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklowrank.neural import NetworkClassifier, RandomSubspace
    >>> X, y = load_iris(return_X_y=True)
    >>> rule = RandomSubspace(subspace_dim=20)
    >>> model = NetworkClassifier((32, 32), training=rule, learning_rate=5e-2, tol=0, random_state=0).fit(X, y)
    >>> model.score(X, y) > 0.9
    True
    >>> model.n_parameters_, model.n_dense_parameters_
    (20, 1315)
    """

    _parameter_constraints = {
        "subspace_dim": [Interval(Integral, 1, None, closed="left"), None],
        "projection": [StrOptions({"auto", *KINDS})],
    }

    def __init__(self, subspace_dim=200, *, projection="auto"):
        self.subspace_dim = subspace_dim
        self.projection = projection

    def convert(self, module):
        """Draw the subspace, and give the module the parameter theta; no layer is replaced."""
        self._validate_params()
        self.parameters_ = trained_parameters(module)
        if not self.parameters_:
            raise ValueError("training=RandomSubspace() needs a module with parameters that require a gradient.")
        self.names_ = names_of(module, self.parameters_)
        weights = flat(self.parameters_)
        n_full = len(weights)
        dim = n_full if self.subspace_dim is None else self.subspace_dim
        if dim > n_full:
            raise ValueError(
                f"subspace_dim={dim} is above the number of trained weights, {n_full}. Pass at most {n_full}, or None."
            )
        kind = chosen(self.projection, n_full, dim)
        former = self._former(weights)
        if (former.get("n_full_parameters"), former.get("projection")) == (n_full, kind) and len(
            former["theta"]
        ) == dim:
            theta, seed = as_tensor(former["theta"]).to(weights), former["seed"]
            self.state_ = getattr(self, "state_", {})
        else:
            theta, seed, self.state_ = weights.new_zeros(dim), self._drawn_seed(), {}
        self.found_ = {"seed": seed, "n_full_parameters": n_full, "projection": kind}
        self.map_ = random_projection(kind, n_full, dim, seed, device=weights.device, dtype=weights.dtype)
        self.theta_ = nn.Parameter(theta.clone())
        self.start_ = weights - self.map_.forward(theta)
        self.version_ = self.theta_._version
        module.register_parameter(_THETA, self.theta_)
        self.hook_ = module.register_forward_pre_hook(self._before_a_pass)
        return []

    def on_train_begin(self, net, **kwargs):
        """Convert the module of a skorch net, and give the optimizer theta in the place of all weights."""
        if hasattr(self, "groups_") and hasattr(net.module_, _THETA):
            self.on_train_end(net)  # of a training that an error has ended
        super().on_train_begin(net, **kwargs)
        ours, groups = {id(p) for p in self.parameters_}, net.optimizer_.param_groups
        self.groups_ = [list(group["params"]) for group in groups]
        self.home_ = max(range(len(groups)), key=lambda i: sum(p.numel() for p in groups[i]["params"] if id(p) in ours))
        for group in groups:
            group["params"][:] = [p for p in group["params"] if id(p) not in ours and p is not self.theta_]
        home = groups[self.home_]
        home["params"].append(self.theta_)
        decays = {id(p): group.get("weight_decay", 0) for group, of in zip(groups, self.groups_) for p in of}
        self.decays_ = [decays.get(id(p), 0) for p in self.parameters_]
        self.decay_ = home.get("weight_decay", 0)
        if self.decay_:
            home["weight_decay"] = 0.0
        if self.state_:
            net.optimizer_.state[self.theta_] = {name: self._loaded(value, home) for name, value in self.state_.items()}

    @torch.no_grad()
    def on_grad_computed(self, net, named_parameters, **kwargs):
        """Give theta its gradient, and take those of the weights away."""
        gradient = flat([torch.zeros_like(p) if p.grad is None else p.grad for p in self.parameters_])
        if any(self.decays_):
            weights = zip(gradient.split([p.numel() for p in self.parameters_]), self.parameters_, self.decays_)
            for part, p, decay in weights:
                part.add_(p.flatten(), alpha=decay)
        self.theta_.grad = self.map_.adjoint(gradient)
        for p in self.parameters_:
            p.grad = None

    def on_batch_end(self, net, batch=None, training=False, **kwargs):
        """Set the weights after a step."""
        if training:
            self._set_weights()

    def finish(self, module):
        """Take the parameter theta from the module; no layer is replaced."""
        self.hook_.remove()
        del module._parameters[_THETA]
        self.found_["theta"] = as_array(self.theta_)
        self.mark_ = mark_of(flat(self.parameters_))
        del self.parameters_, self.map_, self.theta_, self.start_, self.hook_  # drawn again where training goes on
        return []

    def on_train_end(self, net, **kwargs):
        """Finish the module of a skorch net, and give the optimizer its weights back."""
        theta = getattr(net.module_, _THETA, None)
        if theta is not None:
            state = net.optimizer_.state.get(theta, {})
            self.state_ = {k: v.detach().cpu() if isinstance(v, torch.Tensor) else v for k, v in state.items()}
        super().on_train_end(net, **kwargs)
        if theta is not None:
            groups = net.optimizer_.param_groups
            for group, params in zip(groups, self.groups_):
                group["params"][:] = params
            if self.decay_:
                groups[self.home_]["weight_decay"] = self.decay_
            del self.groups_

    def report(self):
        """Return theta, the seed and kind of the projection, and the number of weights."""
        found = dict(getattr(self, "found_", {}))
        if hasattr(self, "theta_"):
            found["theta"] = as_array(self.theta_)
        return found

    def expansion(self):
        """Return what draws the weights again, beside theta."""
        found = self.report()
        shape = (len(found["theta"]), KINDS.index(found["projection"]), found["seed"])
        return Expansion("random subspace", shape)

    def stored(self, weights, report, *, expands):
        """Return theta and what does not follow from it, or all weights."""
        gone = {_THETA, *(self.names_ if expands else ())}
        rest = {name: value for name, value in weights.items() if name not in gone}
        return {"theta": report["theta"], **rest} if expands else rest

    def _former(self, weights):
        """Return the report of a former training of this network, if nothing has changed the weights since."""
        if self.former_ or not hasattr(self, "mark_"):
            return self.former_
        now, then = mark_of(weights), self.mark_
        same = len(now) == len(then) and all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(now, then))
        return self.found_ if same else {}  # else the network is another one

    def _loaded(self, value, group):
        """Return a part of the optimizer's state where it has to be; counts of steps stay on the CPU if they may."""
        if not isinstance(value, torch.Tensor) or not (value.ndim or group.get("fused") or group.get("capturable")):
            return value
        return value.to(self.theta_)

    def _drawn_seed(self):
        now = self.generator_.clone_state()  # batches are those of the plain training
        return int(torch.randint(1 << 31, (), generator=now, device="cpu", dtype=torch.int64))

    def _before_a_pass(self, module, inputs):
        """Set the weights where an optimizer evaluates the loss more than once in a step."""
        if module.training and self.theta_._version != self.version_:
            self._set_weights()

    @torch.no_grad()
    def _set_weights(self):
        set_weights(self.parameters_, self.start_ + self.map_.forward(self.theta_))
        self.version_ = self.theta_._version


@expands("random subspace")
def _trained_again(module, stored, shape):
    """Give a network at its start the weights that theta says."""
    dim, kind, seed = shape
    parameters = trained_parameters(module)
    start = flat(parameters)
    theta = as_tensor(stored["theta"]).to(start)
    set_weights(parameters, start + random_projection(KINDS[kind], len(start), dim, seed).forward(theta))


# All trained weights of a network as one vector


def trained_parameters(module):
    """Return the parameters that require a gradient, each once."""
    return [p for name, p in module.named_parameters() if p.requires_grad and name != _THETA]


def names_of(module, parameters):
    """Return all names that parameters have in the state of a module."""
    ours = {id(p) for p in parameters}
    return {name for name, value in module.state_dict(keep_vars=True).items() if id(value) in ours}


def flat(parts):
    """Return tensors as one vector."""
    return torch.cat([part.detach().flatten() for part in parts])


@torch.no_grad()
def set_weights(parameters, vector):
    """Copy a vector into parameters."""
    parts = vector.split([p.numel() for p in parameters])
    torch._foreach_copy_(list(parameters), [part.view_as(p) for part, p in zip(parts, parameters)])


def mark_of(vector):
    """Return numbers that tell whether weights have changed."""
    vector = vector.double()
    return [len(vector), float(vector.sum()), float(vector.norm()), float(vector[::3].norm())]


def as_array(theta):
    """Return theta as stored."""
    return theta.detach().float().cpu().numpy().copy()
