"""The doubly stochastic membership: its sums, its gradients, its entropy, and the clusters read off it."""

import numpy as np
import pytest
import torch
from scipy.special import logsumexp

from sklowrank.cluster._membership import (
    ClusteringOptions,
    StoredCodes,
    assign_rows,
    balanced_eta,
    find_clusters,
    kernel_of,
    leading_eigenvectors,
    log_masses,
    main_directions,
    membership,
    perplexity,
    project,
)

RULE = ClusteringOptions(0.2, "signed", "spectral", 0.5)


def codes(n, d=16, spread=None, n_clusters=5, seed=0, dtype=torch.float64):
    """Unit codes: anywhere, or `spread` around some directions."""
    rng = np.random.default_rng(seed)
    C = rng.normal(size=(n, d))
    if spread is not None:
        C = np.random.default_rng(99).normal(size=(n_clusters, d))[np.arange(n) % n_clusters] + spread * C
    return torch.from_numpy(C / np.linalg.norm(C, axis=1, keepdims=True)).to(dtype)


def in_logarithms(S, eta, n_sweeps):
    """The projection as it is written down: potentials, logarithms of sums, ten lines of numpy."""
    f = np.zeros(len(S))
    for _ in range(n_sweeps):
        f = (f - eta * logsumexp((S + f) / eta, axis=1)) / 2
    return np.exp((S + f[:, None] + f) / eta), f


@pytest.mark.parametrize("eta", [0.02, 0.2, 1.0])
@pytest.mark.parametrize("n_sweeps", [1, 10])
def test_sweeps_are_those_in_logarithms(eta, n_sweeps):
    C = codes(40)
    S = (C @ C.T).numpy()
    ours = project(kernel_of(C, eta, "signed"), n_sweeps)[0].numpy()
    theirs = in_logarithms(S - 1, eta, n_sweeps)[0]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("eta", [0.001, 0.05, 0.2, 1.0])
@pytest.mark.parametrize("spread", [None, 0.05], ids=["random", "tight"])
def test_sums_are_one(dtype, eta, spread):
    """Also for an eta at which exponentials of products over eta overflow."""
    C = codes(300, spread=spread, dtype=dtype)
    G, _ = project(kernel_of(C, eta, "signed"), 30)
    assert float((G.sum(1) - 1).abs().max()) <= (1e-5 if dtype is torch.float32 else 1e-8)
    torch.testing.assert_close(G, G.T, rtol=4 * torch.finfo(dtype).eps, atol=torch.finfo(dtype).tiny)
    G, _ = membership(C, eta, "signed")
    assert float((G.sum(0) - 1).abs().max()) <= 100 * torch.finfo(dtype).eps
    assert float(G.min()) >= 0


def test_gradients_through_the_sweeps():
    C = codes(9, 4).requires_grad_()
    target = codes(9, 9, seed=1)

    def entry(C):
        return (project(kernel_of(C, 0.3, "signed"), 10)[0] * target).sum()

    assert torch.autograd.gradcheck(entry, [C], atol=1e-6)


@pytest.mark.parametrize("eta", [0.3, 0.005])
@pytest.mark.parametrize("kernel", ["signed", "absolute"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_codes_of_zeros_have_a_membership(dtype, kernel, eta):
    """Without a direction they have no other row's; their own is left, so that sums do not vanish."""
    C = codes(20, dtype=dtype)
    C[[3, 7]] = 0
    G, u = membership(C, eta, kernel)
    assert bool(G.isfinite().all())
    assert bool(u.isfinite().all())
    np.testing.assert_allclose(G.sum(1).numpy(), 1, atol=1e-3)
    assert np.isfinite(leading_eigenvectors(G, 3, np.random.RandomState(0))).all()


def test_it_is_the_maximiser_of_product_and_entropy():
    """No other doubly stochastic matrix near it has more."""
    C, eta = codes(12, 4), 0.3
    G = membership(C, eta, "signed")[0].numpy()
    S = (C @ C.T).numpy()

    def value(G):
        return (S * G).sum() - eta * (G * np.log(G)).sum()

    rng = np.random.default_rng(0)
    for _ in range(20):
        i, j, k, m = rng.choice(12, 4, replace=False)
        for step in (1e-3, -1e-3):
            other = G.copy()
            other[[i, j], [k, m]] += step
            other[[i, j], [m, k]] -= step  # sums stay
            if other.min() > 0:
                assert value(other) < value(G)


def test_absolute_kernel_takes_opposite_codes_for_the_same():
    C = codes(30)
    C = torch.cat([C, -C])
    G = membership(C, 0.2, "absolute")[0]
    torch.testing.assert_close(G[:30, :30], G[:30, 30:])
    signed = membership(C, 0.2, "signed")[0]
    assert float(signed[:30, 30:].diagonal().max()) < 1e-3


def test_eta_spreads_a_row_over_as_many_as_a_balanced_cluster_has():
    C = codes(256, spread=0.3, n_clusters=8)
    eta = balanced_eta(C, 8, "signed")
    assert 0.02 < eta < 5
    assert perplexity(membership(C, eta, "signed")[0]) == pytest.approx(256 / 8, rel=0.02)
    assert perplexity(membership(C, 2 * eta, "signed")[0]) > 1.5 * 256 / 8
    assert balanced_eta(C, 5, "signed") == 0.3  # few clusters


@pytest.mark.parametrize("n", [200, 500])
def test_leading_eigenvectors(n):
    """Both sides of the size from which Lanczos is used."""
    G = membership(codes(n, spread=0.4), 0.2, "signed")[0]
    V = leading_eigenvectors(G, 6, np.random.RandomState(0))
    values = np.linalg.eigvalsh(G.numpy())[::-1]
    np.testing.assert_allclose(np.diag(V.T @ G.numpy() @ V), values[:6], atol=1e-5)
    np.testing.assert_allclose(V.T @ V, np.eye(6), atol=1e-6)


@pytest.mark.parametrize("how", ["spectral", "kmeans"])
def test_clusters_of_tight_codes_are_found_and_new_rows_assigned(how):
    C, new = codes(400, spread=0.1), codes(50, spread=0.1, seed=1)
    y = np.arange(400) % 5
    rule = RULE._replace(assign_labels=how)
    known, n_clusters = find_clusters(C, C, [5], rule, np.random.RandomState(0))
    labels, known, n_clusters = assign_rows(C, known, n_clusters, rule)
    assert n_clusters == 5
    assert len({(a, b) for a, b in zip(y, labels.tolist())}) == 5  # one cluster per direction
    again = log_masses(new, known, 5, rule).argmax(1)
    assert torch.equal(again, labels[:50])


def test_masses_are_mean_kernels_towards_stored_codes():
    C, new = codes(30, spread=0.5), codes(4, seed=3)
    u = membership(C, 0.2, "signed")[1]
    owners = torch.arange(30) % 5
    expected = np.zeros((4, 5))
    for i in range(4):
        for k in range(5):
            mine = owners.numpy() == k
            expected[i, k] = np.mean(np.exp((C.numpy()[mine] @ new.numpy()[i] - 1) / 0.2) * u.numpy()[mine])
    ours = log_masses(new, StoredCodes(C, u, owners), 5, RULE)
    np.testing.assert_allclose(ours.exp(), expected, rtol=1e-10)


def test_at_most_256_codes_of_a_cluster_and_4000_rows_are_used():
    C = codes(4500, 8, spread=0.1, n_clusters=2, dtype=torch.float32)
    known, _ = find_clusters(C, C, [2], RULE, np.random.RandomState(0))
    assert torch.bincount(known.owners).tolist() == [256, 256]


def test_the_number_of_clusters_is_that_of_the_shortest_code():
    """Four directions at right angles, as the features of the fit are."""
    C = torch.eye(16, dtype=torch.float64)[torch.arange(300) % 4] + 0.1 * codes(300)
    C = C / C.norm(dim=1, keepdim=True)
    known, n_clusters = find_clusters(C, C, range(2, 9), RULE, np.random.RandomState(0))
    assert n_clusters == 4
    assert known.owners.max() == 3


def test_clusters_without_rows_go_and_the_rest_keep_their_numbers():
    C = codes(60, spread=0.05, n_clusters=3)
    y = torch.arange(60) % 3
    u = torch.ones(60, dtype=C.dtype)
    far = -C[:1]
    known = StoredCodes(torch.cat([C, far]), torch.cat([u, 1e-12 * u[:1]]), torch.cat([y, torch.tensor([3])]))
    labels, known, n_clusters = assign_rows(C, known, 4, RULE)
    assert n_clusters == 3
    assert known.owners.max() == 2
    assert len(known.codes) == len(known.scaling) == len(known.owners) == 60
    assert torch.equal(labels, y)
    former = np.array([2, 0, 1])[y.numpy()]
    renamed, known, _ = assign_rows(C, known, 3, RULE, former)
    assert np.array_equal(renamed.numpy(), former)
    assert np.array_equal(known.owners.numpy(), former)


def test_main_directions_hold_most_of_a_cluster():
    rng = np.random.default_rng(0)
    U = np.linalg.qr(rng.normal(size=(8, 8)))[0]
    flat = rng.normal(size=(50, 2)) @ U[:, :2].T
    C = torch.from_numpy(np.vstack([flat, np.tile(U[:, 4], (10, 1))]))
    labels = torch.tensor([0] * 50 + [1] * 10)
    plane, line = main_directions(C, labels, 2)
    assert plane.shape == (8, 2)
    assert line.shape == (8, 1)
    np.testing.assert_allclose(plane @ plane.T, U[:, :2] @ U[:, :2].T, atol=1e-9)
    np.testing.assert_allclose(plane.T @ plane, np.eye(2), atol=1e-12)
