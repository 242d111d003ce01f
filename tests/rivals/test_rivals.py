"""The classical ways against NumPy and SciPy, which of them a family gets, and how they are judged and timed."""

from __future__ import annotations

import itertools
import multiprocessing
import time

import numpy as np
import pytest
import scipy.linalg
import scipy.sparse.linalg
from threadpoolctl import threadpool_info, threadpool_limits

from algebraformer import problems, rivals, threads
from algebraformer.linalg import EPS, backward_error
from algebraformer.rivals import Rival, Structure, direct, iterative, rivals_for, timing

RNG = np.random.default_rng(0)
N = 12


def general(count=5, n=N, kind=float):
    """Return well-conditioned matrices and right-hand sides."""
    A = RNG.standard_normal((count, n, n)) + 3 * np.sqrt(n) * np.eye(n)
    b = RNG.standard_normal((count, n))
    if kind is complex:
        A, b = A + 1j * RNG.standard_normal(A.shape), b + 1j * RNG.standard_normal(b.shape)
    return A, b


def definite(count=5, n=N, kind=float):
    A, b = general(count, n, kind)
    return A @ A.conj().swapaxes(1, 2), b


def banded(lower, upper, count=4, n=N, kind=float):
    A, b = general(count, n, kind)
    return np.triu(np.tril(A, upper), -lower), b


def solution(A, b):
    return np.linalg.solve(A, b[..., None])[..., 0]


def names(structure, **options):
    return {way.name for way in rivals_for(structure, **options)}


# ---------------------------------------------------------------- the ways


@pytest.mark.parametrize("kind", [float, complex])
@pytest.mark.parametrize("way", ["numpy_lu", "scipy_lu"])
def test_batched_lu(way, kind):
    A, b = general(kind=kind)
    np.testing.assert_allclose(getattr(direct, way)(A, b), solution(A, b), rtol=1e-12)


@pytest.mark.parametrize("kind", [float, complex])
@pytest.mark.parametrize("way", ["lu", "float32_lu", "cholesky"])
def test_one_matrix(way, kind):
    A, b = definite(kind=kind)
    before = A.copy(), b.copy()
    x = direct.one_by_one(getattr(direct, way))(A, b)
    np.testing.assert_allclose(x, solution(A, b), rtol=1e-10)
    np.testing.assert_array_equal(A, before[0])
    np.testing.assert_array_equal(b, before[1])


def test_lu_of_a_matrix_without_symmetry_with_several_right_hand_sides():
    A, _ = general()
    b = RNG.standard_normal((N, 3))
    for way in (direct.lu, direct.float32_lu):
        np.testing.assert_allclose(way(A[0], b), np.linalg.solve(A[0], b), rtol=1e-11)


@pytest.mark.parametrize("way", [direct.float32_lu, direct.float32_cholesky])
def test_float32_is_refined_to_the_certificate(way):
    A, b = problems.get("kernel", n=36).assembled(range(4))[:2]
    x = direct.one_by_one(way)(A, b)
    coarse = np.linalg.solve(A.astype(np.float32), b.astype(np.float32)[..., None]).astype(float)
    assert backward_error(A, b[..., None], x[..., None]).max() <= 36 * EPS
    assert backward_error(A, b[..., None], coarse).min() > 1e3 * 36 * EPS


def test_float32_takes_a_tolerance():
    A, b = definite()
    x = direct.float32_lu(A[0], b[0], rtol=1e-3)
    residual = np.linalg.norm(b[0] - A[0] @ x) / np.linalg.norm(b[0])
    assert 1e-9 < residual < 1e-3


@pytest.mark.parametrize("way", [direct.float32_lu, direct.float32_cholesky])
def test_what_float32_cannot_factorise_is_solved_in_float64(way):
    """A Hilbert matrix of condition 1e13, and entries beyond float32."""
    for A in (scipy.linalg.hilbert(10), 1e60 * np.diag(np.arange(1.0, 11))):
        x = way(A, A.sum(axis=1))
        assert backward_error(A, A.sum(axis=1)[:, None], x[:, None])[0] < 10 * EPS


@pytest.mark.parametrize("kind", [float, complex])
@pytest.mark.parametrize(("lower", "upper"), [(0, 0), (1, 2), (3, 0), (0, 2), (4, 1)])
def test_banded_lu(lower, upper, kind):
    A, b = banded(lower, upper, kind=kind)
    np.testing.assert_allclose(direct.banded_lu(lower, upper)(A, b), solution(A, b), rtol=1e-11)
    kept = direct.diagonals(A, lower, upper)[0].T
    np.testing.assert_allclose(scipy.linalg.solve_banded((lower, upper), kept, b[0]), solution(A, b)[0], rtol=1e-11)


@pytest.mark.parametrize("kind", [float, complex])
def test_banded_cholesky(kind):
    A, b = definite(kind=kind)
    band = np.triu(np.tril(A, 2), -2) + 100 * N * np.eye(N)
    np.testing.assert_allclose(direct.banded_cholesky(2)(band, b), solution(band, b), rtol=1e-11)


@pytest.mark.parametrize("way", [direct.cholesky, direct.lu])
def test_a_failed_factorisation_is_an_error(way):
    with pytest.raises(np.linalg.LinAlgError, match="singular"):
        way(np.diag([1.0, 0.0, -1.0]), np.ones(3))
    for banded_way in (direct.banded_lu(1, 1), direct.banded_cholesky(1)):
        with pytest.raises(np.linalg.LinAlgError, match="singular"):
            banded_way(np.zeros((1, 3, 3)), np.ones((1, 3)))


def test_scaled_mean_inverse_is_exact_for_scaled_means():
    """A = D Abar D: one step."""
    mean = definite(1)[0][0]
    d = np.exp(RNG.standard_normal((3, N, 1)))
    A = d * mean * d.swapaxes(1, 2)
    M = iterative.ScaledMeanInverse.of(A, mean.diagonal(), np.linalg.inv(mean))
    identity = np.broadcast_to(np.eye(N), A.shape)
    np.testing.assert_allclose(M.right(M.left(identity)), np.linalg.inv(A), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(M[np.array([2])].right(identity[:1])[0], np.diag(1 / d[2, :, 0]), rtol=1e-12)


@pytest.mark.parametrize("name", ["mean_inverse", "scaled_mean_inverse", "scaled_conjugate_gradients"])
def test_refinement_with_the_mean(name):
    systems = problems.get("kernel", n=36, length_scale=(0.3, 0.4)).sample(20, seed=1)
    mean = systems.A.mean(axis=0)
    arguments = (np.linalg.inv(mean),) if name == "mean_inverse" else (mean.diagonal(), np.linalg.inv(mean))
    x = getattr(iterative, name)(*arguments)(systems.A, systems.b)
    assert backward_error(systems.A, systems.b[..., None], x[..., None]).max() <= 36 * EPS
    loose = getattr(iterative, name)(*arguments, rtol=1e-4)(systems.A, systems.b)
    residual = np.linalg.norm(systems.b - (systems.A @ loose[..., None])[..., 0], axis=1)
    assert 1e-9 < np.max(residual / np.linalg.norm(systems.b, axis=1)) <= 1e-4


def test_conjugate_gradients_against_scipy():
    """As many steps as SciPy's with the same preconditioner, and zero for b = 0."""
    A, b = definite(1, 40)
    mean = A[0] + 0.3 * np.diag(np.arange(40.0))
    M = iterative.ScaledMeanInverse.of(A, mean.diagonal(), np.linalg.inv(mean))
    dense = M.right(M.left(np.eye(40)[None]))[0]
    steps = itertools.count()
    x, info = scipy.sparse.linalg.cg(A[0], b[0], M=dense, rtol=1e-14, callback=lambda _: next(steps))
    found = iterative.conjugate_gradients(A, 2.0**700 * b[:, :, None], M, None, 60)
    assert info == 0
    assert found.certified.all()
    np.testing.assert_allclose(found.x[0, :, 0], 2.0**700 * x, rtol=1e-8)
    assert not iterative.conjugate_gradients(A, b[:, :, None], M, None, next(steps) // 3).certified.any()
    zero = iterative.conjugate_gradients(A, 0 * b[:, :, None], M, None, 60)
    assert zero.certified.all()
    assert not zero.x.any()


def test_what_does_not_converge_is_solved_by_lu(monkeypatch):
    A, b = general()
    useless = np.diag((-1.0) ** np.arange(N))
    monkeypatch.setattr(iterative, "MAX_REFINEMENTS", 2)
    np.testing.assert_allclose(iterative.mean_inverse(useless)(A, b), solution(A, b), rtol=1e-12)
    x = iterative.refined(lambda A: iterative.MeanInverse(useless), fallback=False)(A, b)
    assert np.linalg.norm(x - solution(A, b)) > 1e-3


# ---------------------------------------------------------------- the pool


def test_pool_splits_the_batch_and_leaves_one_thread_of_blas():
    seen = []

    def way(A, b):
        seen.append((len(A), {lib["num_threads"] for lib in threadpool_info() if lib["user_api"] == "blas"}))
        return 2 * b

    b = np.arange(5.0)[:, None]
    with threadpool_limits(2, "blas"):
        np.testing.assert_array_equal(rivals.pooled(way)(np.ones((5, 1, 1)), b), 2 * b)
        assert sorted(seen) == ([(2, {1}), (3, {1})] if threads.processors() > 1 else [(5, {1})])
        seen.clear()
        rivals.pooled(way)(np.ones((1, 1, 1)), b[:1])
        assert seen == [(1, {1})]


def test_pool_follows_the_limit():
    seen = []
    with threadpool_limits(1, "blas"):
        rivals.pooled(lambda A, b: seen.append(len(A)) or b)(np.ones((4, 1, 1)), np.ones((4, 1)))
    assert seen == [4]


def in_child(queue):
    queue.put(rivals.pooled(direct.numpy_lu)(np.stack([np.eye(2)] * 4), np.ones((4, 2))).tolist())


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")  # of Python 3.12, about every pool
def test_pool_in_a_child_that_was_forked():
    with threadpool_limits(2, "blas"):
        rivals.pooled(direct.numpy_lu)(np.stack([np.eye(2)] * 4), np.ones((4, 2)))
        context = multiprocessing.get_context("fork")
        queue = context.SimpleQueue()
        child = context.Process(target=in_child, args=(queue,))
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert queue.get() == [[1.0, 1.0]] * 4


# ---------------------------------------------------------------- which ways apply


def test_structure_of_parts():
    A, B = banded(2, 1, n=20)[0], banded(0, 3, n=20)[0]
    found = Structure.of([A, 5 * B])
    assert (found.lower, found.upper, found.n, found.is_banded) == (2, 3, 20, True)
    unit = [M / np.linalg.norm(M) for M in (*A, *B)]
    np.testing.assert_allclose(found.mean, np.mean(unit, axis=0), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(found.inverse() @ found.mean, np.eye(20), atol=1e-9)
    assert Structure.of([A, general(n=20)[0]]).is_banded is False


def test_definite_is_every_matrix():
    A = definite()[0]
    assert Structure.of([A]).positive_definite
    assert Structure.of([definite(kind=complex)[0]]).positive_definite
    assert not Structure.of([A, -A]).positive_definite
    assert not Structure.of([A + np.triu(1e-9 * A)]).positive_definite  # more than rounding
    assert Structure.of([A * (1 + EPS * np.triu(np.ones((N, N))))]).positive_definite


def test_a_singular_mean_has_no_inverse():
    rank_one = np.ones((1, 3, 3))
    for mean in (np.diag([1.0, 0.0, 1.0])[None], rank_one):
        structure = Structure.of([mean])
        assert structure.inverse() is None
        assert not any("mean" in name for name in names(structure))


def test_ways_by_structure():
    plain = {"numpy.linalg.solve", "scipy.linalg.solve", "dgesv", "float32 LU + refinement"}
    mean = {"mean inverse + conjugate residuals", "scaled mean inverse + conjugate residuals"}
    cases = [
        (general()[0], plain | mean),
        (general()[0] * (1 - np.eye(N)), plain | mean - {"scaled mean inverse + conjugate residuals"}),
        (banded(1, 1)[0], plain | mean | {"banded LU"}),
        (
            definite()[0],
            plain | mean | {"dposv", "float32 Cholesky + refinement", "scaled mean inverse + conjugate gradients"},
        ),
        (np.stack([np.eye(N)]), {"banded LU", "banded Cholesky"}),
        (general(kind=complex)[0], (plain - {"dgesv"}) | mean | {"zgesv"}),
        (definite(kind=complex)[0], (plain - {"dgesv"}) | mean | {"zgesv", "zposv"}),
    ]
    for A, expected in cases:
        found = names(Structure.of([A]))
        assert expected <= found
        assert {f"{name}, pool" for name in expected} <= found
        if len(expected) > 2:
            assert len(found) == 2 * len(expected)


@pytest.mark.parametrize("name", ["diffusion", "kernel", "stiff-jacobian", "diffusion-2d", "helmholtz"])
def test_every_way_solves_its_family(name):
    family = problems.get(name, n=36)
    structure = Structure.of([family.assembled(range(30), 5)[0]])
    systems = family.sample(6, seed=6)
    for way in rivals_for(structure):
        found = rivals.accuracy(way.solve, systems.A, systems.b, systems.x)
        assert found.counts, way.name
        assert found.relative_error_max < 1e-6, way.name
    assert structure.is_banded == (name == "stiff-jacobian")
    assert structure.positive_definite == (name == "kernel")


def test_every_way_solves_complex_systems():
    for make in (general, definite):
        A, b = make(kind=complex)
        for way in rivals_for(Structure.of([A])):
            np.testing.assert_allclose(way.solve(A, b), solution(A, b), rtol=1e-9, err_msg=way.name)


# ---------------------------------------------------------------- accuracy and time


def test_accuracy_is_that_of_the_certificate_or_of_lapack():
    A, b = general(100)
    x = solution(A, b)
    exact = rivals.accuracy(direct.numpy_lu, A, b, x)
    assert (exact.share, exact.relative_error_max) == (1.0, 0.0)
    few_wrong = x.copy()
    few_wrong[:1] *= 1 + 1e-6
    found = rivals.accuracy(lambda A, b: few_wrong, A, b, x)
    assert (found.share, found.counts) == (0.99, True)
    assert found.relative_error_max == pytest.approx(1e-6)
    assert found.backward_error_max == pytest.approx(backward_error(A, b[..., None], few_wrong[..., None]).max())
    few_wrong[:2] *= 1 + 1e-6
    assert not rivals.accuracy(lambda A, b: few_wrong, A, b, x).counts
    assert rivals.accuracy(lambda A, b: few_wrong, A, b, x, rtol=1e-4).counts


def test_a_way_that_fails_does_not_count():
    A, b = general(2)
    found = rivals.accuracy(direct.one_by_one(direct.cholesky), -A, b, b)
    assert (found.share, found.counts) == (0.0, False)


def test_methods_are_judged_and_the_slow_ones_left_out():
    A, b = general(40)

    def late(A, b):
        time.sleep(0.2)
        return direct.numpy_lu(A, b)

    names = {"dgesv": direct.numpy_lu, "slow": late, "wrong": lambda A, b: b, "scipy.linalg.solve": late}
    ways = [Rival(f"{name}{end}", way, name) for name, way in names.items() for end in ("", ", pool")]
    judged = rivals.judge(ways, A, b, solution(A, b))
    assert [(one.name, one.condition, one.accuracy.counts) for one in judged] == [
        (name, name, name != "wrong") for name in names
    ]
    assert judged[1].seconds > 0.2 / 40
    kept = {"dgesv", "scipy.linalg.solve"}  # LU is wanted for comparison
    assert {way.name for way in rivals.contenders(judged)} == {
        f"{name}{end}" for name in kept for end in ("", ", pool")
    }


class Clock:
    """Time that only the calls let pass, and how long they take."""

    def __init__(self):
        self.now, self.calls = 0.0, []

    def __call__(self):
        return self.now

    def way(self, name, seconds, first=0.0):
        def call(A, b):
            self.now += seconds * len(A) + (first if name not in [n for n, _ in self.calls] else 0)
            self.calls.append((name, A[:, 0, 0].tolist()))
            return b

        return call


def test_ways_take_turns_on_new_systems():
    clock = Clock()
    A, b = np.arange(5.0)[:, None, None], np.zeros((5, 1))
    ways = {"a": clock.way("a", 1.0, first=7.0), "b": clock.way("b", 2.0)}
    found = timing.take_turns(ways, A, b, 2, 36.0, clock)
    assert found == {"a": [2.0] * 4, "b": [4.0] * 4}  # the first round, which took longer, is left out
    assert clock.calls == [(name, [2.0 * (i % 2), 2.0 * (i % 2) + 1]) for i in range(5) for name in "ab"]


def test_few_rounds_where_a_round_takes_long():
    clock = Clock()
    found = timing.take_turns({"a": clock.way("a", 100.0)}, np.ones((1, 1, 1)), np.ones((1, 1)), 1, 2.0, clock)
    assert found == {"a": [100.0]}
    clock = Clock()
    found = timing.take_turns({"a": clock.way("a", 5.0)}, np.ones((1, 1, 1)), np.ones((1, 1)), 1, 2.0, clock)
    assert found == {"a": [5.0] * timing.LEAST_ROUNDS}


def test_race(monkeypatch):
    """The hopeless are dropped from the second batch of 16 or more on, but for the best LU."""
    clock = Clock()
    monkeypatch.setattr(timing, "take_turns", lambda *args: take(*args, clock))
    take = rivals.take_turns
    speeds = {"numpy.linalg.solve": 9.0, "dgesv, pool": 5.0, "dposv": 1.0, "banded LU": 2.5}
    ways = [Rival(name, clock.way(name, seconds)) for name, seconds in speeds.items()]
    A, b = np.ones((64, 1, 1)), np.ones((64, 1))
    records = rivals.race(clock.way("ours", 0.5), ways, A, b, (1, 16, 64), 0.0)
    assert [r["batch"] for r in records] == [1, 16, 64]
    assert [set(r["rivals"]) for r in records] == [set(speeds), set(speeds), {"dgesv, pool", "dposv"}]
    for record in records:
        assert (record["ours"], record["rival"], record["best"]) == (0.5, 1.0, "dposv")
        assert (record["lapack"], record["lapack_way"]) == (5.0, "dgesv, pool")
        assert record["quartiles"] == [0.5, 0.5]
