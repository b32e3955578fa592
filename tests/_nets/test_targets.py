"""Targets of networks."""

import warnings

import numpy as np
import torch

from sklowrank._core.workspace import open_workspace
from sklowrank._nets.targets import log_probabilities, values_head


def test_values_that_cannot_be_written_are_read_without_a_warning():
    y = np.arange(6.0)
    y.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head, _ = values_head(y)
        assert head.encode(y).shape == (6, 1)
    assert np.array_equal(y, np.arange(6.0))


def test_logarithms_of_probabilities_agree_with_them_and_are_finite():
    outputs = torch.tensor([[0.0, 17.5], [0.0, 15.0], [0.0, 900.0], [1.0, 1.0]], dtype=torch.float64)
    for dtype in (np.float32, np.float64):
        ws = open_workspace(np.zeros((4, 1), dtype))
        found, probabilities = log_probabilities(outputs, ws), ws.answer(outputs.softmax(1))
        assert found.dtype == dtype
        assert np.isfinite(found).all()
        np.testing.assert_array_equal(found == 0, probabilities == 1)
        assert found[2, 0] == -900
        np.testing.assert_allclose(np.exp(found), probabilities, rtol=1e-6)
