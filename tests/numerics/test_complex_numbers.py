"""Complex matrices: what is read of them, basis, products, conjugate residuals and certificate."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from algebraformer import problems
from algebraformer.linalg import measure, normalized_mse
from algebraformer.numerics import gcr, operator_basis
from algebraformer.numerics.entry_sampler import EntrySampler, real_parts, select_entries, signed_rms
from algebraformer.numerics.operator_basis import OperatorBasis
from algebraformer.numerics.preconditioner import ApproximateInverse, TransposedInverse, as_linear_operator
from tests.bases import fit

N = 10
EPS = np.finfo(float).eps
FAMILY = problems.get("helmholtz", n=N, wave_number=(2.0, 4.0))
REAL = problems.get("reaction-diffusion", n=N)


def normal(*shape: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.standard_normal(shape) + 1j * rng.standard_normal(shape)


class Dense:
    """Any R and L, as a preconditioner."""

    def __init__(self, R: np.ndarray, L: np.ndarray) -> None:
        self.R, self.L = R, L

    def left(self, r: np.ndarray) -> np.ndarray:
        return self.L @ r

    def right(self, g: np.ndarray) -> np.ndarray:
        return self.R @ g

    def __getitem__(self, chosen: np.ndarray) -> Dense:
        return Dense(self.R[chosen], self.L)


# ---------------------------------------------------------------- what is read


@pytest.fixture(scope="module", params=[False, True], ids=["plain", "whitened"])
def sampler(request: pytest.FixtureRequest) -> EntrySampler:
    return select_entries(iter([FAMILY.sample(400, seed=1).A]), 400, 4, 5, whiten=request.param)


def test_readings_hold_both_parts(sampler: EntrySampler) -> None:
    """Plain ones are z-scored entries of A / s: undone, they give A back."""
    A = FAMILY.sample(400, seed=1).A
    z, s = sampler(A)
    assert (z.dtype, z.shape, s.dtype) == (np.dtype(float), (400, 4, 10), np.dtype(complex))
    if sampler.whitening is not None:
        flat = z.reshape(400, -1)
        covariance = flat.T @ flat / 400
        used = np.flatnonzero(np.diagonal(covariance) > 0.5)
        np.testing.assert_allclose(covariance[np.ix_(used, used)], np.eye(used.size), atol=1e-6)
        return
    std = np.where(sampler.inverse_std > 0, 1 / np.where(sampler.inverse_std > 0, sampler.inverse_std, 1), 0)
    E = z.transpose(0, 2, 1) * std + sampler.mean
    E = (E[:, :5] + 1j * E[:, 5:]) * s[:, None, None]
    read = A[:, sampler.rows[:, None], sampler.columns] * sampler.weight
    np.testing.assert_allclose(E, read, atol=1e-7 * np.abs(read).max())


@pytest.mark.parametrize("factor", [2.0, -3.0, 1j, 1e-200 * np.exp(2j), 1e200j])
def test_multiples_have_the_same_readings(sampler: EntrySampler, factor: complex) -> None:
    A = FAMILY.sample(3, seed=2).A
    (z, s), (scaled, size) = sampler(A), sampler(factor * A)
    np.testing.assert_allclose(scaled, z, atol=1e-7)  # whitening enlarges rounding errors by up to 1e6
    np.testing.assert_allclose(size, factor * s, rtol=1e-13)


def test_signed_rms_and_real_parts() -> None:
    E, reference = normal(4, 3, 2), normal(3, 2, seed=1)
    s = signed_rms(E, reference)
    np.testing.assert_allclose(np.abs(s) ** 2, np.mean(np.abs(E) ** 2, axis=(1, 2)))
    product = np.sum(E / s[:, None, None] * reference.conj(), axis=(1, 2))
    np.testing.assert_allclose(product.imag, 0, atol=1e-14)
    assert (product.real > 0).all()
    assert signed_rms(0 * E, reference).tolist() == [0] * 4
    np.testing.assert_array_equal(real_parts(E), np.concatenate((E.real, E.imag), axis=1))
    assert real_parts(E.real) is E.real or np.array_equal(real_parts(E.real), E.real)


# ---------------------------------------------------------------- the basis


@pytest.mark.parametrize("weighted", [False, True])
def test_components_are_orthonormal_and_all_of_them_reproduce_the_inverse(weighted: bool) -> None:
    basis = fit(FAMILY, 60, 4, 4, seed=1, count=400, weighted=weighted)
    W = np.eye(N) if basis.metric is None else basis.metric
    gram = np.einsum("rij,jk,sik->rs", basis.components.astype(complex), W, basis.components.conj())
    np.testing.assert_allclose(gram, np.eye(60), atol=1e-3)  # from number 32 on they are in float16
    A = FAMILY.sample(20, seed=7).A
    z, c, weight = basis.coefficients(A)
    assert (z.dtype.kind, c.dtype.kind, weight.dtype.kind) == ("f", "c", "f")
    _, s = basis.sampler(A)
    T = np.linalg.solve(A / s[:, None, None], np.broadcast_to(basis.A_mean, A.shape))
    size = np.sqrt(np.einsum("bij,jk,bik->b", T, W, T.conj()).real)
    np.testing.assert_allclose(weight, 1 / size, rtol=1e-9)
    left = T - basis.T_mean - np.tensordot(c, basis.components, 1)
    assert (np.linalg.norm(left, axis=(1, 2)) <= 0.02 * np.linalg.norm(T - basis.T_mean, axis=(1, 2))).all()


def test_coefficients_are_the_best_ones() -> None:
    """By least squares on real and imaginary parts of the flattened operators."""
    basis = fit(FAMILY, 8, 4, 4, seed=1, count=400)
    A = FAMILY.sample(5, seed=7).A
    _, c, _ = basis.coefficients(A)
    _, s = basis.sampler(A)
    T = np.linalg.solve(A / s[:, None, None], np.broadcast_to(basis.A_mean, A.shape))
    matrix = basis.components.reshape(8, -1).T.astype(complex)
    best, *_ = np.linalg.lstsq(matrix, (T - basis.T_mean).reshape(5, -1).T)
    np.testing.assert_allclose(c.T, best, atol=1e-4 * np.abs(best).max())


def test_a_real_family_times_a_phase_has_the_basis_of_the_real_one() -> None:
    """exp(i t) A with a phase t of every system: the phase goes into s, and everything else stays real."""

    def sample(indices: range) -> np.ndarray:
        return REAL.assembled(indices, 3)[0]

    def turned(indices: range) -> np.ndarray:
        return sample(indices) * np.exp(2j * np.pi * np.arange(indices.start, indices.stop) / 7)[:, None, None]

    real, other = (operator_basis.fit(f, N, 12, N, N, count=200) for f in (sample, turned))
    np.testing.assert_allclose(other.spectrum, real.spectrum, rtol=1e-3, atol=1e-6)
    phase = other.A_mean[0, 0] / np.abs(other.A_mean[0, 0])  # of all of them together
    np.testing.assert_allclose(np.abs(other.A_mean), np.abs(real.A_mean), rtol=1e-8, atol=1e-8)
    np.testing.assert_allclose((other.A_mean / phase).imag, 0, atol=1e-8 * np.abs(real.A_mean).max())
    A = REAL.sample(5, seed=9).A
    np.testing.assert_allclose(np.abs(other.coefficients(A + 0j)[1]), np.abs(real.coefficients(A)[1]), atol=1e-4)


def test_extended() -> None:
    basis = fit(FAMILY, 6, 4, 4, seed=1, count=100)
    other = problems.get("helmholtz", n=N, wave_number=(4.0, 5.0)).sample(20, seed=2).A
    longer = operator_basis.extended(basis, other, 12)
    np.testing.assert_array_equal(longer.operators[:7], basis.operators)
    flat = longer.components.reshape(12, -1)
    np.testing.assert_allclose(flat @ flat.conj().T, np.eye(12), atol=1e-4)


@pytest.fixture(scope="module")
def basis() -> OperatorBasis:
    return fit(FAMILY, 40, 4, 4, seed=1, count=400)


def inverses(basis: OperatorBasis, A: np.ndarray) -> ApproximateInverse:
    return basis.inverse_of(basis.coefficients(A)[1].astype(np.complex64), basis.sampler(A)[1])


def test_inverse_adjoint_and_transpose(basis: OperatorBasis) -> None:
    A = FAMILY.sample(4, seed=3).A
    inverse, unit = inverses(basis, A), np.broadcast_to(np.eye(N), (4, N, N)).copy()
    M = inverse(unit)
    scale = np.abs(M).max()
    assert np.linalg.norm(M @ A - np.eye(N), axis=(1, 2)).max() < 0.5
    np.testing.assert_allclose(inverse.adjoint(unit), M.conj().swapaxes(1, 2), atol=1e-5 * scale)
    transposed = TransposedInverse(inverse)
    for product in (transposed, transposed.right):
        np.testing.assert_allclose(product(unit + 0j), M.swapaxes(1, 2), atol=1e-5 * scale)
    np.testing.assert_allclose(transposed.adjoint(unit + 0j), M.conj(), atol=1e-5 * scale)
    v = normal(4, N, 2)
    np.testing.assert_allclose(inverse(v), M @ v, atol=1e-4 * scale)
    np.testing.assert_allclose(inverse[np.array([2])](v[2:3]), M[2:3] @ v[2:3], atol=1e-4 * scale)
    operator = as_linear_operator(inverse[:1], N, complex)
    assert operator.dtype == complex
    for u in (v[0], v[0].real, v[0, :, 0]):
        np.testing.assert_allclose(operator @ u, M[0] @ u, atol=1e-4 * scale)
        np.testing.assert_allclose(operator.H @ u, M[0].conj().T @ u, atol=1e-4 * scale)
        np.testing.assert_allclose(operator.T @ u, M[0].T @ u, atol=1e-4 * scale)


# ---------------------------------------------------------------- conjugate residuals and the certificate


def test_conjugate_residuals_minimise_the_preconditioned_residual() -> None:
    """After j steps by least squares on the complex Krylov space."""
    A, b, L = 3 * np.eye(N) + 0.6 * normal(3, N, N), normal(3, N, 1, seed=1), np.eye(N) + 0.1 * normal(N, N, seed=2)
    M = Dense(np.broadcast_to(np.eye(N), A.shape), L)
    for steps in (1, 2, 4):
        found = gcr.solve(A, b, M, rtol=0.0, maxiter=steps, stagnation_factor=np.inf)
        for i in range(3):
            g = L @ b[i, :, 0]
            space = np.stack([np.linalg.matrix_power(L @ A[i], j) @ g for j in range(steps)], axis=1)
            best, *_ = np.linalg.lstsq(L @ A[i] @ space, g)
            np.testing.assert_allclose(found.x[i, :, 0], space @ best, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("rtol", [None, 1e-8])
def test_certified_with_the_learned_inverse(basis: OperatorBasis, rtol: float | None) -> None:
    systems = FAMILY.sample(50, seed=4)
    b = np.stack((systems.b, systems.b.conj()), axis=2)
    inverse = inverses(basis, systems.A)
    found = gcr.gcr_restarted(systems.A, b, inverse, rtol, 10)
    assert found.certified.all()
    r = b - systems.A.astype(np.clongdouble) @ found.x
    omega = np.max(np.abs(r) / (np.abs(systems.A) @ np.abs(found.x) + np.abs(b)), axis=1)
    relative = np.linalg.norm(r.astype(complex), axis=1) / np.linalg.norm(b, axis=1)
    assert ((omega <= 2 * N * EPS) | (relative <= 1.01 * (rtol or 0))).all()
    assert (gcr.probe_defect(systems.A, inverse) < 0.1).all()


def test_probe_defect_by_least_squares() -> None:
    A, L = 3 * np.eye(N) + 0.3 * normal(3, N, N), np.eye(N) + 0.1 * normal(N, N, seed=2)
    M = Dense(np.linalg.inv(L @ A) * np.exp(1j) + 0.02 * normal(3, N, N, seed=3), L)
    g = np.random.default_rng(0).standard_normal(N)
    for i, value in enumerate(gcr.probe_defect(A, M)):
        w = L @ A[i] @ M.R[i] @ g
        _, (square,), *_ = np.linalg.lstsq(w[:, None], g + 0j)
        assert value == pytest.approx(np.sqrt(square) / np.linalg.norm(g))


def test_measures_by_many_digits() -> None:
    A, b = normal(2, 6, 6), normal(2, 6, 2, seed=1)
    x = np.linalg.solve(A, b) * (1 + 1e-9)
    found = measure(A, b, x)
    for i in range(2):
        for k in range(2):
            with mpmath.workdps(40):
                r = [mpmath.mpc(b[i, j, k]) - mpmath.fdot(A[i, j].tolist(), x[i, :, k].tolist()) for j in range(6)]
                sizes = np.abs(A[i]) @ np.abs(x[i, :, k]) + np.abs(b[i, :, k])
                omega = max(abs(part) / size for part, size in zip(r, sizes, strict=True))
                relative = mpmath.norm(r) / mpmath.norm(b[i, :, k].tolist())
            assert found.backward_error[i, k] == pytest.approx(float(omega), rel=1e-5)
            assert found.relative_residual[i, k] == pytest.approx(float(relative), rel=1e-5)


def test_normalized_mse() -> None:
    assert normalized_mse(np.array([1 + 1j, 0j]), np.array([1, 1j])) == pytest.approx(1.0)
