"""Preconditioned conjugate gradients for the regressions of all rows at once."""

import torch


def conjugate_gradients(face, x, other, ridge, *, offsets, counts, other_counts, n_steps, tol=0.0):
    """Improve the penalised least-squares solutions x of all rows by at most `n_steps` steps.

    Only products with the pattern occur: nothing of the size of cells times factors is formed. The preconditioner is
    shared: the mean Gram matrix of the other side, times each row's number of cells, plus the ridge.

    Parameters
    ----------
    face : Face
        The cells seen from the rows.
    x : tensor of shape (m, d)
        Where to start: factors and, with `offsets`, the offset.
    other : tensor of shape (n, d)
        The same of the other side.
    ridge : tensor of shape (d,) or (m, d)
        Penalties.
    counts, other_counts : tensors of shape (m,) and (n,)
        Numbers of observations.
    tol : float
        Stop when every row's residual, in the norm of the preconditioner, has shrunk to this; 0 asks no questions and
        does not make a GPU wait.
    """
    f, P, F = other, x, other
    if offsets:
        one = torch.ones_like(other[:, :1])
        f = torch.cat([other[:, :-1], one], 1)
        P, F = torch.cat([x, torch.ones_like(x[:, :1])], 1), torch.cat([f, other[:, -1:]], 1)
    weight = other_counts.unsqueeze(1)
    e, Q = torch.linalg.eigh((weight * f).mT @ f / weight.sum().clamp_min(1))
    spectrum = (counts.unsqueeze(1) * e.clamp_min(0) + ridge).clamp_min(torch.finfo(x.dtype).tiny)

    r = face.residual(P, F) @ f - ridge * x
    z = ((r @ Q) / spectrum) @ Q.mT
    p, rz = z, (r * z).sum(1, keepdim=True)
    goal = tol**2 * rz
    for _ in range(n_steps):
        if tol and bool((rz <= goal).all()):
            break
        Ap = face.fit(p, f) @ f + ridge * p
        step = _ratio(rz, (p * Ap).sum(1, keepdim=True))
        x, r = x + step * p, r - step * Ap
        z = ((r @ Q) / spectrum) @ Q.mT
        old, rz = rz, (r * z).sum(1, keepdim=True)
        p = z + _ratio(rz, old) * p
    return x


def _ratio(a, b):
    """a / b, and 0 where b has run out: a row that has converged stays where it is."""
    return torch.where(b > torch.finfo(b.dtype).tiny, a / b, torch.zeros_like(a))
