"""The regime of learning: closed forms of lazy fits, the effect of the rank of the start, doors, traps."""

import pickle
import warnings

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.datasets import load_digits, load_iris
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier, NeuralNetRegressor
from skorch.callbacks import Callback, EarlyStopping, EpochScoring
from torch import nn

from sklowrank._nets.architecture import edited
from sklowrank._nets.layers import ThinLinear, linear_layers, low_rank_start
from sklowrank._nets.training import Rule
from sklowrank.inspection import LearningRegime
from sklowrank.metrics import effective_rank, kernel_alignment, tangent_kernel
from sklowrank.neural import NetworkClassifier, NetworkRegressor

X, y = load_iris(return_X_y=True)
ROWS = StandardScaler().fit_transform(X).astype(np.float32)
ALL = (
    "weight_change_",
    "relative_weight_change_",
    "kernel_alignment_",
    "representation_alignment_",
    "sign_similarity_",
)


def ours(kind=NetworkClassifier, **params):
    settings = {"hidden_layer_sizes": (12, 12), "learning_rate": 1e-2, "max_iter": 5, "tol": 0, "random_state": 0}
    return kind(**{**settings, **params})


def layers(n_outputs=3, dropout=0.2, last=()):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(4, 12), nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, n_outputs), *last)


def skorch(module=None, kind=NeuralNetClassifier, **params):
    module = layers() if module is None else module
    settings = {"criterion": nn.CrossEntropyLoss} if kind is NeuralNetClassifier else {}
    settings |= {"lr": 0.1, "max_epochs": 5, "train_split": None, "verbose": 0}
    return kind(module, **{**settings, **params})


def measured(estimator, X=X, y=y, **params):
    return LearningRegime(estimator, **{"random_state": 0, **params}).fit(X, y)


def test_measures_are_their_formulas():
    """Against the networks at both ends, which a fit of no learning rate and the plain fit give."""
    start, end = (ours(learning_rate=rate).fit(X, y) for rate in (0.0, 1e-2))
    regime = measured(ours(), probe_size=1000)  # all rows
    before, after = start.network(), end.network()
    rows = torch.from_numpy((X - end.mean_) / end.scale_).float()
    W_0, W = (net[2].weight.detach().double() for net in (before, after))
    assert regime.weight_change_["2"] == pytest.approx(float((W - W_0).norm()), rel=1e-6)
    assert regime.relative_weight_change_["2"] == pytest.approx(float((W - W_0).norm() / W_0.norm()), rel=1e-6)
    assert regime.effective_rank_["2"] == pytest.approx((effective_rank(W_0), effective_rank(W)), rel=1e-6)
    H_0, H = (net[:4](rows).detach().double() for net in (before, after))
    assert regime.representation_alignment_["2"] == pytest.approx(kernel_alignment(H @ H.T, H_0 @ H_0.T), rel=1e-6)
    assert regime.sign_similarity_["2"] == pytest.approx(float((H.sign() == H_0.sign()).double().mean()))
    kernels = [tangent_kernel(net, rows, params=["0", "2"]) for net in (after, before)]
    assert regime.kernel_alignment_ == pytest.approx(kernel_alignment(*kernels), rel=1e-6)
    assert list(regime.weight_change_) == ["0", "2"]
    assert regime.kernel_alignment_ < 0.95


@pytest.mark.parametrize("estimator", [ours(learning_rate=0.0), skorch(lr=0.0)], ids=["ours", "skorch"])
def test_a_frozen_network_is_lazy(estimator):
    regime = measured(estimator, ROWS, layers="all")
    assert set(regime.weight_change_.values()) == set(regime.relative_weight_change_.values()) == {0.0}
    assert regime.kernel_alignment_ == pytest.approx(1, abs=1e-6)
    assert list(regime.representation_alignment_.values()) == pytest.approx([1] * len(regime.weight_change_), abs=1e-6)
    assert set(regime.sign_similarity_.values()) == {1.0}


def test_a_network_that_is_linear_in_its_features_keeps_the_kernel():
    """Only the last layer is trained: the kernel of its weights is that of the features, which stay."""
    estimator = skorch(optimizer__param_groups=[("[0]*", {"lr": 0.0})])
    regime = measured(estimator, ROWS, layers=["3"])
    assert regime.weight_change_["3"] > 0.1
    assert regime.kernel_alignment_ == pytest.approx(1, abs=1e-6)
    assert measured(estimator, ROWS, layers=["0"]).weight_change_ == {"0": 0.0}


class LowRank(nn.Sequential):
    """Two hidden layers; of the weight between them rank and gain are set."""

    def __init__(self, rank, gain=1.25, width=100):
        sizes = (nn.Linear(64, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 10))
        super().__init__(*sizes)
        with torch.no_grad():
            self[2].weight.copy_(low_rank_start(gain * torch.randn(width, width) / width**0.5, rank))


class AtLoss(EarlyStopping):
    """Stops at a training loss: starts are compared at the same one."""

    def on_epoch_end(self, net, **kwargs):
        if net.history[-1]["train_loss"] < 0.05:
            self.misses_ = self.patience
            raise KeyboardInterrupt


def test_low_rank_learns_features_where_the_norm_is_the_same():
    digits, classes = load_digits(return_X_y=True)
    found = {}
    for rank in (1, 100):
        net_params = {"optimizer": torch.optim.SGD, "optimizer__momentum": 0.9, "callbacks": [AtLoss()]}
        model = NetworkClassifier(
            module=LowRank,
            net_params={**net_params, "module__rank": rank},
            learning_rate=0.01,
            max_iter=60,
            tol=0,
            random_state=0,
        )
        regime = found[rank] = measured(model, digits, classes, probe_size=100, layers=["2"])
        assert regime.history_["train_loss"][-1] < 0.05
        assert regime.history_["epoch"][-1] < 60
    rich, lazy = found[1], found[100]
    norms = [r.weight_change_["2"] / r.relative_weight_change_["2"] for r in (rich, lazy)]
    assert norms[0] == pytest.approx(norms[1], rel=1e-5)
    assert rich.effective_rank_["2"][0] == pytest.approx(1, abs=1e-4)
    assert lazy.effective_rank_["2"][0] > 20
    assert lazy.kernel_alignment_ > rich.kernel_alignment_ + 0.05
    assert lazy.representation_alignment_["2"] > rich.representation_alignment_["2"] + 0.1


@pytest.mark.parametrize("estimator", [ours(), ours(early_stopping=True), ours(net_params={"module__dropout": 0.5})])
def test_the_fit_is_that_of_the_estimator_alone(estimator):
    regime, alone = measured(estimator), clone(estimator).fit(X, y)
    assert all(np.array_equal(regime.estimator_.weights_[name], alone.weights_[name]) for name in alone.weights_)
    assert np.array_equal(regime.predict_proba(X), alone.predict_proba(X))
    assert regime.score(X, y) == alone.score(X, y)
    assert np.array_equal(regime.classes_, alone.classes_)
    assert regime.estimator_.get_params().keys() == estimator.get_params().keys()
    assert regime.estimator_.net_params == estimator.net_params
    assert not hasattr(estimator, "weights_")
    assert not hasattr(regime, "decision_function")
    assert hasattr(LearningRegime(ours(NetworkRegressor)), "predict_proba") is False


def test_the_end_is_the_fitted_network():
    """With early stopping it is that of the best epoch, not of the last one."""
    estimator = ours(early_stopping=True, max_iter=16, learning_rate=0.1, hidden_layer_sizes=(30,))
    regime, start = measured(estimator), ours(learning_rate=0.0, hidden_layer_sizes=(30,), max_iter=1).fit(X, y)
    curve = regime.estimator_.loss_curve_
    assert np.argmin(curve) < len(curve) - 1
    change = regime.estimator_.weights_["0.weight"] - start.weights_["0.weight"]
    assert regime.weight_change_["0"] == pytest.approx(np.linalg.norm(change), rel=1e-5)


def test_course_of_the_training():
    regime = measured(ours(max_iter=9))
    history = regime.history_
    assert history["epoch"] == [1, 2, 4, 8, 9]
    assert history["train_loss"] == pytest.approx([regime.estimator_.loss_curve_[e - 1] for e in history["epoch"]])
    assert history["kernel_alignment"][-1] == regime.kernel_alignment_
    for name in ("relative_weight_change", "representation_alignment", "sign_similarity"):
        assert history[name][-1] == pytest.approx(np.mean(list(getattr(regime, f"{name}_").values())))
    assert history["kernel_alignment"][0] > history["kernel_alignment"][-1]
    assert measured(ours(max_iter=4)).history_["epoch"] == [1, 2, 4]


@pytest.mark.parametrize("measure", ["weight", "kernel", "representation", "sign"])
def test_only_what_is_asked_for_is_measured(measure):
    regime = measured(ours(), measures=[measure])
    there = [name for name in ALL if hasattr(regime, name)]
    assert there == [name for name in ALL if name.startswith(measure) or (measure == "weight" and "weight" in name)]
    assert hasattr(regime, "effective_rank_") == (measure == "weight")
    everything = measured(ours())
    assert all(getattr(regime, name) == getattr(everything, name) for name in there)


def test_probabilities_of_skorch_are_compared_by_their_logits():
    """The criterion of skorch's classifier takes probabilities: their kernel would be another one."""
    logits = measured(skorch(layers(dropout=0.0)), ROWS)
    probable = measured(skorch(layers(dropout=0.0, last=[nn.Softmax(1)]), criterion=nn.NLLLoss), ROWS)
    assert probable.kernel_alignment_ == pytest.approx(logits.kernel_alignment_, abs=1e-4)


def test_dropout_and_batch_norm_are_in_eval_mode():
    """Else two views of one network would differ."""
    parts = [nn.Linear(4, 8), nn.BatchNorm1d(8, momentum=0.0), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 3)]
    frozen = measured(skorch(nn.Sequential(*parts), lr=0.0), 5 * ROWS + 3)
    assert frozen.kernel_alignment_ == pytest.approx(1, abs=1e-6)
    assert set(frozen.sign_similarity_.values()) == {1.0}


def test_probe_rows_are_drawn_once_and_by_class():
    X_rare = np.vstack([X, X[100:] + 0.01])
    rare = np.array([0] * 50 + [1] * 50 + [2] * 100)
    seen = []

    class Watched(LearningRegime):
        pass

    from sklowrank.inspection import _learning_regime as module

    with pytest.MonkeyPatch.context() as patch:
        plain = module.rows_at
        patch.setattr(module, "rows_at", lambda X, at: seen.append(at) or plain(X, at))
        for seed in (0, 0, 1):
            Watched(ours(max_iter=1), probe_size=40, random_state=seed).fit(X_rare, rare)
        measured(ours(NetworkRegressor, max_iter=1), X, X[:, 0], probe_size=40)
    assert len(seen) == 4  # once in each fit
    assert np.array_equal(seen[0], seen[1])
    assert not np.array_equal(np.sort(seen[0]), np.sort(seen[2]))
    assert all(len(np.unique(at)) == 40 for at in seen)
    assert [np.bincount(rare[at]).tolist() for at in seen[:3]] == [[10, 10, 20]] * 3


def test_one_probe_row_has_one_alignment():
    regime = measured(ours(NetworkRegressor), X, X[:, 0], probe_size=1)
    assert regime.kernel_alignment_ == 1
    assert set(regime.representation_alignment_.values()) == {1.0}
    full = measured(ours(NetworkRegressor), X, X[:, 0], probe_size=10**6)
    assert full.kernel_alignment_ < 1


def test_a_kernel_of_zeros_is_nan():
    class Dead(nn.Sequential):
        def __init__(self):
            super().__init__(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 3))
            with torch.no_grad():
                self[0].bias.fill_(-100.0)

    with pytest.warns(RuntimeWarning, match="The alignment is NaN: K is zero"):
        regime = measured(ours(module=Dead, max_iter=1))
    assert np.isnan(regime.kernel_alignment_)
    assert np.isnan(regime.representation_alignment_["0"])
    assert regime.sign_similarity_["0"] == 1


@pytest.mark.parametrize("method", ["jacobian", "sum"])
@pytest.mark.parametrize(
    ("model", "target"),
    [
        (make_pipeline(StandardScaler(), ours()), y),
        (make_pipeline(StandardScaler(), skorch()), y),
        (make_pipeline(ours(NetworkRegressor)), X[:, 0]),
        (skorch(layers(1), NeuralNetRegressor), ROWS[:, :1]),
        (skorch(callbacks=[EpochScoring("accuracy", name="right", on_train=True)]), y),
    ],
    ids=["pipeline", "pipeline with skorch", "regressor", "skorch, regressor", "skorch with callbacks"],
)
def test_what_is_taken(model, target, method):
    regime = measured(model, ROWS, target, kernel_method=method)
    assert 0 < regime.kernel_alignment_ <= 1
    assert len(regime.weight_change_) in (1, 2)
    assert min(regime.weight_change_.values()) > 0
    assert len(regime.predict(ROWS)) == len(ROWS)
    there = pickle.loads(pickle.dumps(regime))
    assert np.array_equal(there.predict(ROWS), regime.predict(ROWS))
    last = regime.estimator_[-1] if hasattr(regime.estimator_, "steps") else regime.estimator_
    names = [name for name, _ in getattr(last, "callbacks_", [])]
    assert "learning_regime" not in names
    if isinstance(last, NeuralNetClassifier | NeuralNetRegressor):
        assert [type(callback).__name__ for callback in last.callbacks or []] == ["EpochScoring"] * names.count(
            "EpochScoring"
        )
        last.partial_fit(ROWS, target)  # skorch goes on without us


@pytest.mark.parametrize(
    "model",
    [
        nn.Linear(4, 3),
        LinearRegression(),
        make_pipeline(StandardScaler(), LinearRegression()),
        FrozenEstimator(NetworkClassifier()),
        NetworkClassifier,
        None,
    ],
    ids=lambda model: type(model).__name__,
)
def test_what_cannot_be_trained_is_refused(model):
    with pytest.raises(TypeError, match=r"no network that can be trained\. Pass a NetworkClassifier"):
        LearningRegime(model).fit(X, y)


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"measures": ("weight", "mood")}, "measures has 'mood'"),
        ({"measures": []}, "measures is empty"),
        ({"layers": ["0", "7"]}, "layers has '7', but the layers of the network are '0', '2', '4'"),
        ({"layers": []}, "layers is empty"),
        ({"layers": "last"}, "'layers' parameter"),
        ({"probe_size": 0}, "'probe_size' parameter"),
        ({"estimator": skorch(callbacks="disable")}, "callbacks='disable' would disable the one that measures"),
        ({"estimator__hidden_layer_sizes": ()}, "the network has 1 linear or convolutional layers. Pass layers='all'"),
    ],
)
def test_wrong_parameters_name_the_cure(params, message):
    with pytest.raises(ValueError, match=message):
        LearningRegime(ours(max_iter=1)).set_params(**params).fit(X, y)


class Thinner(Rule):
    """Trains thin layers, and multiplies out what comes of the first one."""

    def __init__(self, rank=3):
        self.rank = rank

    def convert(self, module):
        return [
            edited(module, path, ThinLinear.nearest_to(layer, self.rank)) for path, layer in linear_layers(module)[:-1]
        ]

    def finish(self, module):
        path, layer = linear_layers(module)[0]
        return [edited(module, path, layer.multiplied_out())] if isinstance(layer, ThinLinear) else []


@pytest.mark.parametrize(
    "estimator", [ours(training=Thinner()), skorch(callbacks=[("rule", Thinner())])], ids=["ours", "skorch"]
)
def test_layers_that_a_rule_replaces_are_compared_multiplied_out(estimator):
    """The start is the network behind the conversion, which is of rank three."""
    regime = measured(estimator, ROWS)
    for before, after in regime.effective_rank_.values():
        assert 1 < before <= 3
        assert 1 < after <= 3
    assert 0 < regime.relative_weight_change_["0"] < 2
    assert 0 < regime.kernel_alignment_ < 1
    still = clone(estimator).set_params(
        **{"lr" if isinstance(estimator, NeuralNetClassifier) else "learning_rate": 0.0}
    )
    assert measured(still, ROWS).kernel_alignment_ == pytest.approx(1, abs=1e-6)  # however the layers are stored
    parameter = "estimator__training__rank" if hasattr(estimator, "training") else "estimator__callbacks__rule__rank"
    ranks = [measured(estimator.set_params(**{parameter.removeprefix("estimator__"): r}), ROWS) for r in (1, 2)]
    assert [r.effective_rank_["0"][0] for r in ranks] == pytest.approx([1, ranks[1].effective_rank_["0"][0]], abs=1e-4)
    assert ranks[1].effective_rank_["0"][0] > 1.01


def test_convolutions_are_layers():
    net = nn.Sequential(nn.Unflatten(1, (1, 4)), nn.Conv1d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(9, 3))
    regime = measured(ours(module=net))
    assert list(regime.weight_change_) == ["1"]
    assert 0 < regime.kernel_alignment_ < 1
    assert 0 < regime.representation_alignment_["1"] < 1


def test_searches_tune_what_is_inside():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        search = GridSearchCV(LearningRegime(ours(max_iter=2)), {"estimator__init_rank": [1, 12]}, cv=2).fit(X, y)
    assert search.best_estimator_.kernel_alignment_ <= 1


def test_an_interrupted_training_is_measured_where_skorch_goes_on():
    class Impatient(Callback):
        def on_epoch_end(self, net, **kwargs):
            if len(net.history) == 3:
                raise KeyboardInterrupt

    regime = measured(skorch(callbacks=[Impatient()]), ROWS)
    assert regime.history_["epoch"] == [1, 2]  # the third was not counted: its end was not reached
    assert regime.weight_change_["0"] > 0


@pytest.mark.cuda
def test_networks_on_a_gpu():
    there, here = (measured(ours(device=device)) for device in ("cuda", "cpu"))
    assert there.kernel_alignment_ == pytest.approx(here.kernel_alignment_, abs=0.02)
    assert np.isfinite(there.kernel_alignment_)
