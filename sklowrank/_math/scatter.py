"""Weighted scatter matrices of the components of a mixture, as sums over blocks of rows.

``assign(Z, w, *aligned)`` returns the responsibilities of a block of rows (b, K), times their weights, and its
log-likelihood. Sums are taken about one point `about` (D,) for each component.
"""

import torch

NEGLIGIBLE = 1e-12  # responsibilities below it are left out of a component's sums


def scatter_sums(assign, about, Z, w, *aligned):
    """Sums of a block: of responsibilities, and of rows and their outer products about one point for each component."""
    R, bound = assign(Z, w, *aligned)
    first, second = torch.zeros_like(about), Z.new_zeros(*about.shape, about.shape[1])
    for k in range(len(about)):
        Y, r = members_of(Z, R, k)
        Y = Y - about[k]
        first[k] = r @ Y
        second[k] = Y.T @ (r[:, None] * Y)
    return R.sum(0), first, second, bound


def members_of(Z, R, k):
    """Return the rows of component k that count, and their responsibilities."""
    members = (R[:, k] > NEGLIGIBLE).nonzero()[:, 0]
    return (Z, R[:, k]) if len(members) == len(Z) else (Z[members], R[members, k])


def image_sums(assign, about, Q, Z, w, *aligned):
    """Sums of a block: of responsibilities and rows, of scatter matrices times frames Q (K, D, q), of squares."""
    R, bound = assign(Z, w, *aligned)
    first, images, traces = torch.zeros_like(about), torch.zeros_like(Q), about.new_zeros(len(Q))
    for k in range(len(about)):
        Y, r = members_of(Z, R, k)
        Y = Y - about[k]
        first[k], images[k] = r @ Y, Y.T @ (r[:, None] * (Y @ Q[k]))
        traces[k] = r @ Y.square().sum(1)
    return R.sum(0), first, images, traces, bound


def sums_within(assign, about, Q, Z, w, *aligned):
    """Sums of a block: the scatter matrices within the frames Q."""
    R, _ = assign(Z, w, *aligned)
    inner = about.new_zeros(len(Q), Q.shape[2], Q.shape[2])
    for k in range(len(Q)):
        Y, r = members_of(Z, R, k)
        C = (Y - about[k]) @ Q[k]
        inner[k] = C.T @ (r[:, None] * C)
    return (inner,)


def about_means(mass, first, second, about, *, affine: bool):
    """Return means and scatter matrices about them from sums about other points; about the origin without means."""
    inverse = 1 / positive(mass)
    second = second * inverse[:, None, None]
    if not affine:
        return about, second
    m = first * inverse[:, None]
    return about + m, second - m[:, :, None] * m[:, None]


def positive(mass: torch.Tensor) -> torch.Tensor:
    """Return values that can be divided by."""
    return mass.clamp(min=torch.finfo(mass.dtype).tiny)
