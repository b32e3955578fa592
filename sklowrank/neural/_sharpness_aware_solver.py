"""Perturbations of weights, and contexts that leave a module as it was."""

from contextlib import contextmanager

import torch
from torch.nn.modules.dropout import _DropoutNd

from .._nets.layers import Dropout
from .._nets.outputs import unchanged_buffers


def steepest_perturbation(gradients, weights, metric, radius):
    """Return the steepest perturbation of length `radius`: in a metric, relative to the weights, or Euclidean."""
    g = list(gradients.values())
    if metric is not None:
        steps = torch._foreach_div(g, list(metric.values()))
        length = sum((a * b).sum() for a, b in zip(g, steps)).sqrt()
    elif weights is not None:
        sizes = [weights[p] for p in gradients]
        scaled = torch._foreach_mul(g, sizes)
        steps, length = torch._foreach_mul(scaled, sizes), _norm(scaled)
    else:
        steps, length = g, _norm(g)
    return dict(zip(gradients, torch._foreach_mul(steps, radius / (length + 1e-12))))


def _norm(parts):
    return torch.linalg.vector_norm(torch.stack(torch._foreach_norm(parts)))


def metric_of(squares):
    """Return the diagonal metric of mean squared gradients: one plus their ratios to the mean over all weights."""
    parts = list(squares.values())
    mean = sum(part.sum() for part in parts) / sum(part.numel() for part in parts)
    return dict(zip(squares, torch._foreach_add(torch._foreach_div(parts, mean + 1e-12), 1.0)))


def second_order(reference, weights, metric):
    """Return half the squared length of a difference of weights in a metric: a divergence to second order."""
    return sum((m * (weights[p] - reference[p]).square()).sum() for p, m in metric.items()) / 2


@contextmanager
def restored(module, parameters):
    """Yield a copy of the weights; restore them and all buffers at the end of the block, bit for bit."""
    weights = {p: p.detach().clone() for p in parameters}
    with unchanged_buffers(module):
        try:
            yield weights
        finally:
            with torch.no_grad():
                torch._foreach_copy_(list(weights), list(weights.values()))


@contextmanager
def without_dropout(module):
    """Switch dropout layers off in the block; yield whether there are any."""
    layers = [m for m in module.modules() if isinstance(m, Dropout | _DropoutNd) and m.training]
    try:
        for layer in layers:
            layer.eval()
        yield bool(layers)
    finally:
        for layer in layers:
            layer.train()
