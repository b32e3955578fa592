"""Attention in time linear in rows, as a function of tensors for torch modules."""

from numbers import Integral, Real
from typing import Any

import torch

from .._core.compat import Interval, validate_params
from .._math.attention import count_monomials, key_sums, read_sums, with_ones

_MOST_FEATURES = 100_000  # with more of them the exact weights of as many keys are cheaper


@validate_params(
    {
        "Q": [torch.Tensor],
        "K": [torch.Tensor],
        "V": [torch.Tensor],
        "degree": [Interval(Integral, 2, None, closed="left")],
        "key_mass": [torch.Tensor, None],
        "scale": [Interval(Real, None, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
    },
    prefer_skip_nested_validation=True,
)
def linear_attention(
    Q: torch.Tensor,
    K: torch.Tensor,
    V: torch.Tensor,
    *,
    degree: int = 4,
    key_mass: torch.Tensor | None = None,
    scale: float = 1.0,
    batch_size: int = 65536,
) -> torch.Tensor:
    r"""Return softmax attention with the series of the exponential, in time linear in queries and keys.

    .. math:: o_i = \frac{\sum_j m_j\, p_g(s\, q_i^\top (k_j - \bar k))\, v_j}
        {\sum_j m_j\, p_g(s\, q_i^\top (k_j - \bar k))}, \qquad p_g(t) = \sum_{l=0}^{g} t^l / l!

    Its difference from softmax attention falls factorially with the degree for logits of some units, and is bounded by
    :func:`~sklowrank.inspection.attention_report`. For logits in the tens use
    :func:`torch.nn.functional.scaled_dot_product_attention`, and also for short sequences: it is faster up to the
    `break_even_length` of the report.

    Parameters
    ----------
    Q : tensor of shape (n_queries, width)
        The queries, of a floating type.
    K : tensor of shape (n_keys, width)
        The keys. Their mean is subtracted, which changes no weight of softmax attention and shortens the keys.
    V : tensor of shape (n_keys, n_values)
        The values.
    degree : int, default=4
        Degree of the series, even: those of odd degrees can be negative. There are
        ``comb(width + degree, degree)`` features.
    key_mass : tensor of shape (n_keys,), default=None
        Factors of the keys' weights, at least 0 and not all 0. None is 1 for all.
    scale : float, default=1.0
        Factor of the inner products. Networks mostly have ``width ** -0.5``.
    batch_size : int, default=65536
        Number of rows processed at once; it bounds memory and does not change the result.

    Returns
    -------
    outputs : tensor of shape (n_queries, n_values)
        In the type and on the device of Q; it can be differentiated once. It is computed in float64.

    Raises
    ------
    ValueError
        If shapes do not fit, tensors are complex or Q is of integers, the degree is odd or makes more than 100,000
        features, or masses are negative or all zero.

    See Also
    --------
    sklowrank.inspection.attention_report : The bound of the error, and the degree that it takes.
    PolynomialAttentionClassifier : A classifier that averages labels by this attention.

    References
    ----------
    .. [1] J. Alman, Z. Song, "Fast attention requires bounded entries", NeurIPS 2023.
    .. [2] J. Y.-C. Hu, M. Su, E.-J. Kuo, Z. Song, H. Liu, "Computational limits of low-rank adaptation (LoRA)
       fine-tuning for transformer models", ICLR 2025.

    Examples
    --------
    >>> import torch
    >>> from sklowrank.neural import linear_attention
    >>> Q, K, V = torch.randn(3, 500, 4, generator=torch.Generator().manual_seed(0)) / 3
    >>> exact = torch.softmax(Q @ K.T, 1) @ V
    >>> [float((linear_attention(Q, K, V, degree=g) - exact).abs().max()) < tol for g, tol in ((2, 1e-2), (6, 1e-4))]
    [True, True]
    """
    _check_attention(Q, K, V, key_mass)
    check_even(degree)
    if count_monomials(Q.shape[1], degree) > _MOST_FEATURES:
        raise ValueError(
            f"degree={degree} makes {count_monomials(Q.shape[1], degree)} features of {Q.shape[1]} columns, more than "
            f"{_MOST_FEATURES}. Lower it, or use torch.nn.functional.scaled_dot_product_attention."
        )
    q, k, v = (part.to(Q.device, torch.float64) for part in (Q, K, V))
    mass = None if key_mass is None else key_mass.to(Q.device, torch.float64)
    sums = key_sums(k - k.mean(0), with_ones(v, mass), degree, batch_size)
    outputs = read_sums(scale * q, sums, degree, batch_size)
    return (outputs[:, 1:] / outputs[:, :1]).to(Q.dtype)


def check_even(degree: Any) -> None:
    """Raise a ValueError where a degree is odd."""
    if degree != "auto" and degree % 2:
        raise ValueError(f"degree={degree} is odd, and series of odd degrees can be negative. Pass {degree + 1}.")


def _check_attention(Q, K, V, key_mass):
    if not Q.is_floating_point() or K.is_complex() or V.is_complex():
        raise ValueError(
            f"Q, K and V have the types {Q.dtype}, {K.dtype}, {V.dtype}. They need real numbers, and Q is to be "
            "floating, as outputs have its type: pass Q.float()."
        )
    shapes = f"Q {tuple(Q.shape)}, K {tuple(K.shape)}, V {tuple(V.shape)}"
    if not Q.ndim == K.ndim == V.ndim == 2:
        raise ValueError(f"Q, K and V need two dimensions, but have {shapes}. Call it for each head and sequence.")
    if Q.shape[1] != K.shape[1] or len(K) != len(V) or not len(K):
        raise ValueError(f"Shapes do not fit: {shapes}. Q and K need equal widths, K and V equally many rows.")
    if key_mass is not None and key_mass.shape != (len(K),):
        raise ValueError(f"key_mass has shape {tuple(key_mass.shape)}. Pass one number for each of {len(K)} keys.")
    if key_mass is not None and not (key_mass.amin() >= 0 and key_mass.amax() > 0):
        raise ValueError(
            "key_mass has negative numbers or NaN, or is zero for all keys. Pass numbers of at least 0, not all 0."
        )
