"""The certificate around any module of torch that maps A and b to x."""

from __future__ import annotations

import copy
import dataclasses
import pickle

import numpy as np
import pytest
import torch
from torch import nn

from algebraformer import LearnedSolver, checkpoint, evaluation, problems
from algebraformer.errors import ConfigurationError, SingularSystemError, Status
from algebraformer.problems.custom import as_family

N = 12
FAMILY = problems.get("diffusion", n=N)
SYSTEMS = FAMILY.sample(20, seed=1)


class Exact(nn.Module):
    """Gauss-Jordan elimination without pivoting, which these families do not need; torch.linalg is not used here."""

    def __init__(self, dtype=torch.float64, returned=None):
        super().__init__()
        self.register_buffer("one", torch.ones((), dtype=dtype))
        self.returned, self.seen = returned or dtype, []

    def forward(self, A, b):
        self.seen.append((A, b))
        M = torch.cat((A, b[:, :, None]), dim=2)
        for i in range(A.shape[1]):
            row = M[:, i : i + 1] / M[:, i : i + 1, i : i + 1]
            M = M - M[:, :, i : i + 1] * row
            M[:, i : i + 1] = row
        return M[:, :, -1].to(self.returned)


class Returns(nn.Module):
    """Whatever a function of A and b says."""

    def __init__(self, f):
        super().__init__()
        self.f = f

    def forward(self, A, b):
        return self.f(A, b)


def accurate(result, systems=SYSTEMS):
    """Whether x is that of LAPACK to a factor of what the condition explains."""
    bound = 100 * np.finfo(float).eps * np.linalg.cond(systems.A)
    error = np.linalg.norm(result.x - systems.x, axis=1) / np.linalg.norm(systems.x, axis=1)
    return (error <= bound).all()


@pytest.mark.parametrize("scale", ["family", "unit"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("returned", [torch.float64, torch.float32])
def test_an_exact_module(scale, dtype, returned) -> None:
    """What single precision leaves is refined away."""
    solver = LearnedSolver.from_module(Exact(dtype, returned), FAMILY, scale)
    result = solver.solve(SYSTEMS.A, SYSTEMS.b)
    assert result.certified.all()
    assert result.in_distribution.all()
    assert set(result.method) <= {"learned", "learned+refined"}
    assert accurate(result)
    if torch.float32 in (dtype, returned):
        assert (result.refinements > 0).all()
    one = solver.solve(SYSTEMS.A[0], SYSTEMS.b[0])
    assert (one.x.shape, one.certified, one.status) == ((N,), True, result.status[0])
    many = solver.solve(SYSTEMS.A, np.stack((SYSTEMS.b, 3 * SYSTEMS.b), axis=2))
    np.testing.assert_allclose(many.x[:, :, 1], 3 * many.x[:, :, 0], rtol=1e-8)
    prepared = solver.prepare(SYSTEMS.A)
    assert prepared.in_distribution.all()
    np.testing.assert_array_equal(prepared.solve(SYSTEMS.b).x, result.x)
    tensors = solver.solve(torch.from_numpy(SYSTEMS.A), torch.from_numpy(SYSTEMS.b))
    assert isinstance(tensors.x, torch.Tensor)
    np.testing.assert_array_equal(tensors.x, result.x)


def test_a_trained_module() -> None:
    """A linear map from the data to x, fitted by least squares on the family itself, is refined where it contracts."""

    def near_three(rng):
        return np.eye(6) * 3 + rng.uniform(-0.3, 0.3, (6, 6))

    near = as_family(near_three)
    linear = nn.Linear(6, 6, bias=False).double()
    systems = near.sample(200, seed=1)
    weight = np.linalg.lstsq(systems.b, systems.x, rcond=None)[0].T
    with torch.no_grad():
        linear.weight.copy_(torch.from_numpy(weight))
    solver = LearnedSolver.from_module(Returns(lambda A, b: linear(b)), near)
    held_out = near.sample(50, seed=2)
    bare = solver.predict(held_out.A, held_out.b)
    np.testing.assert_allclose(bare, held_out.b @ weight.T, rtol=1e-12)
    result = solver.solve(held_out.A, held_out.b, max_refinements=60)
    assert set(result.method) == {"learned+refined"}
    assert result.certified.all()
    np.testing.assert_allclose(result.x, held_out.x, rtol=1e-12)
    scores = evaluation.evaluate(solver, held_out)
    assert scores["network"]["relative_error_median"] < 0.3


@pytest.mark.parametrize(
    "f",
    [
        lambda A, b: 0 * b,
        lambda A, b: b,
        lambda A, b: -1e3 * b,
        lambda A, b: torch.full_like(b, torch.nan),
        lambda A, b: torch.full_like(b, torch.inf),
        lambda A, b: torch.where(torch.arange(len(b))[:, None] % 2 == 0, b, torch.nan),
        lambda A, b: torch.randn(b.shape, dtype=b.dtype, generator=torch.Generator().manual_seed(0)),
    ],
)
@pytest.mark.parametrize("scale", ["family", "unit"])
def test_a_bad_module(f, scale) -> None:
    """LAPACK answers; without it nothing is certified."""
    solver = LearnedSolver.from_module(Returns(f), FAMILY, scale)
    result = solver.solve(SYSTEMS.A, SYSTEMS.b)
    assert set(result.method) == {"lapack"}
    assert set(result.status) == {Status.FALLBACK}
    assert result.certified.all()
    assert accurate(result)
    assert not solver.solve(SYSTEMS.A, SYSTEMS.b, fallback=False).certified.any()


@pytest.mark.parametrize(
    ("f", "received"),
    [
        (lambda A, b: b[:, :, None], r"float64 of shape \(1, 12, 1\)"),
        (lambda A, b: b.squeeze(0), r"float64 of shape \(12,\)"),
        (lambda A, b: b[:1], r"float64 of shape \(1, 12\)"),  # for two systems
        (lambda A, b: b.int(), "torch.int32"),
        (lambda A, b: b.cfloat(), "torch.complex64"),
        (lambda A, b: (b, b), "tuple"),
        (lambda A, b: b.numpy(), "ndarray"),
        (lambda A, b: None, "NoneType"),
    ],
)
def test_a_module_that_returns_no_x(f, received) -> None:
    with pytest.raises(ConfigurationError, match=received):
        LearnedSolver.from_module(Returns(f), FAMILY)


def test_a_module_that_raises() -> None:
    """Its own exception is passed on, when the solver is made and later."""
    calls = []

    def f(A, b):
        calls.append(len(b))
        if len(b) > 2:
            raise KeyError("mine")
        return b

    with pytest.raises(ZeroDivisionError):
        LearnedSolver.from_module(Returns(lambda A, b: 1 / 0), FAMILY)
    solver = LearnedSolver.from_module(Returns(f), FAMILY)
    with pytest.raises(KeyError, match="mine"):
        solver.solve(SYSTEMS.A, SYSTEMS.b)
    solver = LearnedSolver.from_module(Returns(lambda A, b: b if len(b) < 3 else b[:2]), FAMILY)
    with pytest.raises(ConfigurationError, match=r"shape \(2, 12\)"):
        solver.solve(SYSTEMS.A, SYSTEMS.b)
    assert calls[:2] == [1, 2]


def test_another_size_and_other_families() -> None:
    solver = LearnedSolver.from_module(Exact(), FAMILY)
    larger = problems.get("diffusion", n=N + 4).sample(5, seed=1)
    result = solver.solve(larger.A, larger.b)
    assert set(result.status) == {Status.UNSUPPORTED}
    assert accurate(result, larger)
    with pytest.raises(ValueError, match="n = 12"):
        solver.predict(larger.A, larger.b)
    foreign = SYSTEMS.A.copy()
    foreign[:, 0, -1] = 100 * np.abs(foreign).max(axis=(1, 2))
    result = solver.solve(foreign, SYSTEMS.b)
    np.testing.assert_allclose(result.x, np.linalg.solve(foreign, SYSTEMS.b[:, :, None])[:, :, 0], rtol=1e-6)
    assert set(result.status) == {Status.OUT_OF_DISTRIBUTION}
    assert set(result.method) == {"lapack"}
    np.testing.assert_array_equal(result.in_distribution, False)
    complex_b = solver.solve(SYSTEMS.A, SYSTEMS.b * 1j)
    np.testing.assert_allclose(complex_b.x.imag, SYSTEMS.x, rtol=1e-6)
    result = solver.solve(SYSTEMS.A, SYSTEMS.b, transpose=True)
    assert set(result.method) == {"lapack"}
    with pytest.raises(ConfigurationError, match="a module head: only linear heads"):
        solver.operator(SYSTEMS.A[0])


def test_what_the_module_is_given() -> None:
    module = Exact()
    solver = LearnedSolver.from_module(module, FAMILY)
    c, d = -1e3, 1e-4
    module.seen.clear()
    x = solver.predict(c * SYSTEMS.A, d * SYSTEMS.b)
    ((A, b),) = module.seen
    np.testing.assert_array_equal(A, c * SYSTEMS.A)
    rms = np.sqrt(np.mean(FAMILY.sample(4000, seed=5).b ** 2))
    np.testing.assert_allclose(b.square().mean(dim=1).sqrt(), rms, rtol=0.1)
    np.testing.assert_allclose(x, d / c * SYSTEMS.x, rtol=1e-8)

    solver = LearnedSolver.from_module(module, FAMILY, "unit")
    module.seen.clear()
    x = solver.predict(c * SYSTEMS.A, d * SYSTEMS.b)
    ((A, b),) = module.seen
    for part in (A, b):
        np.testing.assert_allclose(part.square().flatten(1).mean(dim=1), 1, rtol=1e-12)
    np.testing.assert_allclose(x, d / c * SYSTEMS.x, rtol=1e-8)


@pytest.mark.parametrize("scale", ["family", "unit"])
@pytest.mark.parametrize("size", [1e-290, 1e300])
def test_sizes_at_the_ends_of_float64(scale, size) -> None:
    solver = LearnedSolver.from_module(Exact(torch.float32), FAMILY, scale)
    A = SYSTEMS.A / np.abs(SYSTEMS.A).max()
    result = solver.solve(A, size * SYSTEMS.b)
    assert result.certified.all()
    assert not solver.solve(A, 0 * SYSTEMS.b).x.any()
    with pytest.raises(SingularSystemError):
        solver.solve(0 * A, SYSTEMS.b)
    with pytest.raises(ValueError, match="A"):
        solver.solve(np.where(np.eye(N), np.nan, A), SYSTEMS.b)


class Noisy(nn.Module):
    """Noise in training mode."""

    def __init__(self):
        super().__init__()
        self.dropout, self.exact = nn.Dropout(0.9), Exact()

    def forward(self, A, b):
        return self.dropout(self.exact(A, b))


def test_evaluation_mode_and_no_gradients() -> None:
    module = Noisy()
    solver = LearnedSolver.from_module(module, FAMILY)
    assert not module.training
    assert solver.solve(SYSTEMS.A, SYSTEMS.b).certified.all()
    assert (solver.network.module, solver.n, solver.kind) == (module, N, "f")
    linear = nn.Linear(N, N)
    solver = LearnedSolver.from_module(Returns(lambda A, b: linear(b.float())), FAMILY)
    solver.predict(SYSTEMS.A, SYSTEMS.b)
    assert linear.weight.grad is None


def test_copies_and_no_checkpoint(tmp_path) -> None:
    solver = LearnedSolver.from_module(Exact(torch.float32), FAMILY)
    x = solver.solve(SYSTEMS.A, SYSTEMS.b).x
    for other in (copy.deepcopy(solver), pickle.loads(pickle.dumps(solver))):
        np.testing.assert_array_equal(other.solve(SYSTEMS.A, SYSTEMS.b).x, x)
    with pytest.raises(ConfigurationError, match="not saved as a checkpoint"):
        checkpoint.save(tmp_path / "m", solver.network, solver.info)
    assert not (tmp_path / "m").exists()
    with pytest.raises(ConfigurationError, match=r"solver\.network\.module"):
        solver.model  # noqa: B018
    assert repr(solver) == f"LearnedSolver('module', n={N}, parameters=0)"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((lambda A, b: b, FAMILY), "torch.nn.Module, received function"),
        ((Exact(), FAMILY, "size"), "scale must be one of family, unit"),
        ((Exact(), problems.get("deblur", n=N)), "that x solves"),
        ((Exact(), problems.get("helmholtz", n=16)), "real square systems"),
        ((Exact(), problems.get("lp-regression", n=32, kind="filter", target="start")), "real square systems"),
    ],
)
def test_what_does_not_suit(arguments, message) -> None:
    with pytest.raises(ConfigurationError, match=message):
        LearnedSolver.from_module(*arguments)


def test_a_small_family() -> None:
    """Stored matrices: fewer than the sample asks for."""
    stored = problems.stored(SYSTEMS.A, "twenty-matrices")
    solver = LearnedSolver.from_module(Exact(), stored)
    assert solver.solve(SYSTEMS.A, SYSTEMS.b).certified.all()
    assert dataclasses.asdict(solver.info)["family"] == stored.settings()
