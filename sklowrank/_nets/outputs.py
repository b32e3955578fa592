"""What the outputs of a network mean, by its criterion, and how far two outputs are apart."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from skorch import NeuralNetClassifier
from torch import nn
from torch.nn import functional


def outputs_of(net):
    """Return the kind of a net's outputs, by its criterion: (binary) logits or probabilities of classes, or values."""
    criterion, classifier = net.criterion_, isinstance(net, NeuralNetClassifier)
    if isinstance(criterion, nn.NLLLoss):
        return "probabilities" if classifier else "logits"  # softmax leaves log-probabilities as they are
    if isinstance(criterion, nn.BCEWithLogitsLoss | nn.MultiLabelSoftMarginLoss):
        return "binary logits"
    if isinstance(criterion, nn.BCELoss):
        return "binary probabilities"
    return "logits" if classifier or isinstance(criterion, nn.CrossEntropyLoss) else "values"


def log_probabilities(outputs, kind):
    """Return logarithms of probabilities, classes along dimension 1."""
    if kind == "logits":
        return functional.log_softmax(outputs, 1)
    if kind == "probabilities":
        return functional.log_softmax((outputs + torch.finfo(outputs.dtype).eps).log(), 1)
    if kind == "binary probabilities":
        outputs = torch.logit(outputs, torch.finfo(outputs.dtype).eps)
    return torch.stack([functional.logsigmoid(-outputs), functional.logsigmoid(outputs)], 1)


def divergence(reference, present, kind, direction="forward", weights=None):
    """Return the mean over rows of a divergence, and over the outputs of a row where it has several."""
    reference, present = (part.to(torch.promote_types(part.dtype, torch.float32)) for part in (reference, present))
    if kind == "values":
        each = (reference - present).square() * (1 if direction == "symmetric" else 0.5)
    else:
        p, q = log_probabilities(reference, kind), log_probabilities(present, kind)
        shares = {"forward": p.exp(), "reverse": -q.exp(), "symmetric": p.exp() - q.exp()}[direction]
        each = (shares * (p - q)).sum(1)
    rows = each.reshape(len(each), -1).mean(1)
    if weights is None:
        return rows.mean()
    weights = weights.to(rows)
    return (rows * weights).sum() / weights.sum().clamp(min=torch.finfo(rows.dtype).tiny)


@contextmanager
def unchanged_buffers(module: nn.Module) -> Iterator[None]:
    """Restore running statistics and other buffers after the block."""
    buffers = {name: value.clone() for name, value in module.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, value in module.named_buffers():
                value.copy_(buffers.get(name, value))
