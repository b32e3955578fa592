"""What every public estimator owes its user; an estimator is covered from the moment it is public."""

import copy
import os
import pickle
import random
import warnings
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import pandas as pd
import polars as pl
import pytest
import skops.io
import torch
from sklearn.base import clone
from sklearn.callback import ProgressBar, ScoringMonitor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils.estimator_checks import (
    check_dataframe_column_names_consistency,
    check_global_output_transform_pandas,
    check_global_set_output_transform_polars,
    check_n_features_in_after_fitting,
    check_param_validation,
    check_set_output_transform,
    check_set_output_transform_pandas,
    check_set_output_transform_polars,
    check_transformer_get_feature_names_out,
    check_transformer_get_feature_names_out_pandas,
    parametrize_with_checks,
)

from tests.common import answers, fit, needs_two_features, new_data, public_estimators, seeded, small_data

ESTIMATORS = public_estimators()
TRANSFORMERS = [e for e in ESTIMATORS if hasattr(e, "transform")]
each = pytest.mark.parametrize("estimator", ESTIMATORS, ids=lambda e: type(e).__name__)
each_iterative = pytest.mark.parametrize(
    "estimator", [e for e in ESTIMATORS if hasattr(e, "max_iter")], ids=lambda e: type(e).__name__
)


def same(a, b, **tolerance):
    """True where two dicts of answers agree."""
    return a.keys() == b.keys() and all(np.allclose(a[k], b[k], equal_nan=True, **tolerance) for k in a)


def test_the_search_finds_the_estimators():
    names = {type(e).__name__ for e in ESTIMATORS}
    assert {"MatrixCompletionImputer", "MatrixFactorizationRegressor"} <= names


def test_array_api_checks_are_switched_on():
    assert os.environ["SCIPY_ARRAY_API"] == "1"
    import array_api_strict  # noqa: F401  without it scikit-learn leaves out the checks too


@parametrize_with_checks(ESTIMATORS)
def test_scikit_learn_contract(estimator, check):
    check(estimator)


@pytest.mark.parametrize(
    "check",
    [check_param_validation, check_dataframe_column_names_consistency, check_n_features_in_after_fitting],
    ids=lambda c: c.__name__,
)
@each
def test_scikit_learn_extra_checks(estimator, check):
    check(type(estimator).__name__, clone(estimator))


@pytest.mark.parametrize(
    "check",
    [
        check_set_output_transform,
        check_set_output_transform_pandas,
        check_set_output_transform_polars,
        check_global_output_transform_pandas,
        check_global_set_output_transform_polars,
        check_transformer_get_feature_names_out,
        check_transformer_get_feature_names_out_pandas,
    ],
    ids=lambda c: c.__name__,
)
@pytest.mark.parametrize("estimator", TRANSFORMERS, ids=lambda e: type(e).__name__)
def test_scikit_learn_output_checks(estimator, check):
    check(type(estimator).__name__, clone(estimator))


@each
def test_init_stores_what_it_gets(estimator):
    params = estimator.get_params(deep=False)
    assert all(getattr(type(estimator)(**params), name) is value for name, value in params.items())


@each
def test_every_method_before_fit_says_so(estimator):
    X, _ = small_data(estimator)
    for name in ("transform", "predict", "embed", "score_samples", "recommend"):
        if hasattr(estimator, name):
            with pytest.raises(NotFittedError):
                getattr(clone(estimator), name)(X)


@each
def test_pickle_copy_and_clone(estimator):
    X, y = small_data(estimator)
    model = fit(seeded(estimator), X, y)
    expected = answers(model, new_data(estimator, X))
    for twin in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        assert same(expected, answers(twin, new_data(estimator, X)), rtol=0, atol=0)
    assert repr(clone(model).get_params()) == repr(model.get_params())


@each
def test_skops_round_trip_trusts_one_type(estimator):
    X, y = small_data(estimator)
    model = fit(seeded(estimator), X, y)
    stored = skops.io.dumps(model)
    unknown = skops.io.get_untrusted_types(data=stored)
    assert unknown == [f"{type(estimator).__module__}.{type(estimator).__name__}"]
    there = skops.io.loads(stored, trusted=unknown)
    assert same(answers(model, new_data(estimator, X)), answers(there, new_data(estimator, X)), rtol=0, atol=0)


@each
def test_no_torch_object_is_an_attribute(estimator):
    X, y = small_data(estimator)
    foreign = (torch.Tensor, torch.nn.Module, torch.Generator, torch.device, torch.dtype)
    model = fit(seeded(estimator), X, y)
    flat = [*vars(model).values(), *(v for d in vars(model).values() if isinstance(d, dict) for v in d.values())]
    assert not [value for value in flat if isinstance(value, foreign)]


@each
def test_same_seed_same_answers(estimator):
    X, y = small_data(estimator)
    once, twice = (answers(fit(seeded(estimator), X, y), new_data(estimator, X)) for _ in range(2))
    assert same(once, twice, rtol=0, atol=0)


@each
def test_global_state_is_left_alone(estimator):
    X, y = small_data(estimator)
    before = X.copy()
    numpy_state, torch_state, python_state = np.random.get_state(), torch.get_rng_state(), random.getstate()
    threads, dtype = torch.get_num_threads(), torch.get_default_dtype()
    answers(fit(seeded(estimator, **({"random_state": None} if hasattr(estimator, "random_state") else {})), X, y), X)
    assert np.array_equal(before, X)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert (threads, dtype) == (torch.get_num_threads(), torch.get_default_dtype())
    assert python_state == random.getstate()
    if not hasattr(estimator, "random_state"):  # None means numpy's global generator, as in scikit-learn
        assert np.array_equal(numpy_state[1], np.random.get_state()[1])


@each
def test_numpy_global_generator_is_left_alone_with_a_seed(estimator):
    X, y = small_data(estimator)
    state = np.random.get_state()
    answers(fit(seeded(estimator), X, y), new_data(estimator, X))
    after = np.random.get_state()
    assert np.array_equal(state[1], after[1])
    assert state[2] == after[2]


@each
def test_foreign_default_device_and_dtype(estimator):
    X, y = small_data(estimator)
    expected = answers(fit(seeded(estimator), X, y), new_data(estimator, X))
    with torch.device("meta"):  # a tensor made without device= would land here and break the fit
        there = answers(fit(seeded(estimator), X, y), new_data(estimator, X))
    assert same(expected, there, rtol=1e-10)
    previous = torch.get_default_dtype()
    torch.set_default_dtype(torch.float16)  # a tensor made without dtype= would lose nearly all digits
    try:
        there = answers(fit(seeded(estimator), X, y), new_data(estimator, X))
    finally:
        torch.set_default_dtype(previous)
    assert same(expected, there, rtol=1e-10)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("scale", [1e-25, 1e25])
@each
def test_scale_of_the_data(estimator, scale, dtype):
    """Answers stay as they are or scale with the data, squares with its square, log densities by a constant."""
    X, y = small_data(estimator, dtype)
    unit = answers(fit(seeded(estimator), X, y), new_data(estimator, X))
    penalty = {"C": estimator.C / scale**2} if hasattr(estimator, "C") else {}  # C has the units of X squared, inverted
    if hasattr(estimator, "bandwidth"):  # it has the units of X; "auto" is for standardised columns
        penalty["bandwidth"] = scale * (
            0.7 * X.shape[1] ** 0.5 if estimator.bandwidth == "auto" else estimator.bandwidth
        )
    scaled = answers(fit(seeded(estimator, **penalty), X * dtype(scale), y), new_data(estimator, X * dtype(scale)))
    for name, answer in unit.items():
        there, size = scaled[name].astype(np.float64), np.abs(answer).max()
        laws = [there, there / scale, there / scale**2, there + X.shape[1] * np.log(scale) * (name == "score_samples")]
        if not np.finfo(dtype).tiny < scale**2 < float(np.finfo(dtype).max):  # then squares are inf or 0, and no less
            laws.append(np.where(there == (np.inf if scale > 1 else 0), answer, np.inf))
        assert min(np.abs(law - answer).max() for law in laws) <= (0.02 if dtype is np.float32 else 1e-5) * size, name


@each
def test_float32_stays_and_agrees_with_float64(estimator):
    X, y = small_data(estimator, np.float32)
    single = answers(fit(seeded(estimator), X, y), new_data(estimator, X))
    X, y = X.astype(np.float64), None if y is None else y.astype(np.float64)
    double = answers(fit(seeded(estimator), X, y), new_data(estimator, X))
    for name, answer in single.items():
        if answer.dtype.kind == "f":
            assert answer.dtype == np.float32, name
            assert np.abs(answer - double[name]).max() <= 0.02 * np.abs(double[name]).max(), name


@pytest.mark.parametrize("case", ["one feature", "constant features", "duplicated rows", "one row repeated"])
@each
def test_degenerate_data_gives_finite_answers(estimator, case):
    X, y = small_data(estimator)
    if case == "one feature":
        X = X[:, :1]
    elif case == "constant features":
        X[:, 2:] = 7.0
    elif case == "duplicated rows":
        X = np.vstack([X, X])
        y = None if y is None else np.concatenate([y, y])
    else:
        X = np.repeat(X[:1], 20, axis=0)
        y = None if y is None else y[:20]
    model = seeded(estimator)
    if case == "one feature" and needs_two_features(estimator):
        with pytest.raises(ValueError, match=r"1 feature\(s\) .* minimum of 2 is required"):
            fit(model, X, y)
        return
    for name, answer in answers(fit(model, X, y), new_data(estimator, X)).items():
        assert np.isfinite(answer).all(), name


class Interrupt:
    """A callback that breaks off the fit after some steps, as an impatient user does."""

    def setup(self, estimator, context):
        self.steps = 0

    def teardown(self, estimator, context):
        pass

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context):
        self.steps += 1
        if self.steps == 3:
            raise KeyboardInterrupt


class Stop(Interrupt):
    """A callback that asks to stop after three steps."""

    def on_fit_task_end(self, estimator, context):
        self.steps += 1
        return self.steps == 3


@each_iterative
def test_interrupted_refit_leaves_the_former_fit_whole(estimator):
    X, y = small_data(estimator)
    model = fit(seeded(estimator), X, y)
    before = answers(model, new_data(estimator, X))
    model.set_callbacks(Interrupt())
    with pytest.raises(KeyboardInterrupt):
        fit(model, X[::-1] * 2, y)
    assert same(before, answers(model, new_data(estimator, X)), rtol=0, atol=0)


@each_iterative
def test_callback_stops_the_fit(estimator):
    X, y = small_data(estimator)
    assert fit(seeded(estimator).set_callbacks(Stop()), X, y).n_iter_ == 3


@each_iterative
def test_progress_bar_in_pipeline_and_grid_search(estimator, capsys):
    X, y = small_data(estimator)
    pipe = Pipeline([("same", FunctionTransformer()), ("model", seeded(estimator, tol=0.0, max_iter=12))])
    scoring = None if hasattr(estimator, "score") else lambda fitted, X, y=None: 0.0
    search = GridSearchCV(pipe, {"model__max_iter": [11, 12]}, cv=2, scoring=scoring, error_score="raise")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the sweeps are cut short
        search.set_callbacks(ProgressBar(max_propagation_depth=3)).fit(X, y)
        direct = fit(seeded(estimator, max_iter=12).set_callbacks(ProgressBar()), X, y)
    assert search.best_estimator_["model"].n_iter_ <= 12
    assert direct.n_iter_ <= 12
    assert type(estimator).__name__ in capsys.readouterr().out


@each_iterative
def test_scoring_monitor_sees_the_fit_improve(estimator):
    if not hasattr(estimator, "score"):
        pytest.skip("it has no score")
    X, y = small_data(estimator)
    X = new_data(estimator, X)
    monitor = ScoringMonitor(scoring={"score": own_score})
    model = seeded(estimator).set_callbacks(monitor)
    model.fit(X, np.zeros(len(X)) if y is None else y)
    scores = monitor.get_logs().data_as_pandas["score"].dropna()
    assert len(scores) >= model.n_iter_
    assert scores.iloc[-1] >= scores.iloc[0]


def own_score(fitted, X, y):
    """The estimator's own score, as a named scorer."""
    return fitted.score(X, y)


@each_iterative
def test_max_iter_reached_warns_with_the_cure(estimator):
    X, y = small_data(estimator)
    with pytest.warns(UserWarning, match=r"stopped at max_iter=1 .*tol=.*Raise max_iter or tol"):
        fit(seeded(estimator, max_iter=1), X, y)


@each_iterative
def test_verbose_prints_a_line_per_step(estimator, capsys):
    X, y = small_data(estimator)
    model = fit(seeded(estimator, verbose=1), X, y)
    assert capsys.readouterr().out.count(f"[{type(estimator).__name__}] step") == model.n_iter_


@each
def test_data_frames_of_both_kinds(estimator):
    X, y = small_data(estimator)
    names = [f"f{i}" for i in range(X.shape[1])]
    expected = answers(fit(seeded(estimator), X, y), X)
    for frame in (pd.DataFrame(X, columns=names, index=np.arange(len(X))[::-1]), pl.DataFrame(X, schema=names)):
        model = fit(seeded(estimator), frame, y)
        assert list(model.feature_names_in_) == names
        assert same(expected, answers(model, frame), rtol=1e-9)


@each
def test_unknown_device_names_the_cure(estimator):
    if "device" not in estimator.get_params():
        pytest.skip("it has no device")
    X, y = small_data(estimator)
    with pytest.raises(ValueError, match=r"device='warp'.*Use 'auto', 'cpu', 'cuda'"):
        fit(seeded(estimator, device="warp"), X, y)
    missing = f"cuda:{torch.cuda.device_count()}"
    with pytest.raises(ValueError, match=f"device='{missing}'.*device='auto' or 'cpu'"):
        fit(seeded(estimator, device=missing), X, y)


@each
def test_fits_in_threads_equal_serial_fits(estimator):
    """Four fits at a time, which share this process and its global state, give what each gives alone."""
    X, y = small_data(estimator)
    if "random_state" in estimator.get_params():
        models = [seeded(estimator, random_state=seed) for seed in range(4)]
    else:
        models = [clone(estimator) for _ in range(4)]
    X_new = new_data(estimator, X)
    alone = [answers(fit(clone(model), X, y), X_new) for model in models]
    numpy_state, torch_state = np.random.get_state(), torch.get_rng_state()
    with ThreadPoolExecutor(4) as pool, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # as for the others, but filters belong to the process
        beside = list(pool.map(lambda model: answers(fit(model, X, y), X_new), models))
    for one, other in zip(alone, beside):
        assert same(one, other, rtol=0, atol=0)
    assert torch.equal(torch_state, torch.get_rng_state())
    assert all(np.array_equal(a, b) for a, b in zip(numpy_state, np.random.get_state()))


@pytest.mark.parametrize(
    "mode", [torch.no_grad, torch.inference_mode, partial(torch.autocast, "cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)  # fmt: skip
@each
def test_modes_of_torch_around_a_fit_change_nothing(estimator, mode):
    X, y = small_data(estimator)
    expected = answers(fit(seeded(estimator), X, y), new_data(estimator, X))
    with mode():
        there = answers(fit(seeded(estimator), X, y), new_data(estimator, X))
    assert same(expected, there, rtol=0, atol=0)
