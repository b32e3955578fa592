"""A linear layer held as its singular value decomposition, of which some vectors are trained at a time."""

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from .._math.linalg import stable_svd
from .._nets.layers import dense_weight, linear, replaces_linear

_EXACT = 512  # singular values up to which a decomposition in float64 is cheap


@replaces_linear
class SpectralLinear(nn.Module):
    """A linear layer ``U diag(s) V'``: all singular values are trained, and `n_active` pairs of vectors.

    With m = min(n_in, n_out), `order` lists all indices, those of the active pairs first. Rows of `left` and `right`
    are the active vectors, parameters; those of `frozen_left` and `frozen_right` are the others, buffers. `s` has the
    singular values by index. The weight itself is stored nowhere.
    """

    kind = "spectral"

    def __init__(self, n_in: int, n_out: int, n_active: int, enhanced: bool | int = True, bias: bool | int = True):
        super().__init__()
        m = min(n_in, n_out)
        n_active = min(n_active, m)

        def zeros(*shape):
            return torch.zeros(*shape, device="cpu", dtype=torch.float32)

        self.enhanced = bool(enhanced)
        self.s = nn.Parameter(zeros(m))
        self.left, self.right = nn.Parameter(zeros(n_active, n_out)), nn.Parameter(zeros(n_active, n_in))
        self.bias = nn.Parameter(zeros(n_out)) if bias else None
        self.register_buffer("frozen_left", zeros(m - n_active, n_out))
        self.register_buffer("frozen_right", zeros(m - n_active, n_in))
        self.register_buffer("order", torch.arange(m, device="cpu", dtype=torch.int64))

    @property
    def shape(self) -> tuple[int, ...]:
        """The arguments of the constructor, as integers."""
        n_active, n_out = self.left.shape
        return self.right.shape[1], n_out, n_active, int(self.enhanced), int(self.bias is not None)

    @property
    def rank(self) -> int:
        """The number of singular values."""
        return len(self.s)

    @property
    def weight(self) -> torch.Tensor:
        """The weight (n_out, n_in), multiplied out."""
        U, s, V = self.decomposition()
        return (U.T * s) @ V

    @classmethod
    def decomposing(cls, layer: nn.Module, n_active: int, *, enhanced: bool = True) -> "SpectralLinear":
        """Return the same map as a linear layer, or as what has taken the place of one."""
        W = dense_weight(layer)
        new = cls(W.shape[1], W.shape[0], n_active, enhanced, layer.bias is not None).to(W)
        new.decompose(W)
        if new.bias is not None:
            with torch.no_grad():
                new.bias.copy_(layer.bias)  # type: ignore[arg-type]
        return new

    @torch.no_grad()
    def decompose(self, W: torch.Tensor) -> None:
        """Take the singular value decomposition of a weight; the active pairs are then those of the largest values."""
        U, s, Vh = singular_vectors(W)
        n_active = len(self.left)
        self.s.copy_(s)
        self.order.copy_(torch.arange(len(s), device=s.device, dtype=torch.int64))
        for rows, active, frozen in ((U.T, self.left, self.frozen_left), (Vh, self.right, self.frozen_right)):
            active.copy_(rows[:n_active])
            frozen.copy_(rows[n_active:])

    @torch.no_grad()
    def decomposition(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Return U' (m, n_out), s (m,) and V' (m, n_in), their rows by index."""
        parts = (torch.cat([self.left, self.frozen_left]), torch.cat([self.right, self.frozen_right]))
        U, V = (torch.empty_like(rows).index_copy_(0, self.order, rows) for rows in parts)
        return U, self.s.detach(), V

    @torch.no_grad()
    def activate(self, indices: torch.Tensor) -> None:
        """Train the pairs of these `n_active` indices from now on; the product does not change."""
        n_active = len(self.left)
        at = torch.argsort(self.order)[indices.to(self.order.device)]
        entering = at[at >= n_active]
        stays = torch.zeros(n_active, dtype=torch.bool, device=at.device)
        stays[at[at < n_active]] = True
        vacant = (~stays).nonzero()[:, 0]
        for active, frozen in ((self.left, self.frozen_left), (self.right, self.frozen_right)):
            leaving = active[vacant]
            active.index_copy_(0, vacant, frozen[entering - n_active])
            frozen.index_copy_(0, entering - n_active, leaving)
        both = torch.cat([vacant, entering])
        self.order.index_copy_(0, both, self.order[torch.cat([entering, vacant])])

    @torch.no_grad()
    def constrain(self) -> None:
        """Make singular values non-negative and the active vectors unit vectors."""
        self.s.clamp_(min=0)
        for rows in (self.left, self.right):
            rows.div_(rows.norm(dim=1, keepdim=True).clamp_(min=torch.finfo(rows.dtype).tiny))

    def multiplied_out(self) -> nn.Linear:
        """Return the same map as one linear layer."""
        W = self.weight
        layer = linear(W.shape[1], W.shape[0], None, bias=self.bias is not None).to(W)
        with torch.no_grad():
            layer.weight.copy_(W)
            if self.bias is not None:
                layer.bias.copy_(self.bias)
        return layer

    def forward(self, x):
        rows = x.reshape(-1, x.shape[-1])
        factors = self.left, self.right, self.frozen_left, self.frozen_right, self.order
        out = _SpectralProduct.apply(rows, self.s, *factors, self.enhanced)
        out = out if self.bias is None else out + self.bias
        return out.reshape(*x.shape[:-1], out.shape[-1])


class _SpectralProduct(torch.autograd.Function):
    """X V diag(s) U', with gradients by thin products: no matrix of the weight's shape is formed."""

    @staticmethod
    def forward(ctx, X, s, left, right, frozen_left, frozen_right, order, enhanced):
        s = s[order]
        Z, Z_frozen = X @ right.T, X @ frozen_right.T
        ctx.save_for_backward(X, Z, Z_frozen, s, left, right, frozen_left, frozen_right, order)
        ctx.enhanced = enhanced
        n = len(left)
        return torch.addmm((Z * s[:n]) @ left, Z_frozen * s[n:], frozen_left)

    @staticmethod
    @once_differentiable
    def backward(ctx, D):
        X, Z, Z_frozen, s, left, right, frozen_left, frozen_right, order = ctx.saved_tensors
        n = len(left)
        T, T_frozen = D @ left.T, D @ frozen_left.T
        by_place = torch.cat([(T * Z).sum(0), (T_frozen * Z_frozen).sum(0)])
        of_s = torch.empty_like(s).index_copy_(0, order, by_place)
        of_left, of_right = Z.T @ D, T.T @ X
        if not ctx.enhanced:
            of_left, of_right = s[:n, None] * of_left, s[:n, None] * of_right
        of_X = None
        if ctx.needs_input_grad[0]:
            of_X = torch.addmm((T * s[:n]) @ right, T_frozen * s[n:], frozen_right)
        return of_X, of_s, of_left, of_right, None, None, None, None


def singular_vectors(W: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return U, s and V' of a weight."""
    U, s, Vh = stable_svd(precise(W))
    return U.to(W), s.to(W), Vh.to(W)


def precise(W: torch.Tensor) -> torch.Tensor:
    """Return a weight that is to be decomposed: in float64 up to 512 singular values, else in float32 or as it is."""
    return W.double() if min(W.shape) <= _EXACT else W.to(torch.promote_types(W.dtype, torch.float32))
