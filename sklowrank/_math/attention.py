"""Softmax attention, exactly and by the series of the exponential, and how far the two can be apart.

Queries q and keys k are rows of tensors (n, h); the weight of a key is its mass times exp(q . k). The series up to an
even degree g is the inner product of features of q and of k, so that sums over all keys are made once: time is linear
in rows. It is positive everywhere, and so are the weights.
"""

from collections.abc import Callable
from functools import lru_cache
from math import comb, exp, inf, isfinite, lgamma, log, sqrt
from typing import NamedTuple

import torch
from scipy.special import gammainc, hyp1f1
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from .._core.blocks import in_blocks, join_blocks, rows_per_block

LARGEST_DEGREE = 40
_LARGEST_LOGIT = 500.0  # exp of more overflows, and no degree is of use


class Monomials(NamedTuple):
    """How the monomials of h numbers up to a degree are computed, each as a coordinate times one of a lower degree."""

    n: int
    products: tuple[tuple[int, slice, slice], ...]  # a coordinate, the monomials it multiplies, where the results are
    weights: tuple[float, ...]  # 1 / prod a_i! for exponents a_i


def count_monomials(width: int, degree: int) -> int:
    """Return the number of monomials of `width` numbers up to a degree."""
    return comb(width + degree, degree)


@lru_cache(maxsize=64)
def monomials(width: int, degree: int) -> Monomials:
    """Return how monomials up to a degree are computed; those of lower degrees come first."""
    exponents: list[tuple[int, ...]] = [(0,) * width]
    products, starts = [], [0] * width  # starts: of the former degree, where monomials without x_0 ... x_(a-1) begin
    for _ in range(degree):
        end, begins = len(exponents), []
        for a in range(width):
            begins.append(len(exponents))
            exponents += [(*e[:a], e[a] + 1, *e[a + 1 :]) for e in exponents[starts[a] : end]]
            products.append((a, slice(starts[a], end), slice(begins[a], len(exponents))))
        starts = begins
    weights = tuple(exp(-sum(lgamma(power + 1) for power in e)) for e in exponents)
    return Monomials(len(exponents), tuple(products), weights)


class _Powers(torch.autograd.Function):
    """Monomials (m, n) of points (n, h)."""

    @staticmethod
    def forward(ctx, X, degree):
        plan, X = monomials(X.shape[1], degree), X.T.contiguous()
        F = X.new_empty(plan.n, X.shape[1])
        F[0] = 1
        for a, parents, results in plan.products:
            torch.mul(F[parents], X[a], out=F[results])
        ctx.plan = plan
        ctx.save_for_backward(X, F)
        return F

    @staticmethod
    @once_differentiable
    def backward(ctx, G):
        X, F = ctx.saved_tensors
        G, found = G.clone(memory_format=torch.contiguous_format), torch.zeros_like(X)
        for a, parents, results in reversed(ctx.plan.products):
            found[a] += torch.linalg.vecdot(G[results], F[parents], dim=0)
            G[parents].addcmul_(G[results], X[a])
        return found.T, None


def feature_map(X: torch.Tensor, degree: int) -> torch.Tensor:
    """Return features (n, m) of points (n, h) of which the inner products are the series of exp."""
    return _Powers.apply(X, degree).T * _roots(X, degree)


def _roots(X, degree):
    """Return the factors (m,) that make features of monomials."""
    return X.new_tensor(monomials(X.shape[1], degree).weights).sqrt()


def key_sums(K: torch.Tensor, W: torch.Tensor, degree: int, batch_size: int | str = "auto") -> torch.Tensor:
    """Return sums over keys (n, h) of their features times the entries of W (n, c), as (m, c), in O(n m c)."""
    block, size = _features_block(K, degree, batch_size)

    def part(rows):
        return _recomputed(block < len(K), lambda k, w: _Powers.apply(k, degree) @ w, K[rows], W[rows])

    return sum(in_blocks(part, len(K), block, bytes_per_row=size)) * _roots(K, degree)[:, None]


def read_sums(Q: torch.Tensor, S: torch.Tensor, degree: int, batch_size: int | str = "auto") -> torch.Tensor:
    """Return the features of queries (n, h) times sums over keys (m, c), as (n, c), in O(n m c)."""
    S = S * _roots(Q, degree)[:, None]
    block, size = _features_block(Q, degree, batch_size)

    def part(rows):
        return _recomputed(block < len(Q), lambda q, s: _Powers.apply(q, degree).T @ s, Q[rows], S)

    return join_blocks(part, len(Q), block, bytes_per_row=size)


def _features_block(X, degree, batch_size):
    """Return how many rows a block has, and the bytes of a row's monomials and their gradient."""
    size = 16 * count_monomials(X.shape[1], degree)
    return rows_per_block(batch_size, len(X), size), size


def _recomputed(forget: bool, compute: Callable[..., torch.Tensor], *tensors: torch.Tensor | None) -> torch.Tensor:
    """Return ``compute(*tensors)``; where `forget`, gradients compute it again, and nothing of it is kept for them."""
    if not (forget and torch.is_grad_enabled()):
        return compute(*tensors)
    return checkpoint(compute, *tensors, use_reentrant=False, preserve_rng_state=False)


def with_ones(V: torch.Tensor, mass: torch.Tensor | None = None) -> torch.Tensor:
    """Return values (n, c) behind a column of ones, of which the sums are denominators, times the masses of keys."""
    W = torch.cat([torch.ones_like(V[:, :1]), V], 1)
    return W if mass is None else mass[:, None] * W


def series(t: torch.Tensor, degree: int) -> torch.Tensor:
    """Return the series of exp up to a degree."""
    total = torch.ones_like(t)
    for j in range(degree, 0, -1):
        total = 1 + total * t / j
    return total


class Keys(NamedTuple):
    """What is attended to."""

    points: torch.Tensor  # (n, h), of mean zero
    log_mass: torch.Tensor  # (n,), the largest is zero
    values: torch.Tensor  # (n, c)


def polynomial_attention(
    Q: torch.Tensor, keys: Keys, degree: int, own: torch.Tensor | None = None, batch_size: int | str = "auto"
) -> torch.Tensor:
    """Return the means of values (n_queries, c), weighted by the series; `own` are keys that a query leaves out."""
    W = with_ones(keys.values, keys.log_mass.exp())
    sums = read_sums(Q, key_sums(keys.points, W, degree, batch_size), degree, batch_size)
    if own is not None:
        sums = sums - series((Q * keys.points[own]).sum(1), degree)[:, None] * W[own]
    return sums[:, 1:] / sums[:, :1]


def exact_attention(
    Q: torch.Tensor, keys: Keys, own: torch.Tensor | None = None, batch_size: int | str = "auto"
) -> torch.Tensor:
    """Return the means of values (n_queries, c), weighted by exp; `own` are keys that a query leaves out."""
    size = 24 * len(keys.points)
    block = rows_per_block(batch_size, len(Q), size)

    def attend(q, points, log_mass, values, left_out):
        logits = q @ points.T + log_mass
        if left_out is not None:
            logits = logits.scatter(1, left_out[:, None], -inf)
        return logits.softmax(1) @ values

    def part(rows):
        return _recomputed(block < len(Q), attend, Q[rows], *keys, None if own is None else own[rows])

    return join_blocks(part, len(Q), block, bytes_per_row=size)


def series_errors(largest: float, degree: int) -> tuple[float, float]:
    """Return how far the series over exp is at most above and below 1 for logits in [-largest, largest].

    The quotient falls, as its derivative is -t^g exp(-t) / g!, so that it is farthest from 1 at the ends. Both errors
    are integrals of t^g exp(+-t) / g! from 0 to `largest`.
    """
    below = float(gammainc(degree + 1, largest))
    if largest > _LARGEST_LOGIT:
        return inf, below
    if largest == 0:
        return 0.0, 0.0
    scale = exp((degree + 1) * log(largest) - lgamma(degree + 2))
    return scale * float(hyp1f1(degree + 1, degree + 2, largest)), below


def largest_shift(largest: float, degree: int) -> float:
    """Return the largest error of an output by the series, as a share of the range of the values.

    Weights that are multiplied by factors between a and b move a share of (sqrt(b) - sqrt(a)) / (sqrt(b) + sqrt(a)) of
    their sum at most, and there are weights for which they do.
    """
    above, below = series_errors(largest, degree)
    return (above + below) / (sqrt(1 + above) + sqrt(1 - below)) ** 2 if isfinite(above) else 1.0


def smallest_degree(largest: float, tol: float) -> int | None:
    """Return the smallest even degree with :func:`largest_shift` of at most `tol`; None where it is above 40."""
    degrees = range(2, LARGEST_DEGREE + 1, 2)
    return next((degree for degree in degrees if largest_shift(largest, degree) <= tol), None)


def longest(X: torch.Tensor) -> float:
    """Return the largest norm of a row."""
    return float(torch.linalg.vector_norm(X, dim=1).amax())
