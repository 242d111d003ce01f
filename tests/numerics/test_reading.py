"""How much of the inverse the entries that are read leave open: against refits without each sample, and known cases."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg

from algebraformer.numerics import reading
from algebraformer.numerics.entry_sampler import EntrySampler, select_entries
from algebraformer.numerics.reading import reading_errors

N = 6


def of(parameters, *terms):
    """The family I + sum p_k B_k with given parameters (N, K)."""
    return lambda indices: np.eye(N) + np.tensordot(parameters[indices.start : indices.stop], np.array(terms), 1)


def everything(A):
    return select_entries(iter([A]), len(A), N, N, False)


def one_entry(A, i, j):
    """A sampler of the entry (i, j) and, as a measure of size, of (N - 1, N - 1)."""
    chosen = np.array([i, N - 1]), np.array([j, N - 1])
    E = A[:, chosen[0][:, None], chosen[1]]
    E = E / np.sqrt(np.mean(E**2, axis=(1, 2)))[:, None, None]
    std = E.std(axis=0)
    return EntrySampler(
        *chosen, np.ones((2, 2)), E.mean(axis=0), np.where(std > 1e-9, 1 / np.where(std > 0, std, 1), 0)
    )


def test_leaving_out_against_refits(monkeypatch):
    """Every sample left out in turn, and the equations solved again by SciPy."""
    rng = np.random.default_rng(3)
    z, Y = rng.standard_normal((15, 4)) * [1, 0.5, 0.2, 0.1], rng.standard_normal((15, 3))
    Y += np.sin(z[:, :3]) * 3
    monkeypatch.setattr(reading, "RIDGES", (1e-4, 1e-1))
    centred, Yc = z - z.mean(axis=0), Y - Y.mean(axis=0)
    U, S, _ = scipy.linalg.svd(centred, full_matrices=False)
    expected = []
    for power in (0.0, 0.5):
        f = U * S**power
        f = f / np.sqrt(np.mean(np.sum(f**2, axis=1)))
        distances = np.sum((f[:, None] - f) ** 2, axis=2)
        for K in ((1 + f @ f.T) ** 2, np.exp(-distances / 18)):
            for ridge in (1e-4, 1e-1):
                errors = []
                for i in range(15):
                    rest = np.delete(np.arange(15), i)
                    K_rest = K[np.ix_(rest, rest)] + ridge * scipy.linalg.eigvalsh(K)[-1] * np.eye(14)
                    errors.append(np.sum((K[i, rest] @ scipy.linalg.solve(K_rest, Yc[rest]) - Yc[i]) ** 2))
                expected.append(np.sqrt(np.median(errors) / np.mean(np.sum(Yc**2, axis=1))))
    assert reading._left_open(z, Y) == pytest.approx(min(expected), rel=1e-6)


def test_what_is_not_read_is_left_open():
    """Two terms of equal size and unrelated parameters: reading one leaves half of the variance, both nothing."""
    first, second = np.zeros((N, N)), np.zeros((N, N))
    first[0, 1] = second[2, 3] = 1.0
    p = np.random.default_rng(0).uniform(-1, 1, (300, 2)) * np.sqrt(3)
    sample = of(p, first, second)
    A = sample(range(300))
    half, whole = reading_errors(sample, N, [one_entry(A, 0, 1), everything(A)], 300)
    assert half == pytest.approx(np.median(np.abs(p[:, 1])) / np.sqrt(2), rel=0.2)
    assert whole < 1e-5


def test_a_family_of_one_matrix_and_a_reading_of_nothing():
    p = np.random.default_rng(0).uniform(-1, 1, (40, 1))
    term = np.zeros((N, N))
    term[0, 1] = 1.0
    A = of(p, term)(range(40))
    assert reading_errors(of(p, term), N, [one_entry(A, 3, 3)], 40)[0] > 0.5
    constant = of(0 * p, term)
    assert reading_errors(constant, N, [everything(constant(range(40)))], 40) == [0.0]


def test_equal_matrices_count_once():
    """Matrices that have nothing in common, each drawn many times: a copy of the one left out would tell it."""
    matrices = np.eye(N) + 0.2 * np.random.default_rng(1).standard_normal((12, N, N))
    A = matrices[np.random.default_rng(2).integers(12, size=200)]
    (error,) = reading_errors(lambda part: A[part.start : part.stop], N, [everything(A)], 200)
    assert error > 0.8
