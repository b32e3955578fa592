"""The one place that imports scikit-learn's private names, so that a rename upstream is mended in one line."""

import functools
from collections.abc import Callable

from sklearn.base import _fit_context as _fit_context_of_sklearn
from sklearn.cluster._hierarchical_fast import single_linkage_label
from sklearn.cluster._spectral import cluster_qr
from sklearn.metrics.pairwise import _VALID_METRICS
from sklearn.utils import _safe_indexing as safe_indexing
from sklearn.utils._array_api import check_same_namespace, get_namespace, get_namespace_and_device, move_to
from sklearn.utils._indexing import _get_column_indices as get_column_indices
from sklearn.utils._optional_dependencies import check_matplotlib_support
from sklearn.utils._param_validation import (
    HasMethods,
    Interval,
    InvalidParameterError,
    Options,
    RealNotInt,
    StrOptions,
    validate_params,
)
from sklearn.utils._set_output import ADAPTERS_MANAGER as OUTPUT_ADAPTERS
from sklearn.utils._set_output import _get_output_config as get_output_config
from sklearn.utils.validation import _check_feature_names_in as check_feature_names_in
from sklearn.utils.validation import _check_sample_weight as check_sample_weight
from sklearn.utils.validation import _check_y as check_y
from sklearn.utils.validation import _get_feature_names as get_feature_names
from sklearn.utils.validation import _num_samples as num_samples

from .annotations import Method
from .fitted import unchanged_on_error
from .modes import in_plain_modes

PAIRWISE_METRICS = set(_VALID_METRICS) - {"precomputed"}  # of which distances to new rows can be computed

__all__ = [
    "OUTPUT_ADAPTERS",
    "PAIRWISE_METRICS",
    "HasMethods",
    "Interval",
    "InvalidParameterError",
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
    "get_feature_names",
    "get_namespace",
    "get_namespace_and_device",
    "get_output_config",
    "move_to",
    "num_samples",
    "safe_indexing",
    "single_linkage_label",
    "validate_params",
]


def _fit_context(*, prefer_skip_nested_validation: bool) -> Callable[[Method], Method]:
    """Decorate `fit` or `partial_fit` as scikit-learn does, and let a call that fails leave the estimator as it was.

    Validation sets `n_features_in_` before the checks behind it can fail, and whoever interrupts a fit wants the former
    one back: all attributes are put back as they were, so that a first fit that fails leaves an unfitted estimator.
    Attributes are replaced by fits and never changed in place, so the names alone are kept. Modes of torch around the
    call do not reach into it.
    """

    def decorator(method: Method) -> Method:
        fit = _fit_context_of_sklearn(prefer_skip_nested_validation=prefer_skip_nested_validation)(
            in_plain_modes(method)
        )

        @functools.wraps(method)
        def whole_or_not_at_all(estimator, *args, **kwargs):
            with unchanged_on_error(estimator):
                return fit(estimator, *args, **kwargs)

        return whole_or_not_at_all  # type: ignore[return-value]

    return decorator
