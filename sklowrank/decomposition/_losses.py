"""Losses of scores against targets, row by row: logistic for two classes, softmax for more, squared for numbers."""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Loss(NamedTuple):
    """A convex loss; scores, targets and directions have shape (n, width), values shape (n,)."""

    value_and_slope: Callable  # (scores, targets) -> values, gradient by the scores
    curve: Callable  # (scores, directions) -> Hessian by the scores, times directions
    bound: float  # no eigenvalue of that Hessian is larger
    ridge: float  # share of the L2 penalty that the weights of one column of scores get


def _logistic(scores, targets):
    values = torch.logaddexp(scores, torch.zeros_like(scores)) - targets * scores
    return values[:, 0], scores.sigmoid() - targets


def _curve_logistic(scores, directions):
    p = scores.sigmoid()
    return p * (1 - p) * directions


def _softmax(scores, targets):
    total = scores.logsumexp(1, keepdim=True)
    return total[:, 0] - (scores * targets).sum(1), (scores - total).exp() - targets


def _curve_softmax(scores, directions):
    p = scores.softmax(1)
    return p * (directions - (p * directions).sum(1, keepdim=True))


def _squared(scores, targets):
    residual = scores - targets
    return residual.square().sum(1) / 2, residual


def _curve_squared(scores, directions):
    return directions


# Two classes are softmax over two opposite columns, of which one is kept: weights w stand for -w / 2 and w / 2, whose
# squares add up to half of w's.
logistic = Loss(_logistic, _curve_logistic, 0.25, 0.5)  # targets 0 or 1
softmax = Loss(_softmax, _curve_softmax, 0.5, 1.0)  # targets one-hot
squared = Loss(_squared, _curve_squared, 1.0, 1.0)
