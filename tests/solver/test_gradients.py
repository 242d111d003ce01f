"""Gradients through solutions and estimates, against finite differences, closed forms, Cramer's rule and torch.

torch is asked to solve one small system at a time: its batched LU is not reliable on the CPU, nor are the transforms of
`torch.func` that make a batch.
"""

from __future__ import annotations

import copy
import functools
import gc
import itertools
import pickle
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import scipy.linalg
import torch
from scipy.linalg import LinAlgWarning
from torch import Tensor
from torch.autograd import gradcheck, gradgradcheck
from torch.func import grad, hessian, jacfwd, jacrev, vmap

import algebraformer as af
from algebraformer.autograd.estimate import EstimateCall
from algebraformer.errors import ArrayKindError, ConfigurationError, FallbackWarning, SingularSystemError
from algebraformer.models.inference.network import NumpyNetwork
from algebraformer.numerics.lapack import Factors
from algebraformer.problems.chebyshev import differentiation_matrix, points
from tests.fakes import exact, fake_solver, nearly_right, shipped

N = 3
EPS = np.finfo(float).eps
DTYPES = {"real": torch.float64, "complex": torch.complex128}
FORMS = [((), (N,)), ((), (N, 2)), ((2,), (2, N)), ((2,), (2, N, 2))]
"""Shapes of A without its last two axes, and of b."""


@functools.cache
def solver() -> af.LearnedSolver:
    """A token head that refines: LAPACK solves transposed systems, and complex ones."""
    return fake_solver(nearly_right, N)


def small(A_shape: tuple[int, ...], b_shape: tuple[int, ...], numbers: str = "real") -> tuple[Tensor, Tensor]:
    """Well-conditioned systems, which require gradients."""
    generator = torch.Generator().manual_seed(len(A_shape) + len(b_shape))
    A = torch.rand(*A_shape, N, N, dtype=DTYPES[numbers], generator=generator) + 3 * torch.eye(N)
    b = torch.randn(b_shape, dtype=DTYPES[numbers], generator=generator)
    return A.requires_grad_(), b.requires_grad_()


def of_family(count: int, seed: int = 5) -> tuple[Tensor, Tensor]:
    """Systems of the family of diffusion-64."""
    systems = shipped().info.problem_family().sample(count, seed=seed)
    return torch.tensor(systems.A, requires_grad=True), torch.tensor(systems.b, requires_grad=True)


def cramer(A: Tensor, b: Tensor) -> Tensor:
    """Solutions of 3 x 3 systems in the shape of b, by products alone, which every transform applies to."""
    first, second, third = A.unbind(-1)
    cross = [torch.cross(*pair, dim=-1) for pair in ((second, third), (third, first), (first, second))]
    inverse = torch.stack(cross, dim=-2) / (first * cross[0]).sum(dim=-1)[..., None, None]
    return inverse @ b if b.ndim == A.ndim else (inverse @ b[..., None])[..., 0]


def cubes(solve: Callable[..., Any], **options: Any) -> Callable[[Tensor, Tensor], Tensor]:
    """A loss of the solution that is not linear in it."""
    return lambda A, b: (solve(A, b, **options) ** 3).sum()


def learned(A: Tensor, b: Tensor) -> Tensor:
    return solver().solve(A, b).x


# torch itself scripts something when it is first asked for a derivative forward.
forward_mode = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


# ---------------------------------------------------------------- finite differences


@pytest.mark.parametrize("numbers", DTYPES)
@pytest.mark.parametrize("transpose", [False, True])
@pytest.mark.parametrize(("A_shape", "b_shape"), FORMS)
def test_gradcheck(A_shape, b_shape, transpose, numbers):
    A, b = small(A_shape, b_shape, numbers)
    solving = solver()

    def solve(A, b):
        return solving.solve(A, b, transpose=transpose).x

    assert gradcheck(solve, (A, b))
    assert gradgradcheck(solve, (A, b), fast_mode=True)
    assert gradcheck(lambda A, b: solving.prepare(A).solve(b, transpose=transpose).x, (A, b), fast_mode=True)
    assert gradcheck(lambda A: solve(A, b.detach()), (A,), fast_mode=True)
    for function in (solve, lambda A, b: solving.prepare(A).solve(b, transpose=transpose).x):
        assert gradgradcheck(functools.partial(function, A.detach()), (b,), fast_mode=True)


@pytest.mark.parametrize("of_A", DTYPES)
def test_gradcheck_of_mixed_numbers(of_A):
    """Real matrices of complex right-hand sides, and the other way round: gradients are of their input's kind."""
    A = small((3,), (3, N), of_A)[0]
    b = small((3,), (3, N), "real" if of_A == "complex" else "complex")[1]
    assert gradcheck(learned, (A, b), fast_mode=True)
    assert gradgradcheck(learned, (A, b), fast_mode=True)


def test_gradcheck_of_the_network():
    """Learned in all directions: along the two parameters of the family and a factor of b."""
    D, x = torch.tensor(differentiation_matrix(66)), torch.tensor(points(66))
    b = of_family(1)[1][0].detach()
    methods = set()

    def entries(alpha, omega, factor):
        A = -(D[1:-1] * (1 + alpha * torch.cos(2 * torch.pi * omega * x))) @ D[:, 1:-1]
        result = shipped().solve(A, factor * torch.stack([b, b.flip(0)], dim=1))
        methods.add(result.method)
        return result.x[::16]

    at = tuple(torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (0.5, 1.3, 2.0))
    assert gradcheck(entries, at)
    # Differences of first derivatives, which carry rounding times the condition of A, 1e6.
    assert gradgradcheck(entries, at, eps=1e-4, rtol=1e-3)
    assert methods == {"learned+refined"}


# ---------------------------------------------------------------- closed forms


@pytest.mark.parametrize("prepare", [False, True])
@pytest.mark.parametrize("columns", [(), (3,)])
@pytest.mark.parametrize("batched", [True, False])
def test_closed_form(batched, columns, prepare):
    """dL/db = A^-T g and dL/dA = -(A^-T g) x^T, to what the condition of A lets the two solutions have in common."""
    A, b = (v.detach() if batched else v.detach()[0] for v in of_family(4))
    b = torch.stack([b, b.flip(-1), b**2], dim=-1) if columns else b
    A, b = A.requires_grad_(), b.requires_grad_()
    plain = shipped().solve(A.detach(), b.detach())
    result = shipped().prepare(A).solve(b) if prepare else shipped().solve(A, b)
    assert torch.equal(result.x, plain.x)
    assert result.record() == plain.record()
    g = torch.randn(b.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = torch.autograd.grad(result.x, (A, b), g)
    A, b, g = A.detach().numpy(), b.detach().numpy(), g.numpy()
    right, x = (v if columns else v[..., None] for v in (g, result.x.detach().numpy()))
    w = np.linalg.solve(A.swapaxes(-1, -2), right)
    condition = np.linalg.cond(A).max()
    for value, expected in zip(found, (-w @ x.swapaxes(-1, -2), w), strict=True):
        scale = np.abs(expected).max()
        np.testing.assert_allclose(
            value.numpy(), expected.reshape(value.shape), atol=4 * 64 * EPS * condition * scale, rtol=0
        )


def test_one_reading_and_no_factorisation(monkeypatch):
    monkeypatch.setattr(Factors, "of", None)
    readings, read = [], NumpyNetwork.read
    monkeypatch.setattr(NumpyNetwork, "read", lambda self, A: readings.append(len(A)) or read(self, A))
    A, b = of_family(3)
    shipped().solve(A, b).x.square().sum().backward()
    assert sum(readings) == 3
    prepared = shipped().prepare(A)
    for _ in range(2):
        prepared.solve(b).x.square().sum().backward()
    assert sum(readings) == 6


def test_factors_of_lapack_serve_both_directions(monkeypatch):
    made, of = [], Factors.of
    monkeypatch.setattr(Factors, "of", lambda A, *rest: made.append(A.shape) or of(A, *rest))
    A, b = small((), (N,))
    (first,) = torch.autograd.grad(cubes(lambda A, b: shipped().solve(A, b).x)(A, b), A)
    assert len(made) == 1
    (expected,) = torch.autograd.grad(cubes(torch.linalg.solve)(A, b), A)
    torch.testing.assert_close(first, expected)


def test_single_precision():
    """x is float64 as ever; gradients have the dtypes of their inputs."""
    A, b = (v.detach().float().requires_grad_() for v in of_family(3))
    x = shipped().solve(A, b).x
    assert x.dtype == torch.float64
    found = torch.autograd.grad(x.sum(), (A, b))
    assert {g.dtype for g in found} == {torch.float32}
    double = tuple(v.detach().double().requires_grad_() for v in (A, b))
    for value, expected in zip(found, torch.autograd.grad(shipped().solve(*double).x.sum(), double), strict=True):
        assert torch.equal(value, expected.float())


def test_integers_are_constants():
    A = 3 * torch.eye(N, dtype=torch.int64) + 1
    b = torch.arange(N, dtype=torch.float64).requires_grad_()
    (found,) = torch.autograd.grad(solver().solve(A, b).x.sum(), b)
    torch.testing.assert_close(found, torch.linalg.solve(A.double().T, torch.ones(N, dtype=torch.float64)))


# ---------------------------------------------------------------- torch.func


def test_grad_of_a_system():
    A, b = (v.detach() for v in small((), (N,)))
    for arguments in (0, 1, (0, 1)):
        expected = grad(cubes(torch.linalg.solve), arguments)(A, b)
        torch.testing.assert_close(grad(cubes(cramer), arguments)(A, b), expected)
        torch.testing.assert_close(grad(cubes(learned), arguments)(A, b), expected)
        prepared = grad(cubes(lambda A, b: solver().prepare(A).solve(b).x), arguments)(A, b)
        torch.testing.assert_close(prepared, expected)


@pytest.mark.parametrize("columns", [(), (2,)])
@pytest.mark.parametrize("dims", [(0, 0), (None, 0), (0, None), (1, -1)])
def test_vmap_is_one_batch(dims, columns, monkeypatch):
    A, b = (v.detach() for v in small((3,), (3, N, *columns)))
    A, b = A if dims[0] is not None else A[0], b if dims[1] is not None else b[0]
    pairs = [(A if dims[0] is None else A[i], b if dims[1] is None else b[i]) for i in range(3)]
    given = (A.movedim(0, 1) if dims[0] == 1 else A, b.movedim(0, -1) if dims[1] == -1 else b)
    solving, calls = solver(), []
    read = solving.network.read
    monkeypatch.setattr(solving.network, "read", lambda A: calls.append(len(A)) or read(A))
    x = vmap(lambda A, b: solving.solve(A, b).x, in_dims=dims)(*given)
    assert calls == ([1] if dims[0] is None else [3])
    torch.testing.assert_close(x, torch.stack([cramer(*pair) for pair in pairs]))
    calls.clear()
    found = vmap(grad(cubes(learned), (0, 1)), in_dims=dims)(*given)
    assert len(calls) == 1
    expected = [grad(cubes(cramer), (0, 1))(*pair) for pair in pairs]
    for value, parts in zip(found, zip(*expected, strict=True), strict=True):
        torch.testing.assert_close(value, torch.stack(parts))


def test_vmap_over_batches():
    A, b = (v.detach() for v in small((2, 3), (2, 3, N)))
    torch.testing.assert_close(vmap(learned)(A, b), cramer(A, b))
    torch.testing.assert_close(vmap(vmap(learned))(A, b), cramer(A, b))
    torch.testing.assert_close(vmap(vmap(learned, (None, 0)), (0, 0))(A[:, 0], b)[1, 2], cramer(A[1, 0], b[1, 2]))
    torch.testing.assert_close(vmap(learned, (None, 0))(A[0], b)[1], cramer(A[0], b[1]))
    columns = b[..., None] * torch.arange(1.0, 3.0)
    torch.testing.assert_close(vmap(learned, (None, 0))(A[0], columns)[1], cramer(A[0], columns[1]))
    torch.testing.assert_close(vmap(vmap(grad(cubes(learned))))(A, b), grad(cubes(cramer))(A, b))


@forward_mode
def test_jacobians_and_second_derivatives():
    A, b = (v.detach() for v in small((3,), (3, N)))
    for transform in (jacrev, jacfwd):
        found, expected = transform(learned, (0, 1)), transform(cramer, (0, 1))
        torch.testing.assert_close(found(A[0], b[0]), expected(A[0], b[0]))
        torch.testing.assert_close(vmap(found)(A, b), vmap(expected)(A, b))
    torch.testing.assert_close(jacrev(jacrev(cubes(learned)))(A[0], b[0]), hessian(cubes(cramer))(A[0], b[0]))
    torch.testing.assert_close(vmap(hessian(cubes(learned)))(A, b), vmap(hessian(cubes(cramer)))(A, b))
    whole = grad(lambda A, b: vmap(cubes(learned))(A, b).sum())(A, b)
    torch.testing.assert_close(whole, grad(cubes(cramer))(A, b))


@forward_mode
def test_forward_derivatives_of_transposed_systems():
    A, b = (v.detach() for v in small((2,), (2, N, 3)))
    found = jacfwd(lambda A: solver().solve(A, b, transpose=True).x)(A)
    expected = jacfwd(lambda A: cramer(A.mT, b[1]))(A[1])
    torch.testing.assert_close(found[1, :, :, 1], expected)


def test_prepared_inside_a_transform():
    A, b = (v.detach() for v in small((3,), (3, N)))
    seen = []

    def twice(A, b):
        prepared = solver().prepare(A)
        with pytest.raises(ConfigurationError):
            prepared.logdet()
        first = prepared.solve(b)
        seen.append(first)
        return prepared.solve(first.x).x.sum()

    found = vmap(grad(twice))(A, b)
    for i in range(3):
        torch.testing.assert_close(found[i], grad(lambda A, b: cramer(A @ A, b).sum())(A[i], b[i]))
    assert seen[0].certified.shape == (3,)


# ---------------------------------------------------------------- nothing more than is asked for


def test_without_gradients_nothing_changes(monkeypatch):
    A, b = of_family(2)
    expected = shipped().solve(A.detach().numpy(), b.detach().numpy()).x
    prepared = shipped().prepare(A)
    monkeypatch.setattr("algebraformer.autograd.solve.Solve", None)
    with torch.no_grad():
        x = shipped().solve(A, b).x
        ready = shipped().prepare(A)
    for found in (x, ready.solve(b.detach()).x, shipped().solve(A.detach(), b.detach()).x):
        assert not found.requires_grad
        np.testing.assert_array_equal(found.numpy(), expected)
    monkeypatch.undo()
    with torch.no_grad():
        assert not prepared.solve(b).x.requires_grad


def test_prepared_keeps_the_matrix():
    A, b = of_family(2)
    prepared = shipped().prepare(A)
    assert prepared.in_distribution.all()
    assert len(prepared.operator) == 2
    np.testing.assert_allclose(prepared.logdet(), np.linalg.slogdet(A.detach().numpy()))
    before = prepared.solve(b).x
    with torch.no_grad():
        A.mul_(2)
    after = prepared.solve(b).x
    assert torch.equal(before, after)
    found = torch.autograd.grad(after.sum(), A)[0]
    assert torch.equal(found, torch.autograd.grad(prepared.solve(b).x.sum(), A)[0])


def test_gradients_flow_to_the_matrix_that_was_prepared():
    """Also where it is no leaf of the graph, and is changed afterwards: a change that has no part in x."""
    A, b = of_family(1)
    changed = 1.0 * A
    prepared = shipped().prepare(changed)
    changed.mul_(2)
    found = torch.autograd.grad(prepared.solve(b).x.sum(), A)[0]
    assert torch.equal(found, torch.autograd.grad(shipped().solve(A, b).x.sum(), A)[0])


def test_changed_matrices_are_noticed():
    """As torch does it: a derivative at another place would be silently wrong."""
    A, b = of_family(1)
    x = shipped().solve(A, b).x
    with torch.no_grad():
        A.mul_(2)
    with pytest.raises(RuntimeError, match="inplace"):
        x.sum().backward()


def test_the_graph_is_freed():
    A, b = of_family(1)
    x = shipped().solve(A, b).x
    gone = weakref.ref(x)
    gc.disable()
    try:
        del x
        assert gone() is None
    finally:
        gc.enable()


# ---------------------------------------------------------------- certificates, warnings and errors


def test_out_of_distribution_is_lapacks_in_both_directions():
    generator = torch.Generator().manual_seed(0)
    A = torch.randn(3, 64, 64, dtype=torch.float64, generator=generator).requires_grad_()
    b = torch.randn(3, 64, dtype=torch.float64, generator=generator)
    with pytest.warns(FallbackWarning) as recorded:
        x = shipped().solve(A, b).x
    with pytest.warns(FallbackWarning) as backward:
        x.sum().backward()
    assert {r.filename for r in (*recorded, *backward)} == {__file__}
    w = np.linalg.solve(A.detach().numpy().swapaxes(1, 2), np.ones((3, 64, 1)))
    expected = -w * x.detach().numpy()[:, None]
    np.testing.assert_allclose(A.grad.numpy(), expected, atol=1e-11 * np.abs(expected).max())


def test_an_uncertified_gradient_warns():
    """Where the network may not be helped, its gradient is as good as its answer, and says so."""
    A = torch.eye(64, dtype=torch.float64).requires_grad_()
    b = torch.ones(64, dtype=torch.float64)
    result = shipped().solve(A, b, fallback=False)
    assert not result.certified
    with pytest.warns(LinAlgWarning) as recorded:
        result.x.sum().backward()
    assert [r.filename for r in recorded] == [__file__]


def test_the_tolerance_is_passed_on():
    A, b = of_family(3)
    found = [torch.autograd.grad(shipped().solve(A, b, rtol=rtol).x.sum(), b)[0] for rtol in (1e-2, None)]
    residuals = [torch.linalg.vector_norm((A.mT @ w[..., None])[..., 0] - 1, dim=1) / 8 for w in found]
    assert (residuals[0] <= 1e-2).all()
    assert (residuals[0] > 1e3 * residuals[1]).all()


def test_singular_systems_raise():
    A, b = small((3,), (3, N))
    A = A.detach().clone()
    A[1, 2] = 0
    A.requires_grad_()
    for solve in (solver().solve, lambda A, b: solver().prepare(A).solve(b)):
        with pytest.raises(SingularSystemError) as raised:
            solve(A, b)
        assert raised.value.indices == (1,)
        assert torch.isnan(raised.value.result.x).all(dim=1).tolist() == [False, True, False]


def test_an_infinite_gradient_raises():
    A, b = of_family(1)
    x = shipped().solve(A, b).x
    with pytest.raises(ValueError, match="gradient"):
        (x * torch.inf).sum().backward()


def test_token_heads_need_lapack_for_gradients():
    A, b = small((), (N,))
    x = fake_solver(exact, N).solve(A, b, fallback=False).x
    with pytest.raises(ConfigurationError):
        x.sum().backward()


def test_refused_kinds():
    A, b = small((), (N,))
    for call in (solver().solve, af.solve, lambda A, b: solver().prepare(A).solve(b)):
        for pair in ((A, b.detach().numpy()), (A.detach().numpy(), b), (A.half(), b), (A, b.bfloat16())):
            with pytest.raises(ArrayKindError):
                call(*pair)
        with pytest.raises(ValueError, match=f"{N - 1}"):
            call(A, b[1:])
    with pytest.raises(ValueError, match="shape"):
        solver().solve(A[1:], b)


# ---------------------------------------------------------------- af.solve


STRUCTURES = (None, "gen", "sym", "her", "pos", "diagonal", "tridiagonal", "banded", "upper triangular")


@pytest.mark.parametrize("numbers", DTYPES)
@pytest.mark.parametrize("assume_a", [*STRUCTURES, "lower triangular"])
def test_the_drop_in(assume_a, numbers):
    """Also for stacks that broadcast: the solutions of SciPy, and gradients to the entries that it reads."""
    A, b = small((2, 1), (3, N, 2), numbers)
    A = (A @ A.mH).detach().requires_grad_()
    for lower, transposed in itertools.product((False, True), (False, True) if numbers == "real" else (False,)):

        def solve(a, b, options=(lower, assume_a, transposed)):
            lower, assume_a, transposed = options
            return af.solve(a, b, lower, assume_a=assume_a, transposed=transposed)

        expected = scipy.linalg.solve(A.detach(), b.detach(), lower, assume_a=assume_a, transposed=transposed)
        np.testing.assert_allclose(solve(A, b).detach().numpy(), expected, rtol=1e-10, atol=1e-12)
        assert gradcheck(solve, (A, b), fast_mode=True)


def test_the_drop_in_with_the_network():
    A, b = of_family(3)
    x = af.solve(A, b[..., None])
    np.testing.assert_array_equal(x.detach().numpy(), af.solve(A.detach().numpy(), b.detach().numpy()[..., None]))
    found = torch.autograd.grad(x.sum(), A)[0]
    assert torch.equal(found, torch.autograd.grad(shipped().solve(A, b).x.sum(), A)[0])
    single = af.solve(A[0].float(), b[0].float())
    assert (single.dtype, single.shape, single.requires_grad) == (torch.float32, (64,), True)
    assert torch.equal(vmap(lambda A, b: af.solve(A, b))(A, b), x[..., 0])


def test_what_the_drop_in_refuses():
    A, b = small((), (N,), "complex")
    with pytest.raises(NotImplementedError):
        af.solve(A, b, transposed=True)
    A, b = small((), (N,))
    with pytest.raises(np.linalg.LinAlgError):
        af.solve(-A @ A.T, b, assume_a="pos")
    for pair, options in (((A, b), {"assume_a": "round"}), ((A[0], b), {}), ((A, b[0]), {})):
        with pytest.raises(ValueError, match=r"expected|recognized"):
            af.solve(*pair, **options)


# ---------------------------------------------------------------- the module


def test_the_module():
    A, b = of_family(3)
    layer = af.nn.Solve(shipped())
    assert torch.equal(layer(A, b), shipped().solve(A, b).x)
    assert (list(layer.parameters()), layer.state_dict()) == ([], {})
    loss = torch.nn.Sequential(torch.nn.Linear(64, 64, dtype=torch.float64))
    layer(A.detach(), loss(b.detach())).square().sum().backward()
    assert loss[0].weight.grad.abs().max() > 0
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(A, b), layer(A, b))


def test_options_of_the_module():
    A, b = of_family(2)
    layer = af.nn.Solve("diffusion-64", rtol=1e-3, transpose=True, max_refinements=9, fallback=False, assume_a="pos")
    expected = shipped().solve(A, b, 1e-3, 9, False, "pos", True).x
    assert torch.equal(layer(A, b), expected)
    assert "rtol=0.001" in repr(layer)
    with pytest.raises(ConfigurationError):
        af.nn.Solve("deblur-64")


# ---------------------------------------------------------------- estimates


@pytest.fixture(scope="module")
def noisy(estimate_run) -> tuple[af.LearnedSolver, Tensor, Tensor]:
    """A small estimate network and systems of its family, 15 equations for 12 unknowns."""
    estimating = af.LearnedSolver.from_pretrained(estimate_run)
    systems = estimating.info.problem_family().sample(6, seed=8)
    return estimating, torch.tensor(systems.A), torch.tensor(systems.b)


@pytest.fixture
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", af.errors.InconsistentWarning)
        yield


def test_estimates_are_the_same_with_gradients(noisy, quiet):
    solver, A, b = noisy
    expected, found = solver.estimate(A.numpy(), b.numpy()), solver.estimate(A, b.clone().requires_grad_())
    assert found.record() == expected.record()
    assert all(end.requires_grad for end in found.interval)


@pytest.mark.parametrize("name", ["deblur-64", "small"])
def test_torch_computes_the_same_estimates(name, noisy, quiet):
    """What is differentiated is what was returned, but for the rounding of single precision."""
    solver, A, b = noisy
    if name != "small":
        solver = shipped(name)
        systems = solver.info.problem_family().sample(6, seed=8)
        A, b = torch.tensor(systems.A), torch.tensor(systems.b)
    head = solver.model.estimate_head
    x, std = EstimateCall(solver.estimate, lambda: solver.model, None, solver.model, head.reader).outputs(A.numpy(), b)
    found = solver.estimate(A, b)
    torch.testing.assert_close(x, found.x, rtol=0, atol=1e-5 * float(found.x.abs().max()))
    torch.testing.assert_close(std, found.std, rtol=1e-3, atol=0)


def in_double(model: Any, monkeypatch: pytest.MonkeyPatch) -> EstimateCall:
    """What is differentiated, with a network in double precision."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)  # what the network is given
    unused: Any = None
    return EstimateCall(unused, unused, None, copy.deepcopy(model).double(), model.estimate_head.reader)


def test_gradcheck_of_estimates(noisy, monkeypatch):
    """Scaling, tokens, network, update by the data and calibration."""
    solver, A, b = noisy
    call = in_double(solver.model, monkeypatch)
    assert gradcheck(lambda b: call.outputs(A[:2].numpy(), b), b[:2].clone().requires_grad_(), fast_mode=True)


def test_precision_of_gradients_of_estimates(monkeypatch, quiet):
    """The longest chains of single precision, a thousand roundings: 1e-5, and a margin for other kernels."""
    solver = shipped("deblur-64")
    systems = solver.info.problem_family().sample(10, seed=8)
    b = torch.tensor(systems.b, requires_grad=True)
    weights = torch.rand(systems.x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) - 0.5

    def slopes(x: Tensor, std: Tensor) -> list[Tensor]:
        return [torch.autograd.grad((weights * v).sum(), b, retain_graph=True)[0] for v in (x, std)]

    estimate = solver.estimate(torch.tensor(systems.A), b)
    found = slopes(estimate.x, estimate.std)
    expected = slopes(*in_double(solver.model, monkeypatch).outputs(systems.A, b))
    for single, double in zip(found, expected, strict=True):
        error = torch.linalg.vector_norm(single - double, dim=1) / torch.linalg.vector_norm(double, dim=1)
        assert error.max() < 1e-4


def test_gradients_of_estimates(noisy, quiet):
    """Against differences of NumPy's estimates along a line.

    Over 3e-4 of b single precision leaves three digits; over more, amplitudes pass from one piece of the calibration to
    the next.
    """
    solver, A, b = noisy
    b = b.clone().requires_grad_()
    found = solver.estimate(A, b)
    step = 3e-4 * torch.randn(b.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    step = step * b.detach().abs().mean(dim=1, keepdim=True)
    ahead, behind = (solver.estimate(A, b.detach() + sign * step) for sign in (1, -1))
    for name in ("x", "std"):
        weights = torch.rand(found.x.shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) - 0.5
        (slope,) = torch.autograd.grad((weights * getattr(found, name)).sum(), b, retain_graph=True)
        difference = (weights * (getattr(ahead, name) - getattr(behind, name))).sum(dim=1) / 2
        along = (slope * step).sum(dim=1)
        assert (along - difference).abs().max() <= 2e-2 * difference.abs().max()


def test_shapes_of_gradients_of_estimates(noisy, quiet):
    """Every right-hand side is a system of its own."""
    solver, A, b = noisy

    def gradient(A, b):
        b = b.clone().requires_grad_()
        found = solver.estimate(A, b)
        return torch.autograd.grad((found.x * found.std).sum(), b)[0]

    one = torch.stack([gradient(A[0], v) for v in b])
    torch.testing.assert_close(gradient(A[0], b.T.contiguous()).T, one, rtol=1e-4, atol=1e-6 * float(one.abs().max()))
    several = gradient(A[:2], torch.stack([b[:2], b[2:4]], dim=-1))
    for i, j in itertools.product(range(2), range(2)):
        expected = gradient(A[i], b[2 * j + i])
        torch.testing.assert_close(several[i, :, j], expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert gradient(A[0], b[0].float()).dtype == torch.float32
    assert gradient(A[:0], b[:0]).shape == (0, 15)


def test_transforms_of_estimates(noisy, quiet):
    solver, A, b = noisy

    def mean(b):
        return solver.estimate(A[0], b).x

    J = jacrev(mean)(b[0])
    assert J.shape == (12, 15)
    point = b[0].clone().requires_grad_()
    rows = torch.stack([torch.autograd.grad(mean(point)[i], point)[0] for i in range(12)])
    torch.testing.assert_close(J, rows, rtol=1e-4, atol=1e-6 * float(J.abs().max()))
    torch.testing.assert_close(vmap(mean)(b), solver.estimate(A[0], b.T.contiguous()).x.T)
    J_all = vmap(jacrev(mean))(b)
    torch.testing.assert_close(J_all[0], J, rtol=1e-4, atol=1e-6 * float(J.abs().max()))
    with pytest.raises(ConfigurationError):
        vmap(lambda A, b: solver.estimate(A, b).x)(A, b)


def test_estimates_carry_no_gradients_to_matrices(noisy, quiet):
    solver, A, b = noisy
    with pytest.raises(ConfigurationError):
        solver.estimate(A.clone().requires_grad_(), b)
    with pytest.raises(ConfigurationError):
        grad(lambda A: solver.estimate(A, b).x.sum())(A)
    with torch.no_grad():
        assert not solver.estimate(A.clone().requires_grad_(), b).x.requires_grad
    with pytest.raises(ConfigurationError):
        shipped().estimate(A, b.clone().requires_grad_())


def test_estimates_leave_the_network_alone(noisy, quiet):
    solver, A, b = noisy
    b = b.clone().requires_grad_()
    (slope,) = torch.autograd.grad(solver.estimate(A, b).x.sum(), b, create_graph=True)
    slope.square().sum().backward()
    assert torch.isfinite(b.grad).all()
    assert all(p.grad is None for p in solver.model.parameters())
