"""The solver "bcd", block coordinate descent: weights, codes and dictionary in turn, all of one objective.

The solver of the cases in which codes are not eliminated by least squares: a non-negative dictionary or non-negative
codes, and the feature model, whose prediction reads the codes.
"""

from functools import partial
from typing import NamedTuple

import torch

from ..._core.iterate import Step
from .objective import Table, dense_rows, loss_share, relative_decrease

_TINY = torch.finfo(torch.float64).tiny
_TRIES = 30  # stiffnesses of the dictionary's bound in one cycle, at most
_SWEEPS = 2  # over the columns of codes or dictionary in each cycle
_REUSED = 5  # cycles that one Hessian of the weights serves
_CODE_SWEEPS = 500  # at most, for codes of new rows; each row stops when its own codes have converged


class Blocks(NamedTuple):
    """The unknowns in float64, and the products of X with the dictionary. Columns of W have unit length."""

    W: torch.Tensor  # (p, r)
    B: torch.Tensor  # (r, width)
    gamma: torch.Tensor  # (q, width)
    H: torch.Tensor  # (n, r)
    F: torch.Tensor  # (n, r): X @ W


class Signs(NamedTuple):
    """Which factors are non-negative."""

    W: bool
    H: bool


class LossValue(NamedTuple):
    """The loss of the prediction on the training rows."""

    value: torch.Tensor  # loss and ridges
    slopes: torch.Tensor  # (n, width): gradient of the loss by the scores


def block_descent(task, W, model, signs):
    """Yield blocks and objective after each cycle; the objective never rises."""
    cycle = _FilterCycle(task, signs) if model == "filter" else _FeatureCycle(task, signs)
    F = _products(task, W)
    width, q = task.targets.shape[1], task.Z.shape[1]
    now = Blocks(_by_column(W), W.new_zeros(W.shape[1], width), W.new_zeros(q, width), codes(F, W, signs.H), F)
    ahead, share, values = now, 0.5, []
    while True:
        new, value = cycle(ahead)
        if values and value > values[-1]:  # the extrapolation went too far
            share = share / 2
            new, value = cycle(now)
            value = min(values[-1], value)  # a rise by rounding is none
        else:
            share = min(1.1 * share, 0.98)
        values.append(value)
        yield Step(new, relative_decrease(values), value)
        ahead, now = Blocks(*(b + share * (b - a) for a, b in zip(now, new))), new
        if signs.H:
            ahead = ahead._replace(H=ahead.H.clamp(min=0))


class _FilterCycle:
    """One cycle of the filter model: scores are F @ B + Z @ gamma, with F = X @ W."""

    def __init__(self, task, signs):
        self.task, self.signs = task, signs
        self.newton = Newton(task, _REUSED)
        self.magnitudes, self.across = _magnitudes(task.table)
        self.stiffness = 1.0

    def __call__(self, blocks):
        """Return the blocks after one update of each, and their objective."""
        W, B, gamma, H, F = blocks
        B, gamma, current, _ = self.newton.step(F, B, gamma, W.T @ W)
        H = _coordinate_descent(H, F, W.T @ W, self.signs.H)
        W, F, value = self._dictionary(Blocks(W, B, gamma, H, F), current)
        return _of_unit_length(Blocks(W, B, gamma, H, F)), float(value)

    def _dictionary(self, blocks, current):
        """Return W, X @ W and the objective after coordinate descent on an upper bound that is exact at W.

        The bound replaces the Hessian of the loss by the row sums of its magnitudes, times an adaptive stiffness:
        without it the bound would be hundreds of times too large.
        """
        task, (W, B, gamma, H, F) = self.task, blocks
        width, v = B.shape[1], task.table.weights.double()[:, None]
        both = torch.cat([current.slopes, v * H], 1).to(task.table.weights.dtype)
        by_A, products = _by_column(task.table.whole().matmul_transposed(both)).split([width, len(B)], 1)
        pull = _by_column_product(by_A + task.ridge * (W @ B), B.T)
        moments, bent = H.T @ (v * H), B @ B.T
        spread = self._spread(F, B, gamma)
        for _ in range(_TRIES):
            curvature = self.stiffness * spread + task.ridge
            target = 2 * task.xi * products - pull + curvature * _by_column_product(W, bent)
            new = _coordinate_descent(W, target, 2 * task.xi * moments, self.signs.W, (curvature, bent))
            F_new, step = _products(task, new), new - W
            value = loss_value(task, F_new, B, gamma, new.T @ new).value
            risen = float(value - current.value - (pull * step).sum())
            allowed = float((curvature * _by_column_product(step, bent) * step).sum()) / 2
            if risen <= allowed + 1e-13 * float(value.abs()):
                break
            self.stiffness *= 2
        if allowed > 1e-12 * float(value.abs()):
            self.stiffness *= min(1.0, max(0.3, 3 * risen / allowed))
        lost = task.squares - 2 * (new * products).sum() + ((new.T @ new) * moments).sum()
        return new, F_new, value + task.xi * lost

    def _spread(self, F, B, gamma):
        """Return a diagonal (p, 1) that bounds the Hessian of the loss by weights on X: row sums of its magnitudes."""
        task = self.task
        steepness = task.loss.steepness(task.loss.link(F @ B + task.Z.double() @ gamma))
        steepness = steepness.clamp(min=0.1 * float(steepness.amax()))  # a confident row may become less so
        return self.magnitudes.matmul_transposed((task.weights * steepness)[:, None] * self.across)


class _FeatureCycle:
    """One cycle of the feature model: scores are H @ B + Z @ gamma."""

    def __init__(self, task, signs):
        self.task, self.signs = task, signs
        self.newton = Newton(task, _REUSED)
        self.share = float(loss_share(task))  # largest weight of a row in the loss over that in the reconstruction

    def __call__(self, blocks):
        """Return the blocks after one update of each, and their objective."""
        task, (W, B, gamma, H, F) = self.task, blocks
        eye = torch.eye(len(B), dtype=B.dtype, device=B.device)
        B, gamma, current, _ = self.newton.step(H, B, gamma, eye)
        H = self._codes(Blocks(W, B, gamma, H, F), current)
        W = _dictionary_of_codes(task, W, H, self.signs)
        F = _products(task, W)
        value = loss_value(task, H, B, gamma, eye)[0] + task.xi * reconstruction_loss(task, W, H, F)
        return Blocks(W, B, gamma, H, F), float(value)

    def _codes(self, blocks, current):
        """Return codes after coordinate descent on an upper bound with one curvature for all rows."""
        task, (W, B, _, H, F) = self.task, blocks
        pull = _by_column_product(current.slopes / task.table.weights.double()[:, None], B.T)
        bent = self.share * task.loss.bound * B @ B.T
        return _coordinate_descent(
            H, 2 * task.xi * F - pull + _by_column_product(H, bent), 2 * task.xi * W.T @ W + bent, self.signs.H
        )


def _products(task, W):
    return _by_column(task.table.whole().matmul(W).double())


def _by_column(M):
    """Return M in column-major layout."""
    return M.T.contiguous().T


def _by_column_product(U, M):
    """Return U @ M in column-major layout."""
    return (M.T @ U.T).T


def _of_unit_length(blocks):
    W, B, gamma, H, F = blocks
    length = torch.linalg.vector_norm(W, dim=0)
    length = torch.where(length > 0, length, 1.0)
    return Blocks(W / length, B * length[:, None], gamma, H * length, F / length)


def reconstruction_loss(task, W, H, F):
    """Return the weighted mean of the squared distances of the rows of X from H @ W.T."""
    v = task.table.weights.double()[:, None]
    return task.squares - 2 * (v * F * H).sum() + ((W.T @ W) * (H.T @ (v * H))).sum()


# Weights of given columns


def loss_value(task, F, B, gamma, metric):
    """Return the :class:`LossValue` of weights on columns F (n, r); the penalty of B is trace B' metric B."""
    scores = F @ B + task.Z.double() @ gamma
    values, slopes = task.loss.value_and_slope(scores, task.targets.double())
    weights = task.weights.double()
    penalty = (task.ridge * (B * (metric @ B)).sum() + (task.ridges[:, None] * gamma.square()).sum()) / 2
    return LossValue(weights @ values + penalty, weights[:, None] * slopes)


class Newton:
    """Newton's method for weights on columns F (n, r); a Hessian is reused while its steps lower the objective."""

    def __init__(self, task, reused=0):
        double = {name: getattr(task, name).double() for name in ("Z", "targets", "weights")}
        self.task = task._replace(**double)
        self.reused, self.age, self.factor = reused, 0, None

    def step(self, F, B, gamma, metric):
        """Return updated weights, their :class:`LossValue`, and twice the predicted decrease."""
        current = loss_value(self.task, F, B, gamma, metric)
        by_B = F.T @ current.slopes + self.task.ridge * (metric @ B)
        by_gamma = self.task.Z.T @ current.slopes + self.task.ridges[:, None] * gamma
        gradient = torch.cat([by_B, by_gamma]).reshape(-1, 1)
        while True:
            fresh = self.factor is None or self.age >= self.reused
            if fresh:
                self.factor, self.age = self._factor(F, B, gamma, metric), 0
            taken = torch.cholesky_solve(gradient, self.factor)
            step_B, step_gamma = taken.view(-1, B.shape[1]).split([len(B), len(gamma)])
            for length in (1.0, 0.5, 0.25, 0.1, 0.01) if fresh else (1.0,):
                trial = B - length * step_B, gamma - length * step_gamma
                trial_loss = loss_value(self.task, F, *trial, metric)
                if trial_loss.value <= current.value:
                    self.age += 1
                    return *trial, trial_loss, float((gradient * taken).sum())
            if fresh:
                return B, gamma, current, 0.0
            self.age = self.reused

    def _factor(self, F, B, gamma, metric):
        """Return the Cholesky factor of the Hessian by B and gamma."""
        columns = self.task._replace(table=Table(dense_rows(F), self.task.weights), ridge=0.0)
        hessian, unknowns = fit_hessian(columns, B, gamma), B.numel()
        eye = torch.eye(B.shape[1], dtype=B.dtype, device=B.device)
        hessian[:unknowns, :unknowns] += self.task.ridge * torch.kron(metric, eye)
        hessian.diagonal().add_(1e-10 * hessian.diagonal().amax().clamp(min=_TINY))  # directions without curvature
        return torch.linalg.cholesky(hessian)


def fit_hessian(task, A, gamma):
    """Return the Hessian of :func:`fit_term` by (A, gamma) above one another, a matrix of ((p + q) * width) rows."""
    width = A.shape[1]
    ridges = torch.cat([A.new_full((len(A),), task.ridge), task.ridges])
    (H,) = task.gather(partial(_hessian_sums, task.loss, A, gamma))
    H = H.permute(2, 0, 3, 1)
    return H.flatten(0, 1).flatten(1) + torch.diag(ridges.repeat_interleave(width))


def _hessian_sums(loss, A, gamma, block, Z, targets, weights):
    """Return the Hessian of a block without ridges, (width, width, p + q, p + q)."""
    F = torch.cat([block.X, Z], 1)
    predictions = loss.link(block.matmul(A) + Z @ gamma.to(Z.dtype))
    width = A.shape[1]
    H = A.new_zeros(width, width, F.shape[1], F.shape[1])
    for k, unit in enumerate(torch.eye(width, dtype=F.dtype, device=F.device)):
        curved = weights[:, None] * loss.curve(predictions, unit)
        for m in range(k, width):
            H[m, k] = (F.T @ (curved[:, m : m + 1] * F)).double()
            H[k, m] = H[m, k]
    return (H,)


def fit_weights(task, F, B, gamma):
    """Return the best weights on columns F (n, r) of unit metric, from those given."""
    newton, eye = Newton(task), torch.eye(len(B), dtype=B.dtype, device=B.device)
    for _ in range(30):
        B, gamma, current, left = newton.step(F, B, gamma, eye)
        if left <= 1e-15 * float(current.value.abs()):
            break
    return B, gamma


# Codes, and the columns of a dictionary


def _coordinate_descent(U, target, M, nonnegative, stiff=None):
    """Return U (m, r) after sweeps of coordinate descent on trace(U M U') / 2 - trace(U' target), column by column.

    With ``stiff = (c, N)``, c of shape (m, 1), the matrix of row j is M + c[j] N.
    """
    U = U.clone()
    bend = M.diagonal().expand(len(U), -1) if stiff is None else M.diagonal() + stiff[0] * stiff[1].diagonal()
    bend = _by_column(bend.clamp(min=_TINY))
    for _ in range(_SWEEPS):
        for k in range(len(M)):
            step = torch.addmv(target[:, k], U, M[:, k], alpha=-1)
            if stiff is not None:
                step.addcmul_(stiff[0][:, 0], U @ stiff[1][:, k], value=-1)
            column = U[:, k].addcdiv_(step, bend[:, k])
            if nonnegative:
                column.clamp_(min=0)
    return U


def codes(products, W, nonnegative):
    """Return codes of rows whose products with W are given: least squares, or with `nonnegative` by coordinate descent.

    No row's codes depend on other rows.
    """
    products, M = products.double(), W.T @ W
    if not nonnegative:
        return _by_column(products @ torch.linalg.pinv(M, hermitian=True))
    H, moving = torch.zeros_like(products), torch.arange(len(products), device=W.device)
    for _ in range(_CODE_SWEEPS):
        before = _by_column(H[moving])
        after = _coordinate_descent(before, _by_column(products[moving]), M, True)
        H[moving] = after
        moving = moving[(after - before).abs().amax(1) > 1e-12 * after.abs().amax(1)]
        if not len(moving):
            break
    return _by_column(H)


def _dictionary_of_codes(task, W, H, signs):
    """Return the best dictionary of unit columns for the codes; column by column where signs are constrained."""
    v = task.table.weights.double()[:, None]
    products = task.table.whole().matmul_transposed((v * H).to(task.table.weights.dtype))
    if not any(signs):
        U, _, Vh = torch.linalg.svd(products, full_matrices=False)
        return _by_column(U @ Vh)
    W, moments = W.clone(), H.T @ (v * H)
    for k in range(W.shape[1]):
        pull = products[:, k] - W @ moments[:, k] + W[:, k] * moments[k, k]
        turned = pull.clamp(min=0) if signs.W else pull
        length = torch.linalg.vector_norm(turned)
        if length > 0:
            W[:, k] = turned / length
        elif signs.W and moments[k, k] > 0:  # no positive gradient: the best unit vector has one entry
            W[:, k] = torch.nn.functional.one_hot(pull.argmax(), len(pull)).to(W.dtype)
    return W


def _magnitudes(table):
    """Return the magnitudes of X as a block, and their row sums (n, 1)."""
    block = table.whole().magnitudes()
    return block, block.matmul(torch.ones(table.shape[1], 1, dtype=torch.float64, device=table.weights.device))


# Start


def nonnegative_start(table, V):
    """Return a non-negative dictionary of unit columns from the leading directions V: NNDSVD with filled zeros."""
    W = torch.empty_like(V)
    for k in range(V.shape[1]):
        scores = table.whole().matmul(V[:, k : k + 1]).double()
        sides = [(s * V[:, k]).clamp(min=0) for s in (1, -1)]
        sizes = [side.norm() * (s * scores).clamp(min=0).norm() for side, s in zip(sides, (1, -1))]
        W[:, k] = sides[0] if sizes[0] >= sizes[1] else sides[1]
    W = W / W.norm(dim=0).clamp(min=_TINY)
    W = torch.where(W > 0, W, 0.01 * W.mean())
    return W / W.norm(dim=0).clamp(min=_TINY)
