"""Whether a network has learnt features, or only weighted those that it had at the start."""

from collections.abc import Sequence
from numbers import Integral
from typing import Any, Literal, Self

import numpy as np
from sklearn.base import BaseEstimator, MetaEstimatorMixin, clone, is_classifier
from sklearn.utils import check_random_state
from sklearn.utils.metaestimators import available_if
from sklearn.utils.validation import check_is_fitted

from .._core.annotations import RandomState
from .._core.compat import Interval, StrOptions, _fit_context
from .._core.fitted import keep
from .._core.validation import on_host
from .._nets.found import find_network
from ._learning_regime_solver import (
    MEASURES,
    chosen_layers,
    compared,
    fit_watched,
    found_attributes,
    history_of,
    probe_rows,
    seen,
)
from ._wrapped_network import NetworkWrapper, check_trainable, inner_has, rows_at


class LearningRegime(NetworkWrapper, MetaEstimatorMixin, BaseEstimator):
    """Fit a network, and measure how far it has learnt features: the rich or the lazy regime of learning.

    In the lazy regime a network keeps the features of its random start and weights them, as a kernel method would; in
    the rich regime hidden layers learn features of the task. Use it to choose width, scale and rank of the start, to
    see whether a kernel method would do, or whether representations are worth transferring. It costs some evaluations
    of the tangent kernel, and the fitted network is the one that the estimator alone would give. It does not say which
    regime generalises better: compare scores for that.

    Parameters
    ----------
    estimator : estimator
        The network. A copy of it is fitted: :class:`~sklowrank.neural.NetworkClassifier` or
        :class:`~sklowrank.neural.NetworkRegressor`, with any training rule, a skorch net, or a Pipeline whose last step
        is one of these.
    probe_size : int, default=200
        Number of rows of X on which kernels and representations are compared, drawn once, of each class its share. All
        rows where X has fewer.
    measures : sequence of {"weight", "kernel", "representation", "sign"}
        What is measured; all by default. The attributes of the others are not set.
    kernel_method : {"jacobian", "sum"}, default="jacobian"
        Tangent kernel of all outputs, or of their sum, as in :func:`~sklowrank.metrics.tangent_kernel`. With many
        outputs the first takes much memory: (probe_size * n_outputs)² numbers.
    layers : {"hidden", "all"} or sequence of str, default="hidden"
        Layers that are measured: all linear and convolutional ones but the last, all of them, or those of some paths in
        the torch module, such as ``["2"]``. The tangent kernel is that of their weights and biases, frozen ones too.
    random_state : int, RandomState instance or None, default=None
        Seed or generator of random numbers; pass an int for reproducible results. It draws the probe rows alone.

    Attributes
    ----------
    estimator_ : estimator
        The fitted estimator.
    weight_change_ : dict of str to float
        Frobenius norm of the change of each layer's weight.
    relative_weight_change_ : dict of str to float
        The same, divided by the norm at the start.
    kernel_alignment_ : float
        Alignment of the tangent kernels at the start and at the end: 1 in the lazy limit, 0 where nothing of the
        first kernel is left.
    representation_alignment_ : dict of str to float
        Alignment of the kernels HHᵀ of the representations behind each layer, at the start and at the end.
    sign_similarity_ : dict of str to float
        Share of the entries of the representations behind each layer that have the same sign at the start and at the
        end.
    effective_rank_ : dict of str to (float, float)
        Stable rank of each layer's weight at the start and at the end; with "weight" among the `measures`.
    history_ : dict of lists
        The course of the training. `epoch`: 1, 2, 4, 8, ... and the last one, which stands for the fitted network.
        `train_loss`, and for each measure `relative_weight_change`, `kernel_alignment`, `representation_alignment` and
        `sign_similarity`, means over layers.
    classes_ : array of shape (n_classes,)
        Class labels, of a classifier.
    n_features_in_ : int
        Number of features.
    feature_names_in_ : array of shape (n_features_in_,)
        Names of the columns of X, where the estimator has them.

    See Also
    --------
    sklowrank.metrics.tangent_kernel : Tangent kernel of a network.
    sklowrank.metrics.kernel_alignment : Alignment of two kernels.
    sklowrank.metrics.effective_rank : Effective rank of a weight.

    Notes
    -----
    The start is the network when training begins, after a training rule has replaced layers. Layers of rules are
    compared multiplied out: their weights and kernels are those of one linear layer with the same map. Networks are
    compared in eval mode, on the same rows, and by their logits. The representation behind a layer is the input of the
    layer that is called next, after the activation; behind the last layer it is the output. For n probe rows, k outputs
    and widths that sum to d a comparison takes O((nk)² d), at 2 + log2 epochs times; copies of the network are kept for
    these.

    Comparisons are fair at equal training loss and at equal norms of the starts: a larger norm makes a network lazier,
    and any network changes more the longer it is trained. `init_rank` of the estimators keeps the norm, and `history_`
    has the loss. Alignments rise with the rank of the start; the change of the weights does not follow it, so do not
    read it alone.

    References
    ----------
    .. [1] Y. H. Liu, A. Baratin, J. Cornford, S. Mihalas, E. Shea-Brown, G. Lajoie, "How connectivity structure shapes
       rich and lazy learning in neural circuits", ICLR 2024.
    .. [2] L. Chizat, E. Oyallon, F. Bach, "On lazy training in differentiable programming", NeurIPS 2019.

    Examples
    --------
    >>> from sklearn.datasets import load_iris
    >>> from sklowrank.inspection import LearningRegime
    >>> from sklowrank.neural import NetworkClassifier
    >>> X, y = load_iris(return_X_y=True)
    >>> model = NetworkClassifier((32, 32), learning_rate=1e-2, max_iter=20, random_state=0)
    >>> regime = LearningRegime(model, random_state=0).fit(X, y)
    >>> regime.kernel_alignment_ < 0.8, regime.score(X, y) > 0.95  # far from 1: features were learnt
    (True, True)
    >>> regime.history_["epoch"]
    [1, 2, 4, 8, 16, 20]
    """

    _parameter_constraints = {
        "estimator": "no_validation",
        "probe_size": [Interval(Integral, 1, None, closed="left")],
        "measures": ["array-like"],
        "kernel_method": [StrOptions({"jacobian", "sum"})],
        "layers": [StrOptions({"hidden", "all"}), "array-like"],
        "random_state": ["random_state"],
    }

    estimator_: Any
    weight_change_: dict[str, float]
    relative_weight_change_: dict[str, float]
    kernel_alignment_: float
    representation_alignment_: dict[str, float]
    sign_similarity_: dict[str, float]
    effective_rank_: dict[str, tuple[float, float]]
    history_: dict[str, list]

    def __init__(
        self,
        estimator: Any,
        *,
        probe_size: int = 200,
        measures: Sequence[str] = MEASURES,
        kernel_method: Literal["jacobian", "sum"] = "jacobian",
        layers: str | Sequence[str] = "hidden",
        random_state: RandomState = None,
    ):
        self.estimator = estimator
        self.probe_size = probe_size
        self.measures = measures
        self.kernel_method = kernel_method
        self.layers = layers
        self.random_state = random_state

    @_fit_context(prefer_skip_nested_validation=False)
    def fit(self, X, y) -> Self:
        """Fit the estimator, and compare its network before and after.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows, as the estimator takes them.
        y : array-like
            The targets, as the estimator takes them.

        Returns
        -------
        self : LearningRegime
        """
        measures = _checked_measures(self.measures)
        check_trainable(self.estimator, how="is no network that can be trained")
        model = clone(self.estimator)
        taken = fit_watched(model, X, y)
        layers = chosen_layers(taken[0].module, self.layers)
        X = X if hasattr(X, "shape") or hasattr(X, "__len__") else np.asarray(X)
        at = probe_rows(X, y if is_classifier(model) else None, self.probe_size, check_random_state(self.random_state))
        rows = find_network(model).prepare(on_host(rows_at(X, at)))
        views = (seen(snapshot.module, rows, layers, measures, self.kernel_method) for snapshot in taken)
        start, course = next(views), []
        for view in views:  # a kernel may be large: one at a time
            course.append(compared(start, view, measures))
        found = found_attributes(start, view, course[-1], measures) | {"history_": history_of(taken, course, measures)}
        return keep(self, None, estimator_=model, **found)

    @available_if(inner_has("score"))
    def score(self, X, y):
        """Return the score of the fitted estimator.

        Parameters
        ----------
        X : array-like of shape (n_samples, n_features)
            The rows.
        y : array-like
            Their targets.

        Returns
        -------
        score : float
        """
        check_is_fitted(self)
        return self.estimator_.score(X, y)


def _checked_measures(measures):
    measures = tuple(measures)
    for measure in measures:
        if measure not in MEASURES:
            raise ValueError(f"measures has {measure!r}. Use some of {', '.join(map(repr, MEASURES))}.")
    if not measures:
        raise ValueError(f"measures is empty. Use some of {', '.join(map(repr, MEASURES))}.")
    return measures
