"""The one place that imports scikit-learn's private names, so that a rename upstream is mended in one line."""

from sklearn.base import _fit_context as _context_of_fit
from sklearn.cluster._spectral import cluster_qr
from sklearn.utils._array_api import check_same_namespace, get_namespace, get_namespace_and_device, move_to
from sklearn.utils._indexing import _get_column_indices as get_column_indices
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import Interval, Options, RealNotInt, StrOptions, validate_params
from sklearn.utils.validation import _check_feature_names_in as check_feature_names_in
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _check_y as check_y

from .modes import in_plain_modes

__all__ = [
    "Interval",
    "Options",
    "RealNotInt",
    "StrOptions",
    "_fit_context",
    "check_feature_names_in",
    "check_matplotlib_support",
    "check_same_namespace",
    "check_sample_weight",
    "check_y",
    "cluster_qr",
    "get_column_indices",
    "get_namespace",
    "get_namespace_and_device",
    "move_to",
    "validate_params",
]


def _fit_context(*, prefer_skip_nested_validation):
    """Decorate `fit` as scikit-learn does, and keep modes of torch that surround the call away from it."""
    context = _context_of_fit(prefer_skip_nested_validation=prefer_skip_nested_validation)
    return lambda method: context(in_plain_modes(method))
