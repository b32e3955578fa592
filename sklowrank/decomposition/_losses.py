"""Losses of scores against targets, row by row: logistic for two classes, softmax for more, squared for numbers."""

from collections.abc import Callable
from typing import NamedTuple

import torch


class Loss(NamedTuple):
    """A convex loss; scores, targets and directions have shape (n, width), values shape (n,)."""

    value_and_slope: Callable  # (scores, targets) -> values, gradient by the scores
    link: Callable  # scores -> predictions: probabilities, or numbers
    curve: Callable  # (predictions, directions) -> Hessian by the scores, times directions
    steepness: Callable  # predictions -> (n,): no eigenvalue of the row's Hessian is larger
    bound: float  # nor than this, at any scores
    ridge: float  # share of the L2 penalty that the weights of one column of scores get


def _logistic(scores, targets):
    values = torch.logaddexp(scores, torch.zeros_like(scores)) - targets * scores
    return values[:, 0], scores.sigmoid() - targets


def _curve_logistic(p, directions):
    return p * (1 - p) * directions


def _steepness_logistic(p):
    return (p * (1 - p))[:, 0]


def _softmax(scores, targets):
    total = scores.logsumexp(1, keepdim=True)
    return total[:, 0] - (scores * targets).sum(1), (scores - total).exp() - targets


def _probabilities(scores):
    return scores.softmax(1)


def _curve_softmax(p, directions):
    return p * (directions - (p * directions).sum(1, keepdim=True))


def _steepness_softmax(p):
    return 2 * (p * (1 - p)).amax(1)  # the sum of a row's magnitudes


def _squared(scores, targets):
    residual = scores - targets
    return residual.square().sum(1) / 2, residual


def _curve_squared(predictions, directions):
    return directions


def _steepness_squared(predictions):
    return torch.ones_like(predictions[:, 0])


# Two classes are softmax over two opposite columns, of which one is kept: weights w stand for -w / 2 and w / 2, whose
# squares add up to half of w's.
logistic = Loss(_logistic, torch.sigmoid, _curve_logistic, _steepness_logistic, 0.25, 0.5)  # targets 0 or 1
softmax = Loss(_softmax, _probabilities, _curve_softmax, _steepness_softmax, 0.5, 1.0)  # targets one-hot
squared = Loss(_squared, torch.clone, _curve_squared, _steepness_squared, 1.0, 1.0)
