"""Supervised dictionary learning by blocks: weights, codes and dictionary in turn, each lowering the same objective.

The solver of what codes by least squares cannot say: a dictionary or codes without negative entries, and the feature
model, in which the classifier reads the codes themselves.
"""

from typing import NamedTuple

import torch

from .._core.iterate import Step
from ._eliminated_codes import relative_decrease
from ._supervised_dictionary_objective import Table, fit_hessian, fit_term

_TINY = torch.finfo(torch.float64).tiny
_CODE_SWEEPS = 500  # at most, for codes of new rows; a row stops where its own codes stand still


class Blocks(NamedTuple):
    """The unknowns. Columns of W have length one."""

    W: torch.Tensor  # (p, r)
    B: torch.Tensor  # (r, width)
    gamma: torch.Tensor  # (q, width)
    H: torch.Tensor  # (n, r)


class Signs(NamedTuple):
    """What may not be negative."""

    W: bool
    H: bool


def descend_by_blocks(task, W, model, signs):
    """Yield blocks and objective after each cycle; the objective never rises."""
    spread = _spread(task) if model == "filter" else None
    H = codes(task.table.times(W), W, signs.H, sweeps=20)
    width, q = task.targets.shape[1], task.Z.shape[1]
    now = Blocks(W, W.new_zeros(W.shape[1], width), W.new_zeros(q, width), H)
    ahead, share, values, stride = now, 0.5, [], 1.0
    while True:
        new, value, stride = _cycle(task, ahead, model, signs, stride, spread)
        if values and value > values[-1]:  # the extrapolation went too far
            share = share / 2
            new, value, stride = _cycle(task, now, model, signs, stride, spread)
            value = min(values[-1], value)  # a rise by rounding is none
        else:
            share = min(1.1 * share, 0.98)
        values.append(value)
        yield Step(new, relative_decrease(values), value)
        ahead, now = _extrapolated(now, new, share, signs), new


def _cycle(task, blocks, model, signs, stride, spread):
    """Return the blocks after each was bettered once, their objective, and the stride of the dictionary's steps."""
    W, B, gamma, H = blocks
    B, gamma = fit_codes(task, _read(task, blocks, model), B, gamma, _metric(W, model), most=2)
    if model == "filter":
        H = codes(task.table.times(W), W, signs.H, start=H, sweeps=2)
        return _filter_dictionary(task, Blocks(W, B, gamma, H), signs, stride, spread)
    H = _feature_codes(task, Blocks(W, B, gamma, H), signs.H)
    new = _feature_dictionary(task, Blocks(W, B, gamma, H), signs)
    return new, objective_of_blocks(task, new, model), stride


def _extrapolated(before, now, share, signs):
    """Return the blocks that lie ahead, in the direction of the last cycle."""
    W, B, gamma, H = (b + share * (b - a) for a, b in zip(before, now))
    return Blocks(W.clamp(min=0) if signs.W else W, B, gamma, H.clamp(min=0) if signs.H else H)


def objective_of_blocks(task, blocks, model):
    """Return the objective of a dictionary with codes and weights."""
    W, B, gamma, H = blocks
    value = fit_term(task, W @ B, gamma)[0] if model == "filter" else _on_codes(task, H, B, gamma)[0]
    return float(value + task.xi * lost_share(task, W, H))


def lost_share(task, W, H):
    """Return the weighted mean of the squared distances of the rows of X from H @ W.T."""
    table = task.table
    products = table.turned_times(table.weights[:, None] * H.to(table.X.dtype))
    moments = H.T @ (table.weights.double()[:, None] * H)
    return task.squares - 2 * (W * products).sum() + ((W.T @ W) * moments).sum()


# Weights, given what they are multiplied with


def fit_codes(task, F, B, gamma, metric, most):
    """Return the weights B, gamma on columns F (n, r), by Newton's method from those given.

    The ridge of B is that of ``metric @ B``, a matrix of shape (r, r), upper triangular.
    """
    small = task._replace(table=Table((F @ torch.linalg.inv(metric)).to(task.Z.dtype), task.table.weights))
    B, shape = metric @ B, (len(B) + len(gamma), B.shape[1])
    value, *slopes = fit_term(small, B, gamma)
    for _ in range(most):
        gradient = torch.cat(slopes).flatten()
        e, V = torch.linalg.eigh(fit_hessian(small, B, gamma))
        e = torch.where(e > 1e-12 * e.amax(), e, torch.inf)
        step = (V @ (V.T @ gradient / e)).view(shape).split([len(B), len(gamma)])
        if float(gradient @ (V @ (V.T @ gradient / e))) <= 1e-15 * float(value.abs()):
            break
        for length in (1.0, 0.5, 0.25, 0.1, 0.01):
            there = fit_term(small, B - length * step[0], gamma - length * step[1])
            if there[0] <= value:
                B, gamma = B - length * step[0], gamma - length * step[1]
                value, *slopes = there
                break
        else:
            break
    return torch.linalg.solve_triangular(metric, B, upper=True), gamma


def _metric(W, model):
    r = W.shape[1]
    eye = torch.eye(r, dtype=W.dtype, device=W.device)
    if model == "feature":
        return eye
    return torch.linalg.cholesky(W.T @ W + 1e-10 * eye).mT


def _read(task, blocks, model):
    """What the classifier reads: filtered features, or codes."""
    return task.table.times(blocks.W).double() if model == "filter" else blocks.H


# Codes


def codes(products, W, nonnegative, *, start=None, sweeps=_CODE_SWEEPS):
    """Return codes of rows whose products with W are given: least squares, or with `nonnegative` by coordinate descent.

    No row's codes depend on other rows.
    """
    products, M = products.double(), W.T @ W
    if not nonnegative:
        return products @ torch.linalg.pinv(M, hermitian=True)
    H = torch.zeros_like(products) if start is None else start.clone()
    moving = None
    for _ in range(sweeps):
        part, target = (H, products) if moving is None else (H[moving], products[moving])
        before = part.clone()
        for k in range(len(M)):
            part[:, k] = (part[:, k] + (target[:, k] - part @ M[:, k]) / M[k, k].clamp(min=_TINY)).clamp(min=0)
        if moving is None:
            H = part
        else:
            H[moving] = part
        if start is None:
            left = (part - before).abs().amax(1) > 1e-12 * part.abs().amax(1)
            moving = left.nonzero()[:, 0] if moving is None else moving[left]
            if not len(moving):
                break
    return H


def _on_codes(task, H, B, gamma):
    """Return loss and ridges of weights on codes, and the gradient by the scores."""
    scores = H @ B + task.Z.double() @ gamma
    values, slopes = task.loss.value_and_slope(scores, task.targets.double())
    weights = task.weights.double()
    penalty = (task.ridge * B.square().sum() + (task.ridges[:, None] * gamma.square()).sum()) / 2
    return weights @ values + penalty, weights[:, None] * slopes


def _feature_codes(task, blocks, nonnegative, steps=5):
    """Return codes of the feature model after some accelerated gradient steps, each row by itself."""
    W, B, gamma, H = blocks
    v = task.table.weights.double()[:, None]
    share = float((task.weights / task.table.weights).amax())
    M, products = W.T @ W, task.table.times(W).double()
    curvature = (
        2 * task.xi * torch.linalg.matrix_norm(M, 2) + share * task.loss.bound * torch.linalg.matrix_norm(B, 2) ** 2
    )
    ahead, momentum = H, 1.0
    for _ in range(steps):
        slopes = _on_codes(task, ahead, B, gamma)[1] / v
        new = ahead - (2 * task.xi * (ahead @ M - products) + slopes @ B.T) / curvature.clamp(min=_TINY)
        new = new.clamp(min=0) if nonnegative else new
        following = (1 + (1 + 4 * momentum**2) ** 0.5) / 2
        ahead, momentum, H = new + (momentum - 1) / following * (new - H), following, new
    before, after = (objective_of_blocks(task, blocks._replace(H=h), "feature") for h in (blocks.H, H))
    return H if after <= before else _plain_code_step(task, blocks, M, products, curvature, nonnegative)


def _plain_code_step(task, blocks, M, products, curvature, nonnegative):
    _, B, gamma, H = blocks
    slopes = _on_codes(task, H, B, gamma)[1] / task.table.weights.double()[:, None]
    H = H - (2 * task.xi * (H @ M - products) + slopes @ B.T) / curvature.clamp(min=_TINY)
    return H.clamp(min=0) if nonnegative else H


# Dictionary


def _spread(task):
    """Return a diagonal (p, 1) above the moments of X in the loss: the sums over rows of |x_j| times all |x|."""
    table = task.table
    magnitudes = Table(abs(table.X), table.weights, None if table.turned is None else abs(table.turned))
    ones = torch.ones(table.shape[1], 1, dtype=torch.float64, device=table.X.device)
    return sum(magnitudes.turned_times(task.weights[i, None] * magnitudes.times(ones, i), i) for i in magnitudes.parts)


def _filter_dictionary(task, blocks, signs, stride, spread, steps=2):
    """Return the blocks after gradient steps on W, each entry with a step of its own, as :func:`_cycle` does."""
    _, B, gamma, H = blocks
    table, v = task.table, task.table.weights.double()[:, None]
    moments, products = H.T @ (v * H), table.turned_times((v * H).to(table.X.dtype))
    overlap = (B @ B.T).abs().sum(1)
    curvature = 2 * task.xi * moments.abs().sum(1) + (task.loss.bound * spread + task.ridge) * overlap

    def at(W):
        value, by_A, _ = fit_term(task, W @ B, gamma)
        MW = W @ moments
        return value + task.xi * ((W * MW).sum() - 2 * (W * products).sum()), by_A @ B.T + 2 * task.xi * (MW - products)

    W = blocks.W
    value, slope = at(W)
    for _ in range(steps):
        for _ in range(30):
            there = W - slope / (stride * curvature).clamp(min=_TINY)
            there = there.clamp(min=0) if signs.W else there
            value_there, slope_there = at(there)
            if value_there <= value:
                W, value, slope, stride = there, value_there, slope_there, 0.7 * stride
                break
            stride = 2 * stride
    length = torch.linalg.vector_norm(W, dim=0)
    length = torch.where(length > 0, length, 1.0)
    new = Blocks(W / length, B * length[:, None], gamma, H * length)
    return new, float(value) + task.xi * task.squares, stride


def _feature_dictionary(task, blocks, signs):
    """Return the blocks with the best dictionary of unit columns for the codes, one by one where sign matters."""
    W, H = blocks.W.clone(), blocks.H
    v = task.table.weights.double()[:, None]
    products = task.table.turned_times((v * H).to(task.table.X.dtype))
    if not any(signs):
        U, _, Vh = torch.linalg.svd(products, full_matrices=False)
        return blocks._replace(W=U @ Vh)
    moments = H.T @ (v * H)
    for k in range(W.shape[1]):
        pull = products[:, k] - W @ moments[:, k] + W[:, k] * moments[k, k]
        turned = pull.clamp(min=0) if signs.W else pull
        length = torch.linalg.vector_norm(turned)
        if length > 0:
            W[:, k] = turned / length
        elif signs.W and moments[k, k] > 0:  # nothing pulls upwards: the least bad unit vector has one entry
            W[:, k] = torch.nn.functional.one_hot(pull.argmax(), len(pull)).to(W.dtype)
    return blocks._replace(W=W)


# Start


def nonnegative_start(table, V):
    """Return a non-negative dictionary of unit columns from the leading directions V: NNDSVD, zeros filled."""
    W = torch.empty_like(V)
    for k in range(V.shape[1]):
        scores = table.times(V[:, k : k + 1]).double()
        sides = [(s * V[:, k]).clamp(min=0) for s in (1, -1)]
        sizes = [side.norm() * (s * scores).clamp(min=0).norm() for side, s in zip(sides, (1, -1))]
        W[:, k] = sides[0] if sizes[0] >= sizes[1] else sides[1]
    W = W / W.norm(dim=0).clamp(min=_TINY)
    W = torch.where(W > 0, W, 0.01 * W.mean())
    return W / W.norm(dim=0).clamp(min=_TINY)
