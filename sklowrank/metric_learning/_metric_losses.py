"""Losses of metric learning on the unit rows of a batch, as functions of tensors."""

import torch
from torch.nn import functional

_NEAREST = 0.5  # a negative that is nearer is drawn as often as one at this distance
_FARTHEST = 1.4  # negatives beyond are not drawn: they teach nothing
_SHARPNESS = 32.0  # of proxy anchors


def distances(Z: torch.Tensor) -> torch.Tensor:
    """Return the distances (b, b) between unit rows; the gradient is finite where two are equal."""
    tiny = torch.finfo(Z.dtype).eps
    return (2 - 2 * Z @ Z.T).clamp(min=tiny).sqrt()


def negative_shares(D: torch.Tensor, others: torch.Tensor, n_dims: int) -> torch.Tensor:
    """Return with which probability each row is the negative of each anchor, (b, b); a row of zeros has none.

    It is inverse to the density of the distances of random points on the sphere in `n_dims` dimensions, so that all
    distances come equally often. `others` says which pairs are of two classes.
    """
    d = D.detach().clamp(min=_NEAREST)
    allowed = others & (d < _FARTHEST)
    logs = (2 - n_dims) * d.log() + (3 - n_dims) / 2 * (1 - d.square() / 4).clamp(min=0.01).log()
    logs = logs.where(allowed, -torch.inf)
    shares = (logs - logs.amax(1, keepdim=True).nan_to_num(neginf=0.0)).exp()
    return shares / shares.sum(1, keepdim=True).clamp(min=torch.finfo(D.dtype).tiny)


def drawn_negatives(shares: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Return the positions (b, m) that uniform numbers (b, m) draw from the shares of each row."""
    sums = shares.cumsum(1)
    found = torch.searchsorted(sums, draws.to(sums) * sums[:, -1:], right=True)
    return found.clamp(max=shares.shape[1] - 1)


def margin_loss(
    Z: torch.Tensor, codes: torch.Tensor, beta: torch.Tensor, margin: float, draws: torch.Tensor | None = None
) -> torch.Tensor:
    """Return the margin loss of unit rows Z (b, d) of the classes `codes` (b,), averaged over its active terms.

    Each pair of one class is to be nearer than ``beta - margin``, each pair of an anchor and a negative farther than
    ``beta + margin``, with `beta` (n_classes,) of the class of the anchor.
    """
    D, bound = distances(Z), beta[codes][:, None]
    same = codes[:, None] == codes
    shares = negative_shares(D, ~same, Z.shape[1])
    pairs = same.fill_diagonal_(False).to(D)
    near = (D - bound + margin).relu() * pairs
    far = (bound - D + margin).relu()
    if draws is None:
        weight = shares * pairs.sum(1, keepdim=True)
        far, active = far * weight, ((near > 0).sum() + (weight * (far > 0)).sum()).detach()
        return (near.sum() + far.sum()) / active.clamp(min=1)
    at = drawn_negatives(shares, draws)
    far = far.gather(1, at) * (shares.sum(1, keepdim=True) > 0)
    active = ((near > 0).sum() + (far > 0).sum()).clamp(min=1)
    return (near.sum() + far.sum()) / active


def proxy_anchor_loss(Z: torch.Tensor, codes: torch.Tensor, proxies: torch.Tensor, margin: float) -> torch.Tensor:
    """Return the proxy anchor loss of unit rows Z (b, d) for unit proxies (n_classes, d).

    Cosines to the proxy of the own class are to be above `margin`, others below ``-margin``.
    """
    S = Z @ proxies.T
    own = functional.one_hot(codes, len(proxies)).bool()
    # log(1 + sum exp) of the rows of each class, and of all others
    zero = S.new_zeros(1, len(proxies))
    near = torch.cat([zero, (_SHARPNESS * (margin - S)).where(own, -torch.inf)]).logsumexp(0)
    far = torch.cat([zero, (_SHARPNESS * (margin + S)).where(~own, -torch.inf)]).logsumexp(0)
    return near.sum() / own.any(0).sum() + far.mean()
