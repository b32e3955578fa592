"""From outputs to a radius, and from a radius to moved weights."""

from contextlib import contextmanager

import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional
from torch.nn.modules.dropout import _DropoutNd

from .._nets.layers import Dropout


def outputs_of(net):
    """Return what the outputs of a skorch net are: "logits", "probabilities", "chances", "chance logits", "values"."""
    criterion, classifier = net.criterion_, isinstance(net, NeuralNetClassifier)
    if isinstance(criterion, nn.NLLLoss):
        return "probabilities" if classifier else "logits"  # softmax leaves log-probabilities as they are
    if isinstance(criterion, nn.BCEWithLogitsLoss | nn.MultiLabelSoftMarginLoss):
        return "chance logits"
    if isinstance(criterion, nn.BCELoss):
        return "chances"
    return "logits" if classifier or isinstance(criterion, nn.CrossEntropyLoss) else "values"


def log_probabilities(outputs, kind):
    """Return logarithms of probabilities, classes along dimension 1."""
    if kind == "logits":
        return functional.log_softmax(outputs, 1)
    if kind == "probabilities":
        return functional.log_softmax((outputs + torch.finfo(outputs.dtype).eps).log(), 1)
    if kind == "chances":
        outputs = torch.logit(outputs, torch.finfo(outputs.dtype).eps)
    return torch.stack([functional.logsigmoid(-outputs), functional.logsigmoid(outputs)], 1)


def divergence(former, present, kind, direction="forward", weights=None):
    """Return the mean over rows of a divergence, and over the outputs of a row where it has several."""
    former, present = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (former, present))
    if kind == "values":
        each = (former - present).square() * (1 if direction == "symmetric" else 0.5)
    else:
        p, q = log_probabilities(former, kind), log_probabilities(present, kind)
        shares = {"forward": p.exp(), "reverse": -q.exp(), "symmetric": p.exp() - q.exp()}[direction]
        each = (shares * (p - q)).sum(1)
    rows = each.reshape(len(each), -1).mean(1)
    if weights is None:
        return rows.mean()
    weights = weights.to(rows)
    return (rows * weights).sum() / weights.sum().clamp(min=torch.finfo(rows.dtype).tiny)


def ascent(gradients, weights, metric, radius):
    """Return by how much each parameter moves: uphill by `radius`, in a metric or in that of the weights' sizes."""
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


def second_order(former, weights, metric):
    """Return half the squared length of a difference of weights in a metric: a divergence to second order."""
    return sum((m * (weights[p] - former[p]).square()).sum() for p, m in metric.items()) / 2


@contextmanager
def restored(module, parameters):
    """Give a copy of the weights to the block, and put them and all buffers back after it, bit for bit."""
    weights = {p: p.detach().clone() for p in parameters}
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    try:
        yield weights
    finally:
        with torch.no_grad():
            torch._foreach_copy_(list(weights), list(weights.values()))
            for name, value in module.named_buffers():
                value.copy_(buffers[name])


@contextmanager
def without_dropout(module):
    """Switch dropout layers off in the block; say whether there are any."""
    layers = [m for m in module.modules() if isinstance(m, Dropout | _DropoutNd) and m.training]
    try:
        for layer in layers:
            layer.eval()
        yield bool(layers)
    finally:
        for layer in layers:
            layer.train()
