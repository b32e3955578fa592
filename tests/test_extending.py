"""The estimator of the page on extending keeps what the page says of it."""

import dask.array as da
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.utils.estimator_checks import parametrize_with_checks

from examples.principal_axes import PrincipalAxes
from sklowrank import distributed


@parametrize_with_checks([PrincipalAxes()])
def test_scikit_learn_contract(estimator, check):
    check(estimator)


def test_axes_are_those_of_pca_also_on_a_cluster():
    X = np.random.default_rng(0).normal(size=(500, 6)) * np.arange(1, 7) + 5
    model = PrincipalAxes(2).fit(X)
    expected = PCA(2).fit(X)
    assert np.allclose(np.abs(np.sum(model.components_ * expected.components_, axis=1)), 1)
    assert np.allclose(model.mean_, X.mean(0))
    there = distributed.fit(PrincipalAxes(2), da.from_array(X, chunks=(120, 4)))
    assert np.allclose(model.components_, there.components_)
    with pytest.raises(ValueError, match="n_components=7 is too large for n_features=6"):
        PrincipalAxes(7).fit(X)
