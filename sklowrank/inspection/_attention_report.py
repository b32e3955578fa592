"""Whether attention can be computed in time linear in rows, said of queries and keys."""

from math import log, sqrt
from numbers import Real
from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array

from .._core.compat import Interval, validate_params
from .._core.validation import on_host
from .._math.attention import count_monomials, largest_shift, longest, series_errors, smallest_degree


@validate_params(
    {
        "Q": ["array-like"],
        "K": ["array-like"],
        "V": ["array-like", None],
        "tol": [Interval(Real, 0, None, closed="neither")],
        "scale": [Interval(Real, None, None, closed="neither")],
    },
    prefer_skip_nested_validation=True,
)
def attention_report(Q, K, V=None, *, tol: float = 1e-2, scale: float = 1.0) -> dict[str, Any]:
    r"""Say whether softmax attention can be replaced by attention in linear time, and at which error and cost.

    The answer depends on the largest logit :math:`s\, q^\top (k - \bar k)` alone: for logits of a few units a series of
    low degree is exact enough, for logits in the tens none is. To judge an adapter, pass queries and keys with it.

    Parameters
    ----------
    Q : array-like or tensor of shape (n_queries, width)
        The queries.
    K : array-like or tensor of shape (n_keys, width)
        The keys.
    V : array-like or tensor of shape (n_keys, n_values), default=None
        The values.
    tol : float, default=1e-2
        Wanted bound on the error of outputs, as a share of half of the range of the values.
    scale : float, default=1.0
        Factor of the inner products.

    Returns
    -------
    report : dict
        "n_queries", "n_keys", "width" : int
            Shapes.
        "max_query_entry", "max_key_entry" : float
            Largest magnitudes of entries of the queries times `scale`, and of the keys less their mean.
        "sqrt_log_length" : float
            :math:`\sqrt{\ln n_{keys}}`. Linear time is possible for entries far below it as lengths grow, and is not
            for entries far above it, unless the strong exponential time hypothesis fails [1]_. The constants are
            unknown: it is a mark on the scale, and decides nothing of a given length.
        "max_logit_bound" : float
            Bound of all logits: the product of the largest norms.
        "degree" : int or None
            The smallest even degree up to 40 whose guaranteed error is at most `tol`; None if there is none, and then
            what follows is None.
        "n_features" : int or None
            Number of features, ``comb(width + degree, degree)``.
        "relative_error" : float or None
            Largest relative error of a weight before weights are divided by their sum.
        "output_bound" : float or None
            Guaranteed bound of the error of an output, in units of V; None without V.
        "cost_ratio" : float or None
            Multiplications in linear over those in quadratic time; without V, for as many values as keys are wide.
        "break_even_length" : float or None
            Number of queries and keys for which both are equal.

    See Also
    --------
    sklowrank.neural.linear_attention : Attention in linear time.

    Notes
    -----
    With :math:`B` the bound of logits, the quotient of series and exponential lies between :math:`a = p_g(B) e^{-B}`
    and :math:`b = p_g(-B) e^{B}` for even :math:`g`. Weights that sum to one and are multiplied by such factors and
    divided by their new sum move an average by at most
    :math:`(\sqrt b - \sqrt a) / (\sqrt b + \sqrt a)` times the range of the values. No better bound depends on B
    alone; real errors are smaller by orders of magnitude, as few logits come near B.

    References
    ----------
    .. [1] J. Y.-C. Hu, M. Su, E.-J. Kuo, Z. Song, H. Liu, "Computational limits of low-rank adaptation (LoRA)
       fine-tuning for transformer models", ICLR 2025.
    .. [2] J. Alman, Z. Song, "Fast attention requires bounded entries", NeurIPS 2023.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.inspection import attention_report
    >>> Q, K = np.random.default_rng(0).normal(size=(2, 4000, 4)) / 3
    >>> report = attention_report(Q, K, tol=1e-2)
    >>> report["degree"], report["n_features"], round(report["break_even_length"])
    (10, 1001, 1251)
    >>> attention_report(30 * Q, 30 * K)["degree"] is None
    True
    """
    Q, K = _rows(Q, "Q"), _rows(K, "K")
    if Q.shape[1] != K.shape[1]:
        raise ValueError(f"Q has {Q.shape[1]} columns, and K has {K.shape[1]}. Pass queries and keys of equal width.")
    Q, K = scale * Q, K - K.mean(0)
    V = None if V is None else _rows(V, "V")
    if V is not None and len(V) != len(K):
        raise ValueError(f"V has {len(V)} rows, and K has {len(K)}. Pass a value for each key.")
    logit = longest(Q) * longest(K)
    return {
        "n_queries": len(Q),
        "n_keys": len(K),
        "width": Q.shape[1],
        "max_query_entry": float(Q.abs().max()),
        "max_key_entry": float(K.abs().max()),
        "sqrt_log_length": sqrt(log(len(K))),
        "max_logit_bound": logit,
        **_by_degree(len(Q), len(K), Q.shape[1], V, logit, smallest_degree(logit, tol / 2)),
    }


def _by_degree(n_queries, n_keys, width, V, logit, degree):
    """Return what depends on the degree; None for all of it without one."""
    names = ("degree", "n_features", "relative_error", "output_bound", "cost_ratio", "break_even_length")
    if degree is None:
        return dict.fromkeys(names)
    n_features, n_values = count_monomials(width, degree), width if V is None else V.shape[1]
    linear, quadratic = n_features * (n_values + 1), width + n_values  # multiplications of a row, and of a pair
    bound = None if V is None else largest_shift(logit, degree) * float((V.amax(0) - V.amin(0)).max())
    ratio = linear * (n_queries + n_keys) / (quadratic * n_queries * n_keys)
    values = (degree, n_features, series_errors(logit, degree)[0], bound, ratio, 2 * linear / quadratic)
    return dict(zip(names, values))


def _rows(array, name):
    return torch.from_numpy(check_array(on_host(array), dtype=np.float64, input_name=name))
