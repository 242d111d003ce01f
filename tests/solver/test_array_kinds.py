"""Arrays of other libraries: the same answers as for NumPy, of the kind that went in, and clear errors for the rest."""

from __future__ import annotations

from typing import Any

import array_api_strict
import numpy as np
import pytest
import torch

import algebraformer as af
from algebraformer.arrays import NUMPY, Kind, kind_of
from algebraformer.errors import ArrayKindError, SingularSystemError

KINDS: dict[str, Any] = {"torch": torch, "array_api_strict": array_api_strict}
try:
    import jax
except ImportError:  # not among what the tests need
    pass
else:
    jax.config.update("jax_enable_x64", True)
    KINDS["jax"] = jax.numpy


@pytest.fixture(params=KINDS)
def xp(request):
    return KINDS[request.param]


@pytest.fixture(scope="module")
def solver():
    return af.LearnedSolver.from_pretrained("diffusion-64")


@pytest.fixture(scope="module")
def systems(solver):
    return solver.info.problem_family().sample(5, seed=8)


def same(found: Any, expected: np.ndarray, like: Any) -> None:
    """Check kind, dtype and every bit."""
    assert kind_of(x=found) == kind_of(x=like)
    assert np.asarray(found).dtype == expected.dtype
    np.testing.assert_array_equal(np.asarray(found), expected)


@pytest.mark.parametrize("columns", [None, 1, 3])
@pytest.mark.parametrize("batched", [True, False])
def test_solve_prepare_and_predict(xp, solver, systems, batched, columns):
    A, b = (systems.A, systems.b) if batched else (systems.A[0], systems.b[0])
    if columns is not None:
        b = np.stack([(j + 1) * b[..., ::-1] for j in range(columns)], axis=-1)
    A_in, b_in = xp.asarray(A), xp.asarray(np.ascontiguousarray(b))
    for transpose in (False, True):
        expected, found = solver.solve(A, b, transpose=transpose), solver.solve(A_in, b_in, transpose=transpose)
        same(found.x, expected.x, A_in)
        assert found.record() == expected.record()
    same(solver.prepare(A_in).solve(b_in).x, solver.prepare(A).solve(b).x, A_in)
    same(solver.predict(A_in, b_in), solver.predict(A, b), A_in)


def test_operators(xp, solver, systems):
    """The learned inverse as a linear map of vectors of the same kind: those of SciPy's operator are the oracle."""
    one, A = solver.operator(systems.A[2]), xp.asarray(systems.A[2])
    several, batch = solver.operator(systems.A)[2], xp.asarray(systems.A)
    pairs = [(one, solver.operator(A)), (one, solver.prepare(A).operator), (several, solver.operator(batch)[2])]
    v = systems.b[0] * (1 + 0.5j)
    for vector in (v.real.copy(), v, np.stack([v, 2 * v[::-1]], axis=1)):
        for expected, operator in pairs:
            assert operator.shape == (64, 64)
            same(operator @ xp.asarray(vector), expected @ vector, xp.asarray(v))
            same(operator.matvec(xp.asarray(vector)), expected @ vector, xp.asarray(v))
            adjoint = expected.rmatmat(vector.reshape(64, -1)).reshape(vector.shape)
            same(operator.rmatvec(xp.asarray(vector)), adjoint, xp.asarray(v))
    for vector, error in ((systems.b[0], ArrayKindError), (xp.ones(63), ValueError), (xp.ones((1, 64, 1)), ValueError)):
        with pytest.raises(error):
            pairs[0][1] @ vector


def test_the_drop_in(xp, systems):
    for A, b in (
        (systems.A[0], systems.b[0]),
        (systems.A, systems.b[:, :, None]),
        (systems.A[0].astype(np.float32), systems.b[0].astype(np.float32)),
        (systems.A[0, :7, :7], systems.b[0, :7]),
    ):
        A, b = np.ascontiguousarray(A), np.ascontiguousarray(b)
        same(af.solve(xp.asarray(A), xp.asarray(b)), af.solve(A, b), xp.asarray(A))


def test_estimates(xp):
    solver = af.LearnedSolver.from_pretrained("deblur-64")
    noisy = solver.info.problem_family().sample(3, seed=8)
    A, b = noisy.A, noisy.b.copy()
    b[1] = np.random.default_rng(0).uniform(-1, 1, b[1].size)  # fits nothing
    with pytest.warns(af.errors.InconsistentWarning):
        expected, found = solver.estimate(A, b), solver.estimate(xp.asarray(A), xp.asarray(b))
    for name in ("x", "std", "tikhonov"):
        same(getattr(found, name), getattr(expected, name), xp.asarray(A))
    assert found.record() == expected.record()


def test_lapack_and_singular_systems(xp, solver, systems):
    A = systems.A[:, :9, :9].copy()
    same(
        solver.solve(xp.asarray(A), xp.asarray(systems.b[:, :9].copy())).x,
        solver.solve(A, systems.b[:, :9]).x,
        xp.asarray(A),
    )
    A[2] = 0
    with pytest.raises(SingularSystemError) as raised:
        solver.solve(xp.asarray(A), xp.asarray(systems.b[:, :9].copy()))
    x = raised.value.result.x
    assert kind_of(x=x) == kind_of(x=xp.asarray(A))
    assert np.isnan(np.asarray(x)).all(axis=1).tolist() == [False, False, True, False, False]


def test_complex_numbers(xp, solver, systems):
    b = systems.b * (1 - 2j)
    same(solver.solve(xp.asarray(systems.A), xp.asarray(b)).x, solver.solve(systems.A, b).x, xp.asarray(systems.A))


def test_what_is_given_is_not_written_to(xp, solver, systems):
    A, b = xp.asarray(systems.A.copy()), xp.asarray(systems.b.copy())
    prepared = solver.prepare(A)
    solver.solve(A, b)
    np.testing.assert_array_equal(np.asarray(A), systems.A)
    if xp is torch:
        before = prepared.solve(b).x
        A.zero_()
        assert torch.equal(prepared.solve(b).x, before)


def test_torch_shares_memory_and_resolves_views(solver, systems):
    A = torch.asarray(systems.A)
    assert np.shares_memory(kind_of(A=A).numpy(A), systems.A)
    transposed = solver.solve(A.mT, torch.asarray(systems.b)).x
    assert torch.equal(transposed, solver.solve(A.mT.contiguous(), torch.asarray(systems.b)).x)
    z = torch.asarray(systems.b[0] * (1 + 1j)).conj()
    np.testing.assert_array_equal(kind_of(z=z).numpy(z), systems.b[0] * (1 - 1j))


@pytest.mark.parametrize(
    ("A", "b", "words"),
    [
        (torch.eye(64), np.ones(64), ["torch on cpu", "numpy"]),
        (np.eye(64), torch.ones(64), ["numpy", "torch on cpu"]),
        (torch.eye(64), [1.0] * 64, ["torch on cpu", "numpy"]),
        (torch.eye(64), array_api_strict.ones(64), ["torch on cpu", "array_api_strict"]),
        (torch.eye(64), torch.ones(64, device="meta"), ["b", "meta"]),
        (torch.eye(64).half(), torch.ones(64), ["A", "float16"]),
        (torch.eye(64), torch.ones(64).bfloat16(), ["b", "bfloat16"]),
        (torch.eye(64).to_sparse(), torch.ones(64), ["A", "sparse_coo"]),
    ],
)
def test_refused(solver, A, b, words):
    for call in (solver.solve, solver.predict, af.solve, lambda A, b: solver.prepare(A).solve(b)):
        with pytest.raises(ArrayKindError) as raised:
            call(A, b)
        assert all(word.lower() in str(raised.value).lower() for word in words)
        assert isinstance(raised.value, TypeError)


def test_other_devices_are_named():
    cpu, cuda = Kind("torch", torch.device("cpu")), Kind("torch", torch.device("cuda:1"))
    assert cpu != cuda
    assert (cpu.on_host, cuda.on_host, NUMPY.on_host) == (True, False, True)
    assert str(cuda) == "torch on cuda:1"
