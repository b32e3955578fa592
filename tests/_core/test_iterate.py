"""The one loop: when it stops, what it reports, what it warns of."""

import warnings

import pytest
from joblib import Parallel, delayed
from sklearn.base import BaseEstimator
from sklearn.callback import CallbackSupportMixin
from sklearn.exceptions import ConvergenceWarning

from sklowrank._core.compat import _fit_context
from sklowrank._core.iterate import Step, drive


class Halving(CallbackSupportMixin, BaseEstimator):
    """Halves a gap until `drive` has had enough."""

    _parameter_constraints = {}

    def __init__(self, max_iter=50, tol=0.1, verbose=0, ends_after=None):
        self.max_iter, self.tol, self.verbose, self.ends_after = max_iter, tol, verbose, ends_after

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X=None, y=None):
        self.run_ = drive(self, self._steps(), attributes=lambda state: {"state_": state}, X=X, y=y)
        return self

    def _steps(self):
        gap = 1.0
        while self.ends_after is None or gap > 2.0**-self.ends_after:
            gap /= 2
            yield Step(state=gap, gap=gap, loss=2 * gap)


def test_stops_at_tol_and_collects_the_losses():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        run = Halving(tol=0.1).fit().run_
    assert (run.state, run.n_iter) == (2.0**-4, 4)
    assert run.loss_curve == [1.0, 0.5, 0.25, 0.125]


def test_max_iter_warns_at_the_line_of_the_user():
    with pytest.warns(ConvergenceWarning, match=r"Halving stopped at max_iter=2 .* 2.5e-01, above tol=1.0e-01") as seen:
        assert Halving(max_iter=2).fit().run_.n_iter == 2
    assert seen[0].filename == __file__


def test_also_where_a_search_lies_between():
    with pytest.warns(ConvergenceWarning) as seen:
        Parallel(n_jobs=1)(delayed(Halving(max_iter=2).fit)() for _ in range(2))
    assert {warning.filename for warning in seen} == {__file__}


def test_a_solver_that_ends_by_itself_has_converged():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert Halving(max_iter=9, tol=0.0, ends_after=3).fit().run_.n_iter == 3


def test_verbose_prints_each_step(capsys):
    Halving(verbose=1).fit()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0] == "[Halving] step 1: gap 5.0e-01, loss 1"


class Recorder:
    """A callback that keeps what it is shown of each step."""

    def setup(self, estimator, context):
        self.states, self.ended = [], 0

    def teardown(self, estimator, context):
        self.torn_down = True

    def on_fit_task_begin(self, estimator, context):
        pass

    def on_fit_task_end(self, estimator, context, *, fitted_estimator=None):
        self.states.append(fitted_estimator.state_)
        return len(self.states) == 3


def test_callbacks_see_the_state_of_each_step_and_can_stop():
    recorder = Recorder()
    run = Halving(tol=0.0).set_callbacks(recorder).fit().run_
    assert run.n_iter == 3
    assert recorder.states == [0.5, 0.25, 0.125, 0.125]  # each step, then the fit as a whole
    assert recorder.torn_down


def test_a_gap_that_could_not_be_measured_is_not_called_infinite(capsys):
    class Late(Halving):
        def _steps(self):
            while True:
                yield Step(state=0, gap=float("inf"), loss=2.0)

    with pytest.warns(ConvergenceWarning, match=r"stopped at max_iter=2 before it could measure .*tol=1.0e-01") as seen:
        Late(max_iter=2, verbose=1).fit()
    assert "inf" not in str(seen[0].message)
    assert capsys.readouterr().out.splitlines()[0] == "[Late] step 1: loss 2"


class Closing(Halving):
    """Notes when its solver is closed, outside of itself: a fit that fails leaves no attribute."""

    closed: list[bool] = []

    def _steps(self):
        try:
            yield from super()._steps()
        finally:
            self.closed.append(True)


@pytest.mark.parametrize("way", ["tol", "max_iter", "by itself", "callback", "error"])
def test_the_solver_is_closed_however_the_loop_ends(way):
    Closing.closed.clear()
    model = Closing(
        max_iter=3 if way == "max_iter" else 50, tol=0.1 if way == "tol" else 0.0, ends_after=3 if "self" in way else 40
    )
    if way == "callback":
        model.set_callbacks(Recorder())
    if way == "error":
        recorder = Recorder()
        recorder.on_fit_task_end = lambda *args, **kwargs: 1 / 0
        with pytest.raises(ZeroDivisionError):
            model.set_callbacks(recorder).fit()
    else:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ConvergenceWarning)
            model.fit()
    assert Closing.closed == [True]
