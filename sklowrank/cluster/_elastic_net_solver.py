"""Elastic-net codes of many rows at once: growing supports outside, projected Newton steps inside.

For each row y the problem is ``min |y - c X|² / 2 + lam |c|_1 + ridge |c|² / 2`` with c zero at the row's own place.
A round computes the inner products with all rows of X, adds those that violate the optimality conditions most to the
support, and solves the problem on the support; a row has converged when no condition is violated.
"""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import torch

from .._core.iterate import Step
from .._math.graphs import csr_from
from ._row_products import magnitude_blocks, products, residuals, row_blocks, small_grams, take, whole_gram

_NEWTON_STEPS = 30  # of one round; the next round goes on from there
_STEP_LENGTHS = tuple(4.0**-k for k in range(7))  # step lengths tried, beside those at which coefficients become zero
_ZEROS = (0, 1, 3, 7, 15)
_DAMPING = 1e-9, 1.0  # least and most, as shares of the mean diagonal: dependent atoms make the equations singular


class ElasticNetOptions(NamedTuple):
    """The parameters of the codes; the defaults are those of the lasso."""

    gamma: float
    l1_ratio: float = 1.0
    positive: bool = False
    affine: bool = False  # the coefficients of a row sum to one
    support_size: int = 100  # atoms of a row beyond which they are added one at a time
    tol: float = 1e-4
    max_iter: int = 100
    batch_size: int | str = "auto"


class ElasticNetProblem(NamedTuple):
    """The rows to code, the rows to code them with, and their penalties."""

    X: torch.Tensor  # (n, D) atoms, or CSR; with `affine` the last column is 1
    Y: torch.Tensor  # (m, D) rows to code, or CSR
    own: bool  # Y is X: no row codes itself
    lam: torch.Tensor  # (m,)
    ridge: torch.Tensor  # (m,)
    options: ElasticNetOptions


class SupportCodes(NamedTuple):
    """Atoms (m, s) of rows and their coefficients; a place whose coefficient is 0 is free."""

    atoms: torch.Tensor
    values: torch.Tensor

    def matrix(self, n_atoms: int, n_nonzero_coefs: int | None = None):
        """Return the codes as CSR, with the `n_nonzero_coefs` largest magnitudes of each row."""
        atoms, values = self
        if n_nonzero_coefs is not None and n_nonzero_coefs < values.shape[1]:
            largest = values.abs().topk(n_nonzero_coefs, dim=1).indices
            atoms, values = atoms.gather(1, largest), values.gather(1, largest)
        return csr_from(atoms, values, n_atoms)


def elastic_net_problem(X, options: ElasticNetOptions, *, targets=None, lam: float | None = None) -> ElasticNetProblem:
    """Return the problem whose penalties are a share of those at which a row's code vanishes.

    ``lam = max_j |<y, x_j>| / gamma`` over the other rows, so that gamma <= 1 leaves no code, or `lam` for all rows;
    ``ridge = lam (1 - l1_ratio) / l1_ratio``. The rows to code are those of X, or `targets`.
    """
    Y, own = X if targets is None else targets, targets is None
    if lam is None:
        largest = magnitude_blocks(lambda _, magnitudes: magnitudes.amax(1), Y, X, options.batch_size, own=own)
        penalties = (torch.cat(largest) / options.gamma).clamp(min=torch.finfo(torch.float64).tiny)
    else:
        penalties = X.new_full((Y.shape[0],), lam)
    if options.affine:
        X, Y = (torch.cat([rows, rows.new_ones(len(rows), 1)], 1) for rows in (X, Y))
    return ElasticNetProblem(X, Y, own, penalties, penalties * ((1 - options.l1_ratio) / options.l1_ratio), options)


def elastic_net_codes(problem: ElasticNetProblem) -> SupportCodes:
    """Return the codes after `max_iter` rounds, or fewer where all rows satisfy their optimality conditions."""
    for codes, gap, _ in islice(rounds(problem), problem.options.max_iter):
        if gap <= problem.options.tol:
            break
    return codes


def rounds(problem: ElasticNetProblem) -> Iterator[Step]:
    """Yield the codes after each round, with the largest relative violation that the round found.

    The violation of a row is how far the inner product of its residual with an atom exceeds `lam`, or differs from it
    where the atom is in use, in units of `lam`; with `affine` also how far its coefficients are from summing to one.
    Rows orthogonal to all others have no code. A sixth of `support_size` atoms is added to a support in a round while
    the row has fewer than `support_size`, then one.
    """
    lam, n_atoms, (tol, batch_size) = problem.lam, problem.X.shape[0], (problem.options.tol, problem.options.batch_size)
    m, device, affine = len(lam), lam.device, problem.options.affine
    whole = whole_gram(problem.X)
    codes = SupportCodes(torch.zeros(m, 0, dtype=torch.int64, device=device), lam.new_zeros(m, 0))
    places = torch.arange(m, device=device)
    targets = lam.new_ones(m)  # of the sums of coefficients; they carry the multipliers
    codable = lam > torch.finfo(lam.dtype).tiny
    violation, active = torch.where(codable, torch.inf, 0.0).to(lam), places[codable]
    while True:
        if affine and codes.values.shape[1]:
            targets[active] += 1 - codes.values[active].sum(1)

        def advance(block, active=active, codes=codes):
            rows = active[block]
            Y = take(problem.Y, rows)
            if affine:
                Y[:, -1] = targets[rows]
            now = SupportCodes(codes.atoms[rows], codes.values[rows])
            return _advance(problem, Y, rows, now, whole)

        if len(active):  # none where all rows are zeros
            parts = row_blocks(advance, active, n_atoms, batch_size)
            violation[active] = torch.cat([found for found, _ in parts])
            codes = _put(codes, active, [part for _, part in parts])
            active = active[violation[active] > tol]
        yield Step(codes, float(violation.amax()) if m else 0.0)
        if not len(active):
            return


def _put(codes, active, parts):
    """Return the codes with the rows `active` replaced by what the blocks have found, as wide as the widest."""
    width = max([codes.values.shape[1], *(part.values.shape[1] for part in parts)])
    out = []
    for k, old in enumerate(codes):
        new = torch.nn.functional.pad(old, (0, width - old.shape[1]))
        filled = [torch.nn.functional.pad(part[k], (0, width - part[k].shape[1])) for part in parts]
        new[active] = torch.cat(filled)
        out.append(new)
    return SupportCodes(*out)


def _advance(problem, Y, rows, codes, whole):
    """Return the violations (b,) of a block of codes, and the codes after atoms were added where there are any."""
    (S, c), options = codes, problem.options
    corr = products(residuals(Y, problem.X, S, c), problem.X)
    if problem.own:
        corr[torch.arange(len(rows), device=rows.device), rows] = 0
    lam, ridge = problem.lam[rows], problem.ridge[rows, None]
    corr.scatter_add_(1, S, -ridge * c)  # now minus the gradient of all but the 1-norm
    excess = corr.clone() if options.positive else corr.abs()
    found = excess.amax(1) - lam
    if S.shape[1]:  # where a coefficient is not zero, the slope has to be lam and not only at most that
        slack = (corr.gather(1, S) - lam[:, None] * c.sign()).abs() * (c != 0)
        found = torch.maximum(found, slack.amax(1))
    found = found / lam
    if options.affine and S.shape[1]:
        found = torch.maximum(found, (1 - c.sum(1)).abs())
    far = (found > options.tol).nonzero()[:, 0]
    if not len(far):
        return found, codes

    s, x = _filled(S[far], c[far])
    n_new = max(1, min(options.support_size - s.shape[1], options.support_size // 6))
    n_new = min(n_new, corr.shape[1] - problem.own - s.shape[1])
    taken = x != 0
    excess = excess[far]
    row, place = taken.nonzero(as_tuple=True)
    excess[row, s[row, place]] = -torch.inf
    if problem.own:
        excess[torch.arange(len(far), device=rows.device), rows[far]] = -torch.inf
    if n_new > 0:
        s = torch.cat([s, excess.topk(n_new, dim=1).indices], 1)
        x, taken = (torch.nn.functional.pad(part, (0, n_new), value=v) for part, v in ((x, 0.0), (taken, True)))
    H = small_grams(problem.X, s, whole) * (taken[:, :, None] & taken[:, None, :])
    H.diagonal(dim1=1, dim2=2).add_(ridge[far])
    b = corr[far].gather(1, s) * taken + (H @ x[:, :, None])[:, :, 0]
    x = newton(H, b, lam[far], x, positive=options.positive, tol=options.tol)
    width = max(S.shape[1], s.shape[1])
    S, c = (torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in (S, c))
    S[far], c[far] = (torch.nn.functional.pad(part, (0, width - part.shape[1])) for part in (s, x))
    return found, SupportCodes(S, c)


def _filled(S, c):
    """Return atoms and coefficients without the places that are free in all rows."""
    count = int((c != 0).sum(1).max()) if c.shape[1] else 0
    places = (c != 0).to(torch.uint8).topk(count, dim=1).indices
    return S.gather(1, places), c.gather(1, places)


def newton(H, b, lam, start, *, positive: bool, tol: float):
    """Return the minimisers (r, s) of ``c H c / 2 - b c + lam |c|_1`` for r problems, from `start`.

    Projected Newton: the equations of the coefficients that are free to move are solved with their signs held; along
    the way there, on which a coefficient that reaches zero stays, the best of several points is taken. A step without
    progress is tried again with more damping. Problems are left when their slope is a tenth of `tol` times `lam`, or
    no damping helps because rounding hides all progress.
    """
    c, going = start.clone(), torch.arange(len(start), device=start.device)
    G, beta, bar, damping = H, b, lam[:, None], torch.full_like(lam, _DAMPING[0])
    for _ in range(_NEWTON_STEPS):
        x = c[going]
        g = torch.baddbmm(beta[:, :, None], G, x[:, :, None], beta=-1)[:, :, 0]
        side = torch.where(x != 0, x.sign(), -g.sign())
        free = (x != 0) | ((-g if positive else g.abs()) > bar)
        slope = torch.where(free, g + bar * side, 0)
        far = (slope.abs().amax(1) > 0.1 * tol * bar[:, 0]).nonzero()[:, 0]
        if not len(far):
            break
        if len(far) < len(going):
            going, G, beta, bar, damping, x, side, free, slope = (
                part[far] for part in (going, G, beta, bar, damping, x, side, free, slope)
            )
        c[going], gained = _step(G, beta, bar, damping, x, side, free, slope)
        damping = torch.where(gained, damping / 10, damping * 1e3).clamp(min=_DAMPING[0])
        hopeful = damping <= _DAMPING[1]
        if not hopeful.all():
            going, G, beta, bar, damping = (part[hopeful] for part in (going, G, beta, bar, damping))
            if not len(going):
                break
    return c


def _step(G, b, lam, damping, x, side, free, slope):
    """Return where one projected Newton step ends, and for which problems it lowers the objective."""
    m = int(free.sum(1).max())
    F = free.to(torch.uint8).topk(m, dim=1).indices
    real = free.gather(1, F)
    A = G.gather(1, F[:, :, None].expand(-1, -1, G.shape[2])).gather(2, F[:, None, :].expand(-1, m, -1))
    x, b, side, slope = (part.gather(1, F) * real for part in (x, b, side, slope))
    d = _direction(A, slope, real, damping)

    zeros = -x / d
    zeros = torch.where((zeros > 0) & (zeros < 1), zeros, 1.0).sort(1).values
    lengths = [zeros[:, k] for k in _ZEROS if k < m] + [torch.full_like(zeros[:, 0], a) for a in _STEP_LENGTHS]
    T = x[:, :, None] + d[:, :, None] * torch.stack(lengths, 1)[:, None, :]
    least = 1e-12 * torch.maximum(x.abs().amax(1), (x + d).abs().amax(1))  # what rounding leaves of a zero
    T = torch.where(T * side[:, :, None] > least[:, None, None], T, 0)
    T = torch.cat([x[:, :, None], T], 2)
    f = ((0.5 * (A @ T) - b[:, :, None]) * T).sum(1) + lam * T.abs().sum(1)
    best = f.argmin(1)
    end = T.gather(2, best[:, None, None].expand(-1, m, 1))[:, :, 0]
    return free.new_zeros(free.shape, dtype=x.dtype).scatter_(1, F, end), best > 0


def _direction(A, slope, real, damping):
    """Return the Newton direction, zero at the places that only fill up; scaled descent where A is not definite."""
    mean = (A.diagonal(dim1=1, dim2=2) * real).sum(1, keepdim=True) / real.sum(1, keepdim=True)
    A = A * (real[:, :, None] & real[:, None, :])
    A.diagonal(dim1=1, dim2=2).add_(torch.where(real, damping[:, None] * mean, 1.0))
    L, failed = torch.linalg.cholesky_ex(A)
    d = torch.cholesky_solve(slope[:, :, None], L)[:, :, 0]
    return -torch.where((failed > 0)[:, None], slope / (mean * real.sum(1, keepdim=True)), d)
