"""An optimizer whose steps are gradients times the inverse of an empirical Fisher matrix."""

from collections.abc import Callable
from typing import Any, Literal

import torch

from ._inverse_fisher import checked_damp, damped_cholesky, gram, quick_products

_WINDOW = "window"  # the key of what all parameters share in the optimizer's state


class MFAC(torch.optim.Optimizer):
    """Multiply each gradient by the inverse of the damped empirical Fisher matrix of the last gradients.

    Use it as any optimizer of torch, or in skorch and in our networks: ``net_params={"optimizer": MFAC,
    "optimizer__damp": 1e-2}``. It takes larger steps where gradients have been small and agree, which helps on badly
    conditioned problems. It keeps `n_grads` gradients of all parameters: for networks whose weights barely fit the
    memory :class:`torch.optim.AdamW` is the choice, and on well conditioned problems it is faster.

    Parameters
    ----------
    params : iterable of tensors, or of dicts
        What is optimized. Groups may have an `lr`, a `momentum` and a `weight_decay` of their own.
    lr : float, default=1e-2
        Step size, at least 0. The inverse is at most 1 / damp times the identity: a step is at most ``lr / damp`` times
        the gradient.
    momentum : float, default=0.0
        Share of the former step in a step, in [0, 1).
    weight_decay : float, default=0.0
        Share of the weights that is added to the gradients, at least 0, before they are stored.
    n_grads : int, default=64
        Number of gradients that are kept, at least 1. More describe the matrix better.
    damp : float, default=1e-3
        What is added to the diagonal of the matrix, above 0. A large one makes steps like those of gradient descent
        with a step size of ``lr / damp``; a small one needs many gradients: 1e-5 is usual with a thousand of them.
    update : {"window", "available"}, default="window"
        By which number the sum over gradients is divided: `n_grads` also while fewer are there, or the number of those.
        With "window" the first steps are longer; warm up the step size, or use "available".
    mask_zeros : bool, default=False
        Whether weights that are exactly 0 at their first step stay 0: for the training of pruned networks.

    See Also
    --------
    InverseFisher : The matrix alone.
    sklowrank.compress.SecondOrderPruner : Networks that are pruned by this matrix.

    Notes
    -----
    With the last m gradients as rows of G, the newest among them, and ``F = damp I + G'G / m``, the step is
    ``u = F^-1 g``. As g is the row k of G, this is::

        u = m G' (m damp I + G G')^-1 e_k

    which needs no difference of large numbers, unlike ``(g - G' (m damp I + G G')^-1 G g) / damp``. G G' is updated by
    one product G g and solved by a Cholesky factorisation in float64. Then ``v = momentum v + (1 - momentum) u`` and
    ``w = w - lr v``. A step takes O(d m + m^3) time and the optimizer m d numbers of memory for d parameters; so does
    its `state_dict`, from which it continues as if it had not stopped. All parameters share one matrix.

    References
    ----------
    E. Frantar, E. Kurtic, D. Alistarh. M-FAC: Efficient Matrix-Free Approximations of Second-Order Information.
    NeurIPS 2021.

    Examples
    --------
    >>> import torch
    >>> from sklowrank.optim import MFAC
    >>> rng = torch.Generator().manual_seed(0)
    >>> X = torch.randn(512, 2, generator=rng) * torch.tensor([10.0, 0.1])
    >>> y = X @ torch.tensor([0.3, 5.0]) + 0.1 * torch.randn(512, generator=rng)
    >>> w = torch.zeros(2, requires_grad=True)
    >>> optimizer = MFAC([w], lr=0.1, n_grads=32, update="available")
    >>> for step in range(200):
    ...     rows = torch.randint(512, (16,), generator=rng)
    ...     optimizer.zero_grad()
    ...     (X[rows] @ w - y[rows]).square().mean().backward()
    ...     _ = optimizer.step()
    >>> bool((w - torch.tensor([0.3, 5.0])).abs().max() < 0.5)
    True
    """

    def __init__(
        self,
        params: Any,
        lr: float = 1e-2,
        momentum: float = 0.0,
        weight_decay: float = 0.0,
        n_grads: int = 64,
        damp: float = 1e-3,
        update: Literal["window", "available"] = "window",
        mask_zeros: bool = False,
    ):
        shared = {"n_grads": n_grads, "damp": damp, "update": update, "mask_zeros": mask_zeros}
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, **shared})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters to those that are optimized.

        Parameters
        ----------
        param_group : dict
            The parameters as "params", and an `lr`, a `momentum` and a `weight_decay` of their own.
        """
        _check({**self.defaults, **param_group}, self.defaults)
        super().add_param_group(param_group)

    def __setstate__(self, state):
        super().__setstate__(state)
        self._members = None

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step.

        Parameters
        ----------
        closure : callable or None, default=None
            Computes the loss and its gradients anew.

        Returns
        -------
        loss : object
            What the closure returns, or None.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        settings = self.param_groups[0]
        n_grads, damp = settings["n_grads"], checked_damp(settings["damp"])
        members = [(group, parameter) for group in self.param_groups for parameter in group["params"]]
        if not any(parameter.grad is not None for _, parameter in members):
            return loss
        window = self._window([parameter for _, parameter in members], n_grads)
        now = window["steps"] % n_grads
        row = torch.zeros_like(window["gram"][0])
        for group, parameter in members:
            row += self._insert(parameter, now, group["weight_decay"]).to(row.device)
        if not bool(row.isfinite().all()):
            for _, parameter in members:
                self.state[parameter]["grads"][now] = 0
            window["gram"][now], window["gram"][:, now] = 0.0, 0.0
            raise ValueError(
                "MFAC got gradients with NaN or infinite entries. Lower lr, raise damp, or scale the inputs."
            )
        window["gram"][now], window["gram"][:, now] = row, row
        window["steps"] += 1
        count = n_grads if settings["update"] == "window" else min(window["steps"], n_grads)
        factor, _ = damped_cholesky(window["gram"], count, damp)
        one = torch.zeros_like(row).index_fill_(0, torch.tensor([now], device=row.device), float(count))
        weights = torch.cholesky_solve(one[:, None], factor)[:, 0]
        for group, parameter in members:
            self.state[parameter]["step"] = window["steps"]
            if parameter.grad is not None:
                self._move(parameter, weights, group["lr"], group["momentum"])
        return loss

    def _window(self, parameters, n_grads):
        """Return the state that parameters share; their products anew where parameters have come or gone."""
        window = self.state.setdefault(_WINDOW, {"steps": 0, "gram": None})
        known = getattr(self, "_members", None)
        changed = known is not None and not (len(known) == len(parameters) and all(map(_is, known, parameters)))
        mask = self.param_groups[0]["mask_zeros"]
        for parameter in parameters:
            grads = self.state[parameter].get("grads")
            if grads is None or grads.shape != (n_grads, *parameter.shape):
                self.state[parameter] = _empty_state(parameter, n_grads, mask)
                changed = True
        device = parameters[0].device
        if window["gram"] is None or changed or len(window["gram"]) != n_grads:
            total = torch.zeros(n_grads, n_grads, dtype=torch.float64, device=device)
            for parameter in parameters:
                flat = self.state[parameter]["grads"].reshape(n_grads, -1)
                total += gram(flat).to(device)
            window["gram"] = total
            stored = int((total.diagonal() > 0).sum())
            if not window["steps"] and stored:  # a state of the parameters alone was loaded
                window["steps"] = max(int(self.state[parameter]["step"]) for parameter in parameters)
        window["gram"] = window["gram"].to(device)
        self._members = list(parameters)
        return window

    def _insert(self, parameter, now, weight_decay):
        """Store a gradient in the window; return its products with all that are there."""
        state = self.state[parameter]
        grads = state["grads"]
        if parameter.grad is None:
            grads[now] = 0
        else:
            if parameter.grad.is_sparse:
                raise ValueError("MFAC does not take sparse gradients. Use an Embedding with sparse=False.")
            grads[now] = parameter.grad if not weight_decay else parameter.grad.add(parameter, alpha=weight_decay)
            if "mask" in state:
                grads[now] *= state["mask"]
        flat = grads.reshape(len(grads), -1)
        return quick_products(flat, flat[now])

    def _move(self, parameter, weights, lr, momentum):
        """Change a parameter by its part of the step."""
        state = self.state[parameter]
        grads = state["grads"].reshape(len(state["grads"]), -1)
        move = (grads.T @ weights.to(grads)).reshape(parameter.shape)
        if momentum:
            if "velocity" not in state:
                state["velocity"] = torch.zeros_like(parameter)
            move = state["velocity"].mul_(momentum).add_(move, alpha=1 - momentum)
        parameter.sub_(move, alpha=lr)


def _is(a, b):
    return a is b


def _empty_state(parameter, n_grads, mask_zeros):
    """Return the state of a parameter that has made no step: empty places of the window are zero."""
    if parameter.is_complex():
        raise ValueError("MFAC does not take complex parameters. Pass real and imaginary parts.")
    state = {"step": 0, "grads": parameter.new_zeros(n_grads, *parameter.shape)}
    return state | ({"mask": (parameter != 0).to(parameter)} if mask_zeros else {})


def _check(group, defaults):
    """Raise a ValueError where a group has values that are not legal, or other ones where all share one."""
    for name in ("lr", "weight_decay"):
        if not group[name] >= 0:
            raise ValueError(f"{name}={group[name]!r} has to be at least 0.")
    if not 0 <= group["momentum"] < 1:
        raise ValueError(f"momentum={group['momentum']!r} has to be in [0, 1).")
    if int(group["n_grads"]) != group["n_grads"] or group["n_grads"] < 1:
        raise ValueError(f"n_grads={group['n_grads']!r} has to be an int of at least 1.")
    checked_damp(group["damp"])
    if group["update"] not in ("window", "available"):
        raise ValueError(f"update={group['update']!r} has to be 'window' or 'available'.")
    for name in ("n_grads", "damp", "update", "mask_zeros"):
        if group[name] != defaults[name]:
            raise ValueError(f"{name} is shared by all parameters: set it for the optimizer, not for a group.")
