"""Solving where a tensor lies: the route of GPUs, taken by tensors on the host here, and on CUDA where there is one.

What NumPy's route returns is the oracle, up to rounding, and LAPACK for what the GPU's own LU does.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

import array_api_strict
import numpy as np
import pytest
import scipy.linalg
import torch

import algebraformer as af
from algebraformer import problems
from algebraformer.arrays import Kind, host
from algebraformer.errors import ConfigurationError, SingularSystemError, Status
from algebraformer.linalg import EPS, measure
from algebraformer.models import ModelConfig, OperatorConfig, device_lu
from algebraformer.models.device import DeviceNetwork
from algebraformer.numerics import gcr, lapack
from algebraformer.numerics.forward_error import forward_error
from algebraformer.numerics.krylov_space import KrylovSpace, dot, length
from algebraformer.numerics.preconditioner import ApproximateInverse, TransposedInverse
from head_contract import build

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]
MODELS = ["diffusion-64", "random-diffusion-64", "advection-diffusion-64", "reaction-diffusion-64"]


@pytest.fixture(params=DEVICES)
def device(request, monkeypatch) -> Iterator[torch.device]:
    """A device, whose tensors are not taken for NumPy arrays."""
    monkeypatch.setattr(Kind, "on_host", property(lambda self: self.library != "torch"))
    return torch.device(request.param)


def check(found: Any, expected: Any, A: np.ndarray, b: np.ndarray, device: torch.device) -> None:
    """Check that a result is as good as NumPy's, and of the right kind."""
    assert isinstance(found.x, torch.Tensor)
    assert found.x.device.type == device.type
    assert found.x.shape == expected.x.shape
    assert np.array_equal(found.status == expected.status, np.ones(np.shape(found.status), bool))
    assert np.all(found.certified)
    assert np.all(np.abs(found.refinements - expected.refinements) <= 1)
    x, k = host(found.x), A.ndim - 1
    measured = measure(A, *(v if v.ndim > k else v[..., None] for v in (b, x)))
    np.testing.assert_allclose(found.backward_error, measured.backward_error.max(axis=-1), atol=2 * EPS)
    factor = found.forward_error / expected.forward_error
    assert np.all((factor > 0.2) & (factor < 5))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("columns", [None, 3])
def test_answers_are_those_of_numpy(device, name, columns):
    solver = af.LearnedSolver.from_pretrained(name)
    systems = solver.info.problem_family().sample(6, seed=8)
    A, b = systems.A, systems.b
    if columns is not None:
        b = np.ascontiguousarray(np.stack([b, b[:, ::-1], 3 * b], axis=2))
    A_in, b_in = torch.asarray(A, device=device), torch.asarray(b, device=device)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check(solver.solve(A_in, b_in), solver.solve(A, b), A, b, device)
        check(solver.solve(A_in[0], b_in[0]), solver.solve(A[0], b[0]), A[0], b[0], device)
        prepared, reference = solver.prepare(A_in), solver.prepare(A)
        check(prepared.solve(b_in), reference.solve(b), A, b, device)
        turned = np.ascontiguousarray(A.swapaxes(1, 2))
        check(prepared.solve(b_in, transpose=True), reference.solve(b, transpose=True), turned, b, device)
    assert prepared.in_distribution.tolist() == reference.in_distribution.tolist()
    loose, expected = solver.solve(A_in, b_in, rtol=1e-6), solver.solve(A, b, rtol=1e-6)
    assert (loose.refinements < solver.solve(A, b).refinements).all()
    assert np.array_equal(loose.refinements, expected.refinements)


@pytest.mark.parametrize("form", ["dense", "low-rank", "complex"])
def test_every_form_of_the_inverse(device, form):
    """Random weights: the bare answers of both networks are the same."""
    family = problems.get("helmholtz" if form == "complex" else "diffusion", n=16)
    settings: dict[str, Any] = {"form": form, "p": 6, "row_terms": 2} if form == "low-rank" else {}
    settings |= {"numbers": "complex"} if form == "complex" else {}
    head = OperatorConfig(rank=5, n_column=4, n_row=3, **settings)
    model = build(ModelConfig(n=16, architecture="mlp", head=head, n_layer=1, n_embd=8), family)
    on_device = DeviceNetwork(model, device)
    A, b, _ = family.assembled(range(7), seed=3)
    reading, expected = on_device.read(torch.asarray(A, device=device)), model.read(A)
    right = np.stack([b, b[::-1]], axis=2)
    x = reading.predict(torch.asarray(right, device=device))
    assert np.abs(host(x) - expected.predict(right)).max() < 1e-5 * np.abs(x.cpu().numpy()).max()
    np.testing.assert_allclose(reading.defect, expected.defect, rtol=1e-3)
    assert reading.in_distribution.tolist() == expected.in_distribution.tolist()
    turned = host(reading.transposed().predict(torch.asarray(right, device=device)))
    np.testing.assert_allclose(turned, expected.transposed().predict(right), atol=1e-5 * np.abs(turned).max())


def test_memory_limits_the_blocks(device, monkeypatch):
    model = build(ModelConfig(n=8, architecture="mlp", head=OperatorConfig(rank=3, n_column=2, n_row=2), n_layer=1,
                              n_embd=8), problems.get("diffusion", n=8))  # fmt: skip
    network = DeviceNetwork(model, device)
    assert network.blocks(100) == [slice(0, 100)]
    monkeypatch.setattr("algebraformer.models.device.MEMORY", 20 * 64 * 40)
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (2 * 20 * 64 * 40, 0))
    assert network.blocks(100) == [slice(0, 40), slice(40, 80), slice(80, 100)]


def test_lapack_answers_what_the_network_does_not(device):
    solver = af.LearnedSolver.from_pretrained("diffusion-64")
    systems = solver.info.problem_family().sample(12, seed=8)
    A, b = systems.A.copy(), systems.b
    A[3] = np.random.default_rng(0).standard_normal((64, 64))
    A_in, b_in = torch.asarray(A, device=device), torch.asarray(b, device=device)
    found = solver.solve(A_in, b_in)
    assert found.status[3] is Status.OUT_OF_DISTRIBUTION
    assert found.certified.all()
    np.testing.assert_allclose(host(found.x[3]), np.linalg.solve(A[3], b[3]), rtol=1e-9)
    other = solver.solve(A_in[:, :9, :9], b_in[:, :9])  # of another size
    assert set(other.status) == {Status.UNSUPPORTED}
    np.testing.assert_allclose(host(other.x), np.linalg.solve(A[:, :9, :9], b[:, :9, None])[..., 0], rtol=1e-9)
    A_in[5] = 0
    with pytest.raises(SingularSystemError) as raised:
        solver.solve(A_in, b_in)
    assert raised.value.indices == (5,)
    assert torch.isnan(raised.value.result.x).all(dim=1).tolist() == [i == 5 for i in range(12)]
    A_in[7, 1, 2] = torch.nan
    with pytest.raises(ValueError, match=r"A contains NaN or infinity, first at index \(7, 1, 2\)"):
        solver.solve(A_in, b_in)


def test_other_heads_answer_on_the_host(device):
    solver = af.LearnedSolver.from_pretrained("diffusion-64-token")
    systems = solver.info.problem_family().sample(3, seed=8)
    found = solver.solve(torch.asarray(systems.A, device=device), torch.asarray(systems.b, device=device))
    np.testing.assert_array_equal(host(found.x), solver.solve(systems.A, systems.b).x)
    assert found.x.device.type == device.type
    noisy = af.LearnedSolver.from_pretrained("deblur-64")
    data = noisy.info.problem_family().sample(2, seed=8)
    x = noisy.estimate(torch.asarray(data.A, device=device), torch.asarray(data.b, device=device)).x
    assert x.device.type == device.type
    np.testing.assert_array_equal(host(x), noisy.estimate(data.A, data.b).x)
    with pytest.raises(ConfigurationError):
        noisy.solve(torch.asarray(data.A, device=device), torch.asarray(data.b, device=device))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", ["f", "c"])
@pytest.mark.parametrize("transpose", [False, True])
def test_the_lu_of_a_gpu(device, kind, transpose):
    """Against SciPy; n is so small that torch's LU is right on the processor, too."""
    rng = np.random.default_rng(1)
    A, b = rng.standard_normal((6, 20, 20)), rng.standard_normal((6, 20, 2))
    if kind == "c":
        A, b = A + 1j * rng.standard_normal(A.shape), b + 1j * rng.standard_normal(b.shape)
    A[2] = scipy.linalg.hilbert(20)
    A[4, 7] = A[4, 3]  # singular, in exact arithmetic as well
    A[5] = 0
    known = np.array([False] * 5 + [True])
    found = device_lu.solve(torch.asarray(A, device=device), torch.asarray(b, device=device), None, known, transpose)
    expected = lapack.solve(A, b, None, known, transpose=transpose)
    assert found.singular[5]
    assert np.isnan(host(found.x[5])).all()
    assert np.isnan(found.forward_error[5])
    regular = [0, 1, 3]
    matrices = A.swapaxes(1, 2) if transpose else A
    np.testing.assert_allclose(host(found.x)[regular], np.linalg.solve(matrices[regular], b[regular]), rtol=1e-9)
    assert found.certified[[0, 1, 2, 3]].all()
    for i in regular:
        exact = 1 / (np.linalg.norm(matrices[i], 1) * np.linalg.norm(np.linalg.inv(matrices[i]), 1))
        assert np.isclose(found.rcond[i], exact, rtol=1e-8)
        assert found.forward_error[i] < 1e-10
    for i in (2, 4):  # singular to working precision
        assert found.singular[i] or found.rcond[i] < 1e-15
        assert found.singular[i] or found.forward_error[i] > 0.1
    np.testing.assert_allclose(found.forward_error[regular], expected.forward_error[regular], rtol=0.9)


# ---------------------------------------------------------------- the array API standard


def strict(array: np.ndarray) -> Any:
    """Return an array that has what the standard says, and nothing else."""
    return array_api_strict.asarray(array)


def test_the_standard_suffices_for_the_measures():
    rng = np.random.default_rng(2)
    A, b, x = rng.standard_normal((3, 5, 5)), rng.standard_normal((3, 5, 2)), rng.standard_normal((3, 5, 2))
    b[1] = x[1] = 0
    x[2, 3, 1] = np.inf
    for found, expected in zip(measure(strict(A), strict(b), strict(x)), measure(A, b, x), strict=True):
        np.testing.assert_allclose(np.asarray(found), expected, rtol=1e-14)


def test_the_standard_suffices_for_inverses_and_krylov_spaces():
    rng = np.random.default_rng(3)
    T, mean = rng.standard_normal((3, 5, 5)).astype(np.float32), rng.standard_normal((5, 5))
    s, v = np.array([1.0, -2.0, 0.5]), rng.standard_normal((3, 5, 2))
    arrays = [T, mean, s]
    M, other = ApproximateInverse(*arrays), ApproximateInverse(*map(strict, arrays))
    for one, same in ((M, other), (TransposedInverse(M), TransposedInverse(other))):
        np.testing.assert_allclose(np.asarray(same(strict(v))), one(v), rtol=1e-6)
        np.testing.assert_allclose(np.asarray(same.adjoint(strict(v))), one.adjoint(v), rtol=1e-6)
    A = rng.standard_normal((3, 5, 5))
    np.testing.assert_allclose(gcr.probe_defect(strict(A), other), gcr.probe_defect(A, M), rtol=1e-5)
    measured = measure(A, v, v)
    defect = np.full(3, 0.1)
    on_strict = measure(strict(A), strict(v), strict(v))
    error = forward_error(other, strict(v), on_strict, defect, probes=2)
    np.testing.assert_allclose(error, forward_error(M, v, measured, defect, probes=2), rtol=1e-5)
    space = KrylovSpace()
    for j in range(3):
        _, w = space.add(strict(v[:, :, :1] ** (j + 1)), None, strict(A @ v[:, :, :1] ** (j + 1)))
        np.testing.assert_allclose(np.asarray(length(w)), 1, rtol=1e-12)
        assert all(np.abs(np.asarray(dot(other, w))).max() < 1e-10 for other in space.W[:-1])
