"""A small classifier and a small regressor with one network, as estimators of the package are written."""

from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin
from sklearn.callback import CallbackSupportMixin

from sklowrank._core.compat import _fit_context
from sklowrank._core.fitted import keep, recall
from sklowrank._core.rows import row_weights, rows_of
from sklowrank._core.validation import check_fit_data
from sklowrank._core.workspace import open_workspace
from sklowrank._nets.estimating import NetworkModel, continue_network, fit_network, fitted_network, network_outputs
from sklowrank._nets.targets import classes_head, in_units, values_head


class _Small(CallbackSupportMixin, BaseEstimator):
    _parameter_constraints = {}

    def __init__(
        self,
        hidden_layer_sizes=(16,),
        *,
        training=None,
        activation="relu",
        module=None,
        net_params=None,
        learning_rate=1e-2,
        weight_decay=0.0,
        batch_size=32,
        max_iter=20,
        early_stopping=False,
        validation_fraction=0.2,
        n_iter_no_change=10,
        tol=0.0,
        standardize=True,
        warm_start=False,
        device="cpu",
        random_state=0,
        verbose=0,
    ):
        self.hidden_layer_sizes = hidden_layer_sizes
        self.training = training
        self.activation = activation
        self.module = module
        self.net_params = net_params
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.batch_size = batch_size
        self.max_iter = max_iter
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.n_iter_no_change = n_iter_no_change
        self.tol = tol
        self.standardize = standardize
        self.warm_start = warm_start
        self.device = device
        self.random_state = random_state
        self.verbose = verbose

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X, y, sample_weight=None):
        X, y = check_fit_data(self, X, y, **self._kind)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        weights = row_weights(sample_weight, rows_of(X, ws), ws)
        start = recall(self, NetworkModel, ws.exact()) if self.warm_start and hasattr(self, "weights_") else None
        fitted = fit_network(
            self, X, y, ws, head=self._new_head(y, weights), rule=self.training, sample_weight=weights, start=start
        )
        return keep(self, ws, fitted.model, **fitted.attributes)

    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X, y):
        X, y = check_fit_data(self, X, y, reset=False, **self._kind)
        ws = open_workspace(X, device=self.device, random_state=self.random_state)
        fitted = continue_network(self, X, y, ws, head=self._former_head(y), rule=self.training)
        return keep(self, ws, fitted.model, **fitted.attributes)

    def network(self, device="cpu"):
        return fitted_network(self, device)


class SmallClassifier(ClassifierMixin, _Small):
    _kind = {}

    def _new_head(self, y, weights):
        return classes_head(y)

    def _former_head(self, y):
        return classes_head(y, classes=self.classes_)

    def predict_proba(self, X):
        ws, outputs = network_outputs(self, X, method="predict_proba")
        return ws.answer(classes_head(None, classes=self.classes_)[0].answer(outputs))

    def predict(self, X):
        return self.classes_[self.predict_proba(X).argmax(1)]


class SmallRegressor(RegressorMixin, _Small):
    _kind = {"y_numeric": True, "multi_output": True}

    def _new_head(self, y, weights):
        return values_head(y, standardize=self.standardize, sample_weight=weights)

    def _former_head(self, y):
        return values_head(y, fitted=(self.y_mean_, self.y_scale_))

    def predict(self, X):
        ws, outputs = network_outputs(self, X, method="predict")
        return ws.answer(in_units(outputs, self.y_mean_, self.y_scale_))
