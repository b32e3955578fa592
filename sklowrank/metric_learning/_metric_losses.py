"""Losses of metric learning on the unit rows of a batch, as functions of tensors."""

import torch
from torch.nn import functional

_NEAREST = 0.5  # a negative that is nearer is drawn as often as one at this distance
_FARTHEST = 1.4  # negatives beyond are not drawn: their loss is mostly zero
_SHARPNESS = 32.0  # of proxy anchors
_TINY = 1e-6


def margin_loss(
    Z: torch.Tensor, codes: torch.Tensor, beta: torch.Tensor, margin: float, draws: torch.Tensor
) -> torch.Tensor:
    """Return the margin loss of unit rows Z (b, d) of the classes `codes` (b,), averaged over its active terms.

    Each row is the anchor of one pair of its class, which is to be nearer than ``beta - margin``, and of one pair of
    two classes, which is to be farther than ``beta + margin``; `beta` (n_classes,) is that of the anchor's class. The
    uniform numbers `draws` (b, 2) say which pairs.
    """
    same = codes[:, None] == codes
    others = negative_shares(Z.detach(), ~same)
    bound = beta[codes]
    near = (_distances(Z, drawn(same.fill_diagonal_(False).to(Z), draws[:, 0])) - bound + margin).relu()
    far = (bound - _distances(Z, drawn(others, draws[:, 1])) + margin).relu()
    terms = torch.stack([near * same.any(1), far * (others.sum(1) > 0)])
    return terms.sum() / (terms > 0).sum().clamp(min=1)


def negative_shares(Z: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return in which proportion each row is drawn as the negative of each anchor, (b, b), where `others` allows it.

    It is inverse to the density of the distances between random points of the sphere, so that near and far negatives
    are drawn alike. A row without any is one of zeros.
    """
    d = (2 - 2 * Z @ Z.T).clamp(min=_NEAREST**2).sqrt()
    logs = (2 - Z.shape[1]) * d.log() + (3 - Z.shape[1]) / 2 * (1 - d.square() / 4).clamp(min=_TINY).log()
    logs = logs.where(others & (d < _FARTHEST), -torch.inf)
    return (logs - logs.amax(1, keepdim=True).nan_to_num(neginf=0.0)).exp()


def drawn(shares: torch.Tensor, draws: torch.Tensor) -> torch.Tensor:
    """Return the column (b,) that uniform numbers (b,) draw from the shares of each row; of a row of zeros any."""
    sums = shares.cumsum(1)
    found = torch.searchsorted(sums, sums[:, -1:] * draws[:, None].clamp(max=1 - _TINY), right=True)
    return found[:, 0].clamp(max=shares.shape[1] - 1)


def _distances(Z, others):
    """Return the distance of each row to another one; its gradient is finite where they are equal."""
    return (Z - Z[others]).square().sum(1).clamp(min=_TINY).sqrt()


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
