"""Effective rank of a weight, alignment of two kernels."""

from typing import Any

import numpy as np
import torch
from sklearn.utils import check_array

from .._core.compat import StrOptions, validate_params
from .._core.modes import in_plain_modes
from .._core.warn import warn

_MATRIX = ["array-like", torch.Tensor]


@validate_params(
    {"W": _MATRIX, "kind": [StrOptions({"stable", "entropy", "numerical"})]}, prefer_skip_nested_validation=True
)
@in_plain_modes
def effective_rank(W: Any, kind: str = "stable") -> float:
    r"""Return the effective rank of a matrix, such as the weight of a layer: how many directions it has in fact.

    Parameters
    ----------
    W : array-like or tensor of shape (n_rows, n_columns)
        The matrix, finite. A tensor may be on any device.
    kind : {"stable", "entropy", "numerical"}, default="stable"
        Which effective rank, with singular values :math:`\sigma_1 \ge \sigma_2 \ge \ldots`

        - "stable": :math:`\sum_i \sigma_i^2 / \sigma_1^2`, which small singular values hardly change [1]_;
        - "entropy": :math:`\exp(-\sum_i p_i \log p_i)` with :math:`p_i = \sigma_i / \sum_j \sigma_j` [2]_, the number
          of equal singular values with the same entropy;
        - "numerical": the number of singular values above :math:`\epsilon \max(n, p)\, \sigma_1`, where
          :math:`\epsilon` is the precision of W: the rank up to rounding.

    Returns
    -------
    rank : float
        Between 1 and the smaller side of W; 0 for a matrix of zeros. It does not depend on the scale of W.

    See Also
    --------
    sklowrank.inspection.LearningRegime : Stable ranks of the weights of a network before and after a fit.

    Notes
    -----
    Singular values are computed in float64, in O(n p min(n, p)).

    References
    ----------
    .. [1] M. Rudelson, R. Vershynin, "Sampling from large matrices: an approach through geometric functional analysis",
       Journal of the ACM, 2007.
    .. [2] O. Roy, M. Vetterli, "The effective rank: a measure of effective dimensionality", EUSIPCO, 2007.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.metrics import effective_rank
    >>> W = np.diag([2.0, 1.0, 0.0])
    >>> effective_rank(W), round(effective_rank(W, "entropy"), 3), effective_rank(W, "numerical")
    (1.25, 1.89, 2.0)
    """
    matrix, eps = _matrix(W, "W")
    s = torch.linalg.svdvals(matrix).cpu()
    if not s[0] > 0:
        return 0.0
    if kind == "stable":
        return float((s / s[0]).square().sum())
    if kind == "entropy":
        return float(torch.special.entr(s / s.sum()).sum().exp())
    return float((s > eps * max(matrix.shape) * s[0]).sum())


@validate_params({"K": _MATRIX, "K0": _MATRIX, "centered": ["boolean"]}, prefer_skip_nested_validation=True)
@in_plain_modes
def kernel_alignment(K: Any, K0: Any, centered: bool = False) -> float:
    r"""Return the alignment of two kernels of the same rows, the cosine of the angle between the two matrices.

    .. math:: \frac{\langle K, K_0 \rangle_F}{\|K\|_F \|K_0\|_F}

    It is 1 where one kernel is a positive multiple of the other. Between the tangent kernels of a network before and
    after a fit it says how far features have been learnt: near 1 the fit was nearly that of a kernel method.

    Parameters
    ----------
    K, K0 : array-like or tensor of shape (n_rows, n_rows)
        The kernels, finite.
    centered : bool, default=False
        Whether to centre both kernels in feature space first, :math:`HKH` with :math:`H = I - 11^\top / n`. With linear
        kernels this is CKA.

    Returns
    -------
    alignment : float
        Between -1 and 1; between 0 and 1 for positive semidefinite kernels. For kernels of one row it is 1 (or -1), by
        definition. NaN, with a RuntimeWarning, where a kernel is zero; with `centered` a constant one is.

    See Also
    --------
    sklowrank.metrics.tangent_kernel : The tangent kernel of a network.
    sklowrank.inspection.LearningRegime : Alignments of a network before and after a fit.

    Notes
    -----
    Cost O(n²). Without `centered` a mean that all features share dominates, and alignments are higher.

    References
    ----------
    .. [1] N. Cristianini, J. Shawe-Taylor, A. Elisseeff, J. Kandola, "On kernel-target alignment", NeurIPS 2001.
    .. [2] S. Kornblith, M. Norouzi, H. Lee, G. Hinton, "Similarity of neural network representations revisited", ICML
       2019.

    Examples
    --------
    >>> import numpy as np
    >>> from sklowrank.metrics import kernel_alignment
    >>> K = np.array([[2.0, 1.0], [1.0, 2.0]])
    >>> round(kernel_alignment(3 * K, K), 3), round(kernel_alignment(K, np.eye(2)), 3)
    (1.0, 0.894)
    """
    units = [_matrix(kernel, name)[0] for kernel, name in ((K, "K"), (K0, "K0"))]
    shapes = [tuple(unit.shape) for unit in units]
    if shapes[0] != shapes[1] or shapes[0][0] != shapes[0][1]:
        raise ValueError(f"K has shape {shapes[0]} and K0 {shapes[1]}. Pass two square matrices of the same rows.")
    if centered:
        units = [_centred(unit) for unit in units]
    norms = [float(unit.norm()) for unit in units]
    if not min(norms) > 0:
        zero = "K" if not norms[0] > 0 else "K0"
        text = f"The alignment is NaN: {zero} is zero{' after centring' if centered else ''}."
        warn(text, RuntimeWarning)
        return float("nan")
    product = float(units[0].flatten() @ units[1].to(units[0].device).flatten())
    return min(1.0, max(-1.0, product / norms[0] / norms[1]))


def _matrix(A, name):
    """Return a finite matrix in float64, scaled so that squares neither overflow nor vanish, and its precision."""
    if isinstance(A, torch.Tensor):
        tensor = A.detach()
        if tensor.ndim != 2 or not tensor.numel():
            raise ValueError(f"{name} has shape {tuple(tensor.shape)}. Pass a matrix with at least one entry.")
    else:
        array = check_array(A, dtype=[np.float64, np.float32], input_name=name)
        tensor = torch.from_numpy(np.require(array, requirements="CW"))
    eps = torch.finfo(tensor.dtype if tensor.is_floating_point() else torch.float64).eps
    tensor = tensor.double()
    size = max(abs(float(end)) for end in tensor.aminmax())
    if not np.isfinite(size):
        raise ValueError(f"{name} contains NaN or infinity. Pass finite numbers.")
    return (tensor if size == 0 or 1e-50 < size < 1e50 else tensor / size), eps


def _centred(K):
    """Return H K H; what is left by rounding of a constant kernel is zero."""
    left = K - K.mean(0, keepdim=True)
    left = left - left.mean(1, keepdim=True)
    return torch.where(left.abs().amax() > 8 * torch.finfo(K.dtype).eps * K.abs().amax(), left, 0.0)
