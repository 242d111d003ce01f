"""One matrix for many right-hand sides is scaled and factorised once, and nothing else changes."""

from __future__ import annotations

import numpy as np
import pytest

import algebraformer as af
from algebraformer import problems
from algebraformer.models.inference import estimate_reader
from algebraformer.models.inference.estimate_reader import network_input, one_if_equal
from algebraformer.models.scaling import scale_systems
from algebraformer.numerics import nonnegative, regularization

pytestmark = pytest.mark.filterwarnings("ignore::algebraformer.errors.InconsistentWarning")


@pytest.fixture(scope="module")
def solver(estimate_run):
    return af.LearnedSolver.from_pretrained(estimate_run)


@pytest.fixture(scope="module")
def systems(solver):
    return solver.info.problem_family().sample(7, seed=3)


@pytest.mark.parametrize("encoding", ["column", "column-tikhonov"])
def test_what_is_read_is_the_same(solver, systems, encoding):
    config = solver.network.config.with_head(encoding=encoding)
    many = np.repeat(systems.A[:1], 7, axis=0)
    one, copies = scale_systems(systems.A[:1], systems.b), scale_systems(many, systems.b)
    np.testing.assert_array_equal(one.size, copies.size)
    for mine, theirs in zip(network_input(config, one), network_input(config, copies), strict=True):
        assert mine.shape == theirs.shape
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)


def test_it_is_factorised_once(solver, systems, monkeypatch):
    shapes, scale = [], scale_systems

    def counted(A, b):
        shapes.append(A.shape)
        return scale(A, b)

    monkeypatch.setattr(estimate_reader, "scale_systems", counted)
    found = solver.estimate(systems.A[0], systems.b.T)
    batch = solver.estimate(np.repeat(systems.A[:1], 7, axis=0), systems.b)
    assert shapes == [(1, 15, 12)] * 2
    np.testing.assert_array_equal(found.x.T, batch.x)
    solver.estimate(systems.A, systems.b)
    assert shapes[-1] == (7, 15, 12)
    for i in range(7):
        alone = solver.estimate(systems.A[0], systems.b[i])
        np.testing.assert_allclose(alone.x, found.x[:, i], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(alone.std, found.std[:, i], rtol=1e-4)
        assert (alone.consistent, alone.in_distribution) == (found.consistent[i], found.in_distribution[i])


@pytest.mark.parametrize("method", [regularization.cross_validated, nonnegative.batch_cross_validated])
def test_cross_validation_decomposes_it_once(systems, method, monkeypatch):
    shapes, svd = [], np.linalg.svd
    monkeypatch.setattr(np.linalg, "svd", lambda A, **options: (shapes.append(A.shape), svd(A, **options))[1])
    method(np.broadcast_to(systems.A[:1], (7, 15, 12)), systems.b, 0)
    assert shapes == [(1, 15, 12)]


def test_equal_or_not():
    A = problems.get("gravity", n=4, depth=(0.1, 0.1)).sample(3).A
    assert len(one_if_equal(A)) == len(one_if_equal(np.broadcast_to(A[:1], (9, 4, 4)))) == 1
    assert len(one_if_equal(A[:0])) == 0
    A[2, 3, 3] = np.nextafter(A[2, 3, 3], 1)
    assert len(one_if_equal(A)) == 3
