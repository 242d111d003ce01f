"""LearnedSolver around operator heads: trained, wrong, and as a preconditioner of other people's solvers."""

from __future__ import annotations

import copy
import itertools
import json

import numpy as np
import pyamg.krylov
import pytest
import scipy.sparse
import scipy.sparse.linalg
import torch

from algebraformer import problems
from algebraformer.checkpoint import CheckpointInfo, save
from algebraformer.errors import ConfigurationError, SingularSystemError, Status, UnknownNameError
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.numerics import gcr, lapack
from algebraformer.solver import LearnedSolver
from tests.fakes import corrupted, noise, not_a_number, zeros

N = 16
EPS = np.finfo(float).eps
FAMILY = problems.get("diffusion", n=N)


@pytest.fixture(scope="module")
def trained(operator_run):
    return LearnedSolver.from_pretrained(operator_run)


def opposite(head):
    for name in ("T_mean", "leading", "others"):
        head.get_buffer(name).neg_()


WRONG = {
    "zeros": zeros,
    "opposite": opposite,
    "noise": noise,
    "nan": not_a_number,
    "infinity": lambda head: head.linear.bias.fill_(torch.inf),
    "1e30": lambda head: head.linear.bias.fill_(1e30),
    "1e38": lambda head: head.linear.bias.fill_(1e38),
}
USELESS = ("zeros", "nan", "infinity", "1e38")


def batch(count, columns=(), seed=1):
    """Matrices of the family and random right-hand sides."""
    systems = FAMILY.sample(count, seed=seed)
    return systems.A, np.random.default_rng(seed).standard_normal((count, N, *columns))


def reference(A, b):
    return np.linalg.solve(A, b.reshape(*A.shape[:-1], -1)).reshape(b.shape)


def dense(solver, A):
    """M (n, n), column by column through the LinearOperator."""
    operator = solver.operator(A)
    return np.stack([operator.matvec(e) for e in np.eye(N)], axis=1)


# ---------------------------------------------------------------- the contract


@pytest.mark.parametrize("columns", [(), (1,), (4,)])
@pytest.mark.parametrize("count", [None, 1, 3, N])
def test_shapes(trained, count, columns):
    A, b = batch(count or 1, columns)
    if count is None:
        A, b = A[0], b[0]
    before = A.copy(), b.copy()
    result = trained.solve(A, b)
    np.testing.assert_array_equal(A, before[0])
    np.testing.assert_array_equal(b, before[1])
    assert result.x.shape == trained.predict(A, b).shape == b.shape
    np.testing.assert_allclose(result.x, reference(A, b), rtol=1e-6, atol=1e-9 * np.abs(result.x).max())
    fields = {k: v for k, v in vars(result).items() if k != "x"}
    kinds = {"status": Status, "method": str, "refinements": int, "certified": bool, "in_distribution": bool}
    assert np.all(result.certified)
    if count is None:
        assert {k: type(v) for k, v in fields.items()} == {k: kinds.get(k, float) for k in fields}
    else:
        assert {v.shape for v in fields.values()} == {(count,)}
        for i in range(count):
            alone = trained.solve(A[i], b[i])
            np.testing.assert_allclose(result.x[i], alone.x, rtol=1e-6, atol=1e-9 * np.abs(alone.x).max())
            assert [fields[k][i] for k in ("status", "method", "certified")] == [alone.status, alone.method, True]
    record = json.loads(json.dumps(result.record(), allow_nan=False))
    assert set(record) == set(fields)


def test_most_systems_are_solved_without_lapack(trained):
    systems = FAMILY.sample(200, seed=2)
    result = trained.solve(systems.A, systems.b, fallback=False)
    assert result.certified.mean() > 0.98
    assert set(result.method) == {"learned+refined"}
    assert np.all((result.refinements >= 1) & (result.refinements <= 10))
    r = systems.b - np.einsum("bij,bj->bi", systems.A, result.x)
    relative = np.linalg.norm(r, axis=1) / np.linalg.norm(systems.b, axis=1)
    np.testing.assert_allclose(result.relative_residual, relative, rtol=0.1, atol=1e-12)
    certified = result.certified
    size = np.einsum("bij,bj->bi", np.abs(systems.A), np.abs(result.x)) + np.abs(systems.b)
    omega = np.max(np.abs(r) / size, axis=1)
    assert np.all(omega[certified] <= 1.01 * N * EPS + (N + 2) * EPS)
    error = np.linalg.norm(result.x - systems.x, axis=1) / np.linalg.norm(systems.x, axis=1)
    assert np.all(error[certified] < 1e-9)
    assert np.all(error[certified] <= result.forward_error[certified] + 1e-13)  # x of the family has errors of its own


@pytest.mark.parametrize("columns", [(), (3,)])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_head_is_no_wrong_answer(trained, name, columns):
    """What it cannot solve goes to LAPACK; a linear map that is merely bad may still be refined to the truth."""
    A, b = batch(5, columns)
    result = corrupted(trained, WRONG[name]).solve(A, b)
    assert result.certified.all()
    np.testing.assert_allclose(result.x, reference(A, b), rtol=1e-6, atol=1e-8 * np.abs(result.x).max())
    if name in USELESS:
        assert set(result.method) == {"lapack"}
        assert set(result.status) <= {Status.FALLBACK, Status.OUT_OF_DISTRIBUTION}
        assert (result.in_distribution == (result.status == Status.FALLBACK)).all()
        assert name == "1e38" or not result.in_distribution.any()


def test_opposite_signs_are_put_right(trained):
    """Conjugate residuals choose the length of their steps, so that -M serves as well as M."""
    systems = FAMILY.sample(50, seed=2)
    plain, turned = (
        solver.solve(systems.A, systems.b)
        for solver in (corrupted(trained, lambda head: None), corrupted(trained, opposite))
    )
    np.testing.assert_array_equal(plain.refinements, turned.refinements)


@pytest.mark.parametrize("name", USELESS)
def test_without_fallback_a_wrong_head_says_so(trained, name):
    A, b = batch(3)
    result = corrupted(trained, WRONG[name]).solve(A, b, fallback=False)
    assert {Status.UNCERTIFIED} == set(result.status)
    assert not result.certified.any()
    assert result.x.shape == b.shape


def test_max_refinements(trained):
    A, b = batch(20)
    bare = trained.solve(A, b, max_refinements=0, fallback=False)
    assert not bare.refinements.any()
    assert {Status.UNCERTIFIED} == set(bare.status)
    assert set(trained.solve(A, b, max_refinements=0).method) == {"lapack"}
    residuals = [trained.solve(A, b, max_refinements=m, fallback=False).relative_residual for m in range(4)]
    assert all(np.median(new) < 0.1 * np.median(old) for old, new in itertools.pairwise(residuals))
    loose = trained.solve(A, b, rtol=0.9, fallback=False)
    assert {Status.LEARNED} == set(loose.status[loose.refinements == 0])
    assert (loose.refinements == 0).any()


def test_the_bare_answer_of_solve_is_that_of_predict_but_for_its_length(trained):
    """The first step of conjugate residuals is alpha M b with the best alpha."""
    A, b = batch(10)
    bare, predicted = trained.solve(A, b, max_refinements=0, fallback=False).x, trained.predict(A, b)
    alpha = np.sum(bare * predicted, axis=1) / np.sum(predicted**2, axis=1)
    np.testing.assert_allclose(bare, alpha[:, None] * predicted, rtol=1e-5, atol=1e-6 * np.abs(bare).max())
    assert np.all(np.abs(alpha - 1) < 0.3)


def test_restarts_from_the_true_residual(trained, monkeypatch):
    """The residual that is updated is not always enough; the last digits come from starting again."""
    A, b = batch(50)
    with_restarts = trained.solve(A, b, max_refinements=30, fallback=False)
    assert with_restarts.certified.mean() > 0.9
    assert np.all(with_restarts.backward_error[with_restarts.certified] <= N * EPS)
    monkeypatch.setattr(gcr, "RESTARTS", 0)
    without = trained.solve(A, b, max_refinements=30, fallback=False)
    assert np.all(without.backward_error >= with_restarts.backward_error)
    assert with_restarts.certified.sum() >= without.certified.sum()


@pytest.mark.parametrize("scale", [1e-200, 1e200, -1e-3])
def test_size_of_the_right_hand_side(trained, scale):
    A, b = batch(5)
    one, other = trained.solve(A, b), trained.solve(A, scale * b)
    assert other.certified.all()
    np.testing.assert_allclose(other.x / scale, one.x, rtol=1e-6, atol=1e-8 * np.abs(one.x).max())


def test_zero_right_hand_side(trained):
    A, _ = batch(3)
    result = trained.solve(A, np.zeros((3, N)))
    assert not result.x.any()
    assert {Status.LEARNED} == set(result.status)


def test_singular_systems_are_named(trained):
    A, b = batch(4)
    A[2] = 0.0
    with pytest.raises(SingularSystemError, match="singular in system 2 of the batch") as raised:
        trained.solve(A, b)
    assert raised.value.result.certified.tolist() == [True, True, False, True]


def test_singular_systems_that_the_head_solves_are_named(trained):
    """Conjugate residuals solve a consistent system of rank one in one step: elimination has to look at it."""
    A, b = batch(4)
    A[1], b[1] = 1.0, 1.0
    A[3], b[3] = np.outer(np.arange(1, N + 1), np.ones(N)), np.arange(1, N + 1)
    with pytest.raises(SingularSystemError, match="singular in systems 1, 3 of the batch") as raised:
        trained.solve(A, b)
    for result in (raised.value.result, trained.solve(A, b, fallback=False)):
        assert result.certified.tolist() == [True, False, True, False]
        assert not result.in_distribution[[1, 3]].any()


def test_systems_of_the_family_are_not_factorised(trained, monkeypatch):
    """LAPACK sees what is out of distribution and what the network does not solve, and its answers are taken."""
    asked = []
    factorise = lapack.solve
    monkeypatch.setattr(lapack, "solve", lambda A, *others: asked.append(len(A)) or factorise(A, *others))
    A, b = batch(50)
    A[7] = np.eye(N)
    result = trained.solve(A, b)
    assert result.certified.all()
    assert asked == [np.sum(result.method == "lapack")] == [np.isfinite(result.rcond).sum()]
    assert not result.in_distribution[7]
    assert (result.method[~result.in_distribution] == "lapack").all()
    assert 1 <= asked[0] < 5
    np.testing.assert_array_equal(result.x[7], b[7])


def test_the_basis_outlives_a_move_of_the_tensors(trained):
    """Whoever sends a model to another process makes torch move its tensors into memory that both can see."""
    solver = LearnedSolver(copy.deepcopy(trained.model), trained.info)
    A, b = batch(5)
    before = solver.solve(A, b).x
    basis = solver.model.head.basis
    arrays = [basis.A_mean, basis.operators, basis.coefficient_rms, basis.sampler.rows, basis.sampler.mean]
    for buffer in solver.model.head.buffers():
        assert not any(np.shares_memory(array, buffer.numpy()) for array in arrays)
    solver.model.share_memory()
    np.testing.assert_array_equal(solver.solve(A, b).x, before)


def test_nothing_to_solve(trained):
    assert trained.solve(np.empty((0, N, N)), np.empty((0, N))).x.shape == (0, N)
    assert trained.solve(np.eye(N), np.empty((N, 0))).x.shape == (N, 0)


# ---------------------------------------------------------------- in_distribution


def test_in_distribution(trained):
    """The family is; other coefficients, other boundary conditions and random matrices are not, and still certified."""
    inside = FAMILY.sample(200, seed=3)
    assert trained.solve(inside.A, inside.b).in_distribution.mean() > 0.97
    rng = np.random.default_rng(0)
    wild = problems.get("diffusion", n=N, omega=(7.0, 8.0), alpha=(0.95, 0.99)).sample(50, seed=3).A
    for A in (wild, inside.A[:50].transpose(0, 2, 1), rng.standard_normal((50, N, N)), np.tile(np.eye(N), (50, 1, 1))):
        result = trained.solve(A, rng.standard_normal((50, N)))
        assert result.certified.all()
        assert result.in_distribution.mean() < 0.1


def test_a_scaled_system_stays_in_the_family(trained):
    systems = FAMILY.sample(50, seed=3)
    one, other = (trained.solve(factor * systems.A, systems.b) for factor in (1, -1e5))
    np.testing.assert_array_equal(one.in_distribution, other.in_distribution)


# ---------------------------------------------------------------- the operator


def test_the_operator_is_predict(trained):
    A, b = batch(1, (3,))
    operator = trained.operator(A[0])
    assert (operator.shape, operator.dtype) == ((N, N), np.float64)
    expected = trained.predict(A[0], b[0])
    np.testing.assert_allclose(operator @ b[0], expected, rtol=1e-5, atol=1e-6 * np.abs(expected).max())
    for column in (b[0, :, 0], b[0, :, :1], list(b[0, :, 0])):
        assert (operator @ column).shape == np.shape(column)
    np.testing.assert_allclose(
        operator.matvec(b[0, :, 1]), expected[:, 1], rtol=1e-5, atol=1e-6 * np.abs(expected).max()
    )
    np.testing.assert_array_equal(operator @ b[0, :, 0], operator @ b[0, :, 0])
    assert (operator @ (1e250 * b[0, :, 0])).max() > 1e200
    assert not (operator @ np.zeros(N)).any()


def test_the_operator_is_linear_to_the_rounding_of_float32(trained):
    A, b = batch(1, (2,))
    operator = trained.operator(A[0])
    combined = operator @ (3 * b[0, :, 0] - 7 * b[0, :, 1])
    parts = 3 * (operator @ b[0, :, 0]) - 7 * (operator @ b[0, :, 1])
    assert np.linalg.norm(combined - parts) < 1e-5 * np.linalg.norm(parts)


def test_the_operator_is_near_the_inverse(trained):
    for A in FAMILY.sample(5, seed=4).A:
        radius = np.abs(np.linalg.eigvals(np.eye(N) - dense(trained, A) @ A)).max()
        assert radius < 0.3


@pytest.mark.parametrize("gmres", [scipy.sparse.linalg.gmres, pyamg.krylov.fgmres], ids=["scipy", "pyamg"])
def test_preconditioner_of_gmres(trained, gmres):
    """Far fewer steps than without it, from the same right-hand side, to the same answer."""
    A, b = batch(1, seed=5)
    A, b = A[0], b[0]
    steps = {True: [], False: []}
    for use in steps:
        options = {"M": trained.operator(A)} if use else {}
        if gmres is scipy.sparse.linalg.gmres:
            options |= {"rtol": 1e-9, "atol": 0.0, "callback": steps[use].append, "callback_type": "pr_norm"}
            x, info = gmres(A, b, **options, restart=N)
        else:
            x, info = gmres(A, b, tol=1e-9, residuals=steps[use], maxiter=N, **options)
        if use:
            assert info == 0
            np.testing.assert_allclose(x, np.linalg.solve(A, b), rtol=1e-5, atol=1e-7 * np.abs(x).max())
    assert len(steps[True]) <= 9 < len(steps[False])


def test_the_operator_is_one_matrix_for_every_kind_of_vector(trained):
    """Real, complex and float32 vectors, blocks, transpose and adjoint, against M written out column by column."""
    A = FAMILY.sample(1).A[0]
    operator, M = trained.operator(A), dense(trained, A)
    rng = np.random.default_rng(0)
    size = np.abs(M).max() * N

    def near(left, right):
        np.testing.assert_allclose(left, right, rtol=0, atol=1e-5 * size)

    for shape in ((N,), (N, 1), (N, 5)):
        v = rng.standard_normal(shape)
        for w in (v, v.astype(np.float32), v + 1j * rng.standard_normal(shape)):
            assert (operator @ w).shape == (operator.T @ w).shape == shape
            near(operator @ w, M @ w)
            near(operator.T @ w, M.T @ w)
            near(operator.H @ w, M.T @ w)
            assert np.iscomplexobj(operator @ w) == np.iscomplexobj(w)
    near(operator.rmatvec(np.ones(N)), M.T @ np.ones(N))
    u, v = rng.standard_normal((2, N))
    assert u @ operator.matvec(v) == pytest.approx(v @ operator.rmatvec(u), abs=1e-5 * size)


def test_operators_of_a_batch_are_those_of_its_matrices(trained):
    A = FAMILY.sample(3).A
    operators = trained.operator(A)
    assert [operator.shape for operator in operators] == [(N, N)] * 3
    v = np.arange(1.0, N + 1)
    for operator, matrix in zip(operators, A, strict=True):
        np.testing.assert_allclose(operator @ v, trained.operator(matrix) @ v, rtol=1e-3)


def test_complex_systems_are_preconditioned(trained):
    A, b = batch(1, seed=5)
    b = b[0] + 1j * np.roll(b[0], 3)
    x, info = scipy.sparse.linalg.gmres(A[0], b, M=trained.operator(A[0]), rtol=1e-9, atol=0.0)
    assert info == 0
    np.testing.assert_allclose(x, np.linalg.solve(A[0], b), rtol=1e-5, atol=1e-7 * np.abs(x).max())


@pytest.mark.parametrize("solve", [scipy.sparse.linalg.qmr, scipy.sparse.linalg.bicg])
def test_solvers_that_need_the_transpose(trained, solve):
    A, b = batch(1, seed=5)
    M = trained.operator(A[0])
    identity = scipy.sparse.linalg.aslinearoperator(np.eye(N))
    options = {"M1": M, "M2": identity} if solve is scipy.sparse.linalg.qmr else {"M": M}
    x, info = solve(A[0], b[0], rtol=1e-8, atol=0.0, maxiter=3 * N, **options)
    assert info == 0
    np.testing.assert_allclose(x, np.linalg.solve(A[0], b[0]), rtol=1e-3, atol=1e-5 * np.abs(x).max())


@pytest.mark.parametrize(
    ("A", "message"),
    [
        (np.ones((2, 2, N, N)), r"received \(2, 2, 16, 16\)"),
        (np.ones(N), r"received \(16,\)"),
        (scipy.sparse.eye_array(N), "scipy.sparse.linalg"),
        (np.ones((N, N - 1)), "A must have shape"),
        (np.eye(N - 1), "the model supports n = 16, received n = 15"),
        (1j * np.eye(N), "complex"),
        (np.full((N, N), np.nan), "A contains NaN or infinity"),
    ],
)
def test_operator_refuses(trained, A, message):
    with pytest.raises(ValueError, match=message):
        trained.operator(A)


def test_token_heads_have_no_operator():
    model = Algebraformer(ModelConfig(n=N, n_layer=1, n_head=2, n_embd=8)).eval()
    solver = LearnedSolver(model, CheckpointInfo(name="token", family={}, commit=None, versions={}))
    with pytest.raises(ConfigurationError, match="this model has a token head: only linear heads"):
        solver.operator(np.eye(N))


# ---------------------------------------------------------------- a family that nobody registered


def test_a_checkpoint_of_an_unknown_family_loads_and_solves(trained, tmp_path):
    save(tmp_path / "model", trained.model, CheckpointInfo(name="own", family={"name": "somebodys-own", "n": N}))
    solver = LearnedSolver.from_pretrained(tmp_path / "model")
    A, b = batch(3)
    np.testing.assert_array_equal(solver.solve(A, b).x, trained.solve(A, b).x)
    with pytest.raises(
        UnknownNameError, match=r"unknown family 'somebodys-own'.*the model own .*--family FILE.py:NAME"
    ):
        solver.info.problem_family()
