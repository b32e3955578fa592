"""Steps on a Grassmannian, the set of all subspaces of some dimension, of many subspaces at once; their optimizer.

Subspaces are bases (C, d, k) with orthonormal columns; columns of zeros, behind the others, belong to no subspace.
"""

import torch

from .._math.linalg import stable_svd

_STEPS_BETWEEN = 5  # after which rounding is removed from the bases


def project_out(S: torch.Tensor, A: torch.Tensor) -> torch.Tensor:
    """Return the part of A (C, d, k) that is orthogonal to the subspaces: the tangent vectors nearest to A."""
    return A - S @ (S.mT @ A)


def geodesic_step(S: torch.Tensor, B: torch.Tensor, length: float) -> torch.Tensor:
    r"""Return bases of the subspaces after a step of some length along the geodesics with velocities -B.

    With the thin decomposition B = U s V' it is S V cos(length s) V' - U sin(length s) V'. As U = B V / s, only V and s
    are needed, which are those of the k x k matrices B'B.
    """
    squares, V = torch.linalg.eigh(B.mT @ B)
    angles = length * squares.clamp(min=0).sqrt()
    turned = torch.sinc(angles / torch.pi) * length  # sin(angles) / s
    return S @ ((V * angles.cos()[:, None]) @ V.mT) - B @ ((V * turned[:, None]) @ V.mT)


def orthonormal(A: torch.Tensor) -> torch.Tensor:
    """Return orthonormal bases of the columns of A (C, d, k), near to A where A is near to such bases.

    Columns of zeros, behind the others, stay.
    """
    Q, R = torch.linalg.qr(A)
    signs = torch.where(R.diagonal(dim1=1, dim2=2) < 0, -1.0, 1.0).to(A)
    return Q * (signs * A.any(1))[:, None]


def leading_directions(U: torch.Tensor, count: int) -> torch.Tensor:
    """Return the leading right singular vectors of rows U (n, d), as columns: at most as many as there are."""
    n, d = U.shape
    if not n:
        return U.new_zeros(d, 0)
    if n <= d:
        _, s, Vh = stable_svd(U)
        squares, V = s.square(), Vh.mT
    else:
        squares, V = (part.flip(-1) for part in torch.linalg.eigh(U.mT @ U))
    rank = int((squares > 1e-12 * n).sum())
    return V[:, : min(count, rank)]


class GrassmannSGD(torch.optim.Optimizer):
    """Gradient descent with momentum; parameters of groups with `subspaces` move along geodesics of a Grassmannian.

    Momentum is projected to the tangent space at each step, which stands in for parallel transport.
    """

    def __init__(self, params, lr: float, *, momentum: float, weight_decay: float = 0.0, retraction: str = "geodesic"):
        defaults = {"lr": lr, "momentum": momentum, "weight_decay": weight_decay, "subspaces": False}
        super().__init__(params, defaults | {"retraction": retraction})

    @torch.no_grad()
    def step(self, closure=None):
        """Take a step; `closure` computes the loss and the gradients."""
        with torch.enable_grad():
            loss = None if closure is None else closure()
        for group in self.param_groups:
            move = _move_subspaces if group["subspaces"] else _move
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, self.state[parameter], group)
        return loss


def _move(parameter, state, group):
    gradient = parameter.grad.add(parameter, alpha=group["weight_decay"])
    state["momentum"] = gradient.add_(state["momentum"], alpha=group["momentum"]) if state else gradient
    parameter.sub_(state["momentum"], alpha=group["lr"])


def _move_subspaces(S, state, group):
    A = S.grad.add(state["momentum"], alpha=group["momentum"]) if state else S.grad
    B, n_steps = project_out(S, A), state.get("n_steps", 0) + 1
    if group["retraction"] == "qr":
        moved = orthonormal(S - group["lr"] * B)
    else:
        moved = geodesic_step(S, B, group["lr"])
        moved = moved if n_steps % _STEPS_BETWEEN else orthonormal(moved)
    S.copy_(moved)
    state |= {"momentum": B, "n_steps": n_steps}
