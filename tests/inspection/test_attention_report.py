"""The report on queries and keys."""

from math import comb, log

import numpy as np
import pytest
import torch

from sklowrank.inspection import attention_report
from sklowrank.neural import linear_attention


def draw(seed, n=60, width=3):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, width)) / 3, rng.normal(size=(2 * n, width)) / 3 + 1, rng.normal(size=(2 * n, 2))


@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_the_bound_holds_and_is_met_by_no_lower_degree(scale):
    for seed in range(30):
        Q, K, V = draw(seed)
        report = attention_report(Q, K, V, tol=1e-2, scale=scale)
        w = np.exp(scale * Q @ K.T)
        near = linear_attention(*map(torch.from_numpy, (Q, K, V)), degree=report["degree"], scale=scale).numpy()
        assert np.abs(near - w @ V / w.sum(1, keepdims=True)).max() <= report["output_bound"]
        assert report["output_bound"] <= 1e-2 * np.ptp(V, axis=0).max() / 2
        assert np.abs(scale * Q @ (K - K.mean(0)).T).max() <= report["max_logit_bound"]


def test_figures_of_a_report():
    Q, K, V = draw(0)
    report, centred = attention_report(Q, K, V, scale=2.0), K - K.mean(0)
    assert (report["n_queries"], report["n_keys"], report["width"]) == (60, 120, 3)
    assert report["max_query_entry"] == pytest.approx(2 * np.abs(Q).max())
    assert report["max_key_entry"] == pytest.approx(np.abs(centred).max())
    assert report["sqrt_log_length"] == pytest.approx(log(120) ** 0.5)
    norms = np.linalg.norm(Q, axis=1).max() * np.linalg.norm(centred, axis=1).max()
    assert report["max_logit_bound"] == pytest.approx(2 * norms)
    m = comb(3 + report["degree"], 3)
    assert report["n_features"] == m
    assert report["cost_ratio"] == pytest.approx((60 + 120) * m * 3 / (60 * 120 * (3 + 2)))
    equal = attention_report(*np.random.default_rng(0).normal(size=(2, round(2 * m * 3 / 5), 3)) / 9, tol=1e-2)
    assert report["break_even_length"] == pytest.approx(2 * m * 3 / 5)
    assert equal["cost_ratio"] == pytest.approx(equal["break_even_length"] / equal["n_keys"])


def test_what_does_not_change_and_what_does():
    Q, K, V = draw(0)
    one, other = attention_report(Q, K, V), attention_report(Q, K + 100, V)
    assert one == pytest.approx(other, rel=1e-9)
    strict = attention_report(Q, K, V, tol=1e-6)
    assert strict["degree"] > one["degree"]
    assert strict["break_even_length"] > one["break_even_length"]
    assert attention_report(Q, K)["output_bound"] is None
    assert attention_report(torch.from_numpy(Q), torch.from_numpy(K).requires_grad_(), V) == one


def test_large_logits_have_no_degree():
    Q, K, V = draw(0)
    report = attention_report(30 * Q, 30 * K, V)
    names = ("degree", "n_features", "relative_error", "output_bound", "cost_ratio", "break_even_length")
    assert [report[name] for name in names] == [None] * 6


def test_shapes_that_do_not_fit_are_named():
    Q, K, V = draw(0)
    with pytest.raises(ValueError, match="equal width"):
        attention_report(Q, K[:, :2])
    with pytest.raises(ValueError, match="V has 5 rows, and K has 120"):
        attention_report(Q, K, V[:5])
    with pytest.raises(ValueError, match="Input K contains NaN"):
        attention_report(Q, np.full_like(K, np.nan))
