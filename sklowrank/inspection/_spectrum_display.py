"""Plot of a spectrum: variances of components, singular values, or eigenvalues of a graph Laplacian."""

from typing import Any, Self

import numpy as np
from scipy.sparse import csr_array, diags_array, issparse
from scipy.sparse.linalg import eigsh
from sklearn.pipeline import Pipeline
from sklearn.utils.validation import check_is_fitted

from .._core.compat import check_matplotlib_support, move_to
from .._core.validation import is_integer

_KINDS = {  # attribute, and the label of its axis
    "component_variance_": "variance of the component",
    "eigenvalues_": "eigenvalue",
    "explained_variance_": "variance of the component",
    "singular_values_": "singular value",
}


class SpectrumDisplay:
    """Visualization of the variances of components, or of the lowest eigenvalues of a graph Laplacian.

    A drop in the variances suggests the number of components. The normalised Laplacian of the graph of a clusterer has
    as many eigenvalues near 0 as there are well separated clusters; the largest gap between eigenvalues is marked. Use
    :meth:`from_estimator` to create a display.

    Parameters
    ----------
    values : list of ndarrays
        Spectra: one, or one for each component of a mixture.
    kind : str
        Name of the values, the label of their axis.
    floors : ndarray of shape (n_spectra,), default=None
        Noise variance for each spectrum.
    gap : int, default=None
        Number of eigenvalues before the largest gap.

    Attributes
    ----------
    figure_ : matplotlib Figure
        The figure.
    ax_ : matplotlib Axes
        The axes.

    Examples
    --------
    >>> from sklowrank.cluster import ThresholdedSubspaceClustering
    >>> from sklowrank.datasets import make_union_of_subspaces
    >>> from sklowrank.inspection import SpectrumDisplay
    >>> X, y, _ = make_union_of_subspaces(n_clusters=3, noise=0.02, random_state=0)
    >>> model = ThresholdedSubspaceClustering(3, random_state=0).fit(X)
    >>> SpectrumDisplay.from_estimator(model).gap
    3
    """

    figure_: Any
    ax_: Any

    def __init__(
        self, values: list[np.ndarray], *, kind: str, floors: np.ndarray | None = None, gap: int | None = None
    ):
        self.values = values
        self.kind = kind
        self.floors = floors
        self.gap = gap

    @classmethod
    def from_estimator(cls, estimator, *, n_values=15, ax=None):
        """Create a display of the spectrum of a fitted estimator.

        Parameters
        ----------
        estimator : estimator or Pipeline
            Fitted estimator with `variances_` and `noise_variance_` (a mixture of low-rank Gaussians),
            `component_variance_`, `eigenvalues_`, `explained_variance_`, `singular_values_` or, for the eigenvalues of
            the normalised Laplacian, `affinity_matrix_`. Of a pipeline the last step is used.
        n_values : int, default=15
            Maximum number of values to plot, at least 2.
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.

        Returns
        -------
        display : SpectrumDisplay
        """
        check_is_fitted(estimator)
        model = estimator[-1] if isinstance(estimator, Pipeline) else estimator
        if not is_integer(n_values, 2):
            raise ValueError(f"n_values={n_values!r} should be an integer of at least 2.")
        if hasattr(model, "variances_") and hasattr(model, "noise_variance_"):
            spectra = [np.sort(_as_numpy(v))[::-1][:n_values] for v in model.variances_]
            found = cls(spectra, kind="variance beside the noise", floors=_as_numpy(model.noise_variance_))
        elif getattr(model, "affinity_matrix_", None) is not None:
            values = laplacian_spectrum(model.affinity_matrix_, n_values)
            if not len(values):
                raise ValueError("affinity_matrix_ has no edge between two rows, and so no spectrum.")
            found = cls([values], kind="eigenvalue of the Laplacian", gap=int(np.diff(values).argmax()) + 1)
        else:
            name = next((name for name in _KINDS if getattr(model, name, None) is not None), None)
            if name is None:
                raise ValueError(f"{type(model).__name__} has no spectrum: none of {', '.join(_KINDS)}, variances_.")
            found = cls([np.abs(_as_numpy(getattr(model, name)))[:n_values]], kind=_KINDS[name])
        return found.plot(ax=ax)

    def plot(self, *, ax=None) -> Self:
        """Plot the spectra.

        Parameters
        ----------
        ax : matplotlib Axes, default=None
            Axes to plot on. None creates a figure.

        Returns
        -------
        self : SpectrumDisplay
        """
        check_matplotlib_support("SpectrumDisplay.plot")
        import matplotlib.pyplot as plt

        if ax is None:
            _, ax = plt.subplots(figsize=(5, 3.4), layout="constrained")
        self.ax_, self.figure_ = ax, ax.figure
        for k, values in enumerate(self.values):
            label = None if len(self.values) == 1 else f"component {k}"
            (line,) = ax.plot(np.arange(1, len(values) + 1), values, marker="o", markersize=4, label=label)
            if self.floors is not None:
                ax.axhline(self.floors[k], color=line.get_color(), linewidth=0.8, linestyle=":")
        if self.gap is None:
            ax.set_yscale("log" if min(v.min(initial=1.0) for v in self.values) > 0 else "linear")
        else:
            ax.axvline(self.gap + 0.5, color="0.4", linewidth=0.8, linestyle="--")
            ax.set_title(f"the largest gap follows {self.gap} eigenvalue{'s' * (self.gap > 1)}", fontsize="medium")
        ax.set(xlabel="number", ylabel=self.kind)
        ax.xaxis.get_major_locator().set_params(integer=True)
        if len(self.values) > 1:
            ax.legend(frameon=False, fontsize="small")
        return self


def laplacian_spectrum(affinity, count):
    """Return the lowest eigenvalues of the normalised Laplacian of an affinity, ascending.

    Isolated vertices and the diagonal are ignored.
    """
    A = csr_array(affinity if issparse(affinity) else _as_numpy(affinity), dtype=np.float64)
    A = A - diags_array(A.diagonal())
    degrees = A.sum(axis=1)
    kept = np.flatnonzero(degrees > 0)
    A, root = A[kept][:, kept], diags_array(degrees[kept] ** -0.5)
    S = root @ A @ root
    count = min(count, len(kept))
    if count >= len(kept) - 1 or len(kept) <= 200:
        values = np.linalg.eigvalsh(S.toarray())[::-1][:count]
    else:
        start = np.full(len(kept), len(kept) ** -0.5)
        values = np.sort(eigsh(S, k=count, which="LA", v0=start, return_eigenvectors=False))[::-1]
    return np.clip(1 - values, 0, None)


def _as_numpy(array):
    return array if isinstance(array, np.ndarray) else np.asarray(move_to(array, xp=np, device="cpu"))
