"""Targets of networks."""

import warnings

import numpy as np

from sklowrank._nets.targets import values_head


def test_values_that_cannot_be_written_are_read_without_a_warning():
    y = np.arange(6.0)
    y.flags.writeable = False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        head, _ = values_head(y)
        assert head.encode(y).shape == (6, 1)
    assert np.array_equal(y, np.arange(6.0))
