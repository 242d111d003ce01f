"""LearnedSolver around networks that are right, nearly right and wrong; its certificate, its shapes, its company."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import scipy.linalg
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.linalg import LinAlgWarning

from algebraformer.checkpoint import CheckpointInfo
from algebraformer.errors import ConfigurationError, SingularSystemError, Status
from algebraformer.linalg import measures
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.solver import LearnedSolver
from tests.fakes import GOOD, WRONG, exact, fake_solver, shrunk, single
from tests.stress.certificates import exact_measures

N = 6
EPS = np.finfo(float).eps


ZEROS = WRONG["zeros"]


def stub_solver(answer, n=N, reach=np.inf):
    return fake_solver(answer, n, reach)


def systems(*A_shape, columns=(), n=N, seed=0):
    """Well-conditioned A (..., n, n) and b (..., n, *columns)."""
    rng = np.random.default_rng(seed)
    return 3 * np.eye(n) + 0.5 * rng.uniform(-1, 1, (*A_shape, n, n)), rng.standard_normal((*A_shape, n, *columns))


def reference(A, b):
    """LAPACK's answer through SciPy, in the shape of b."""
    columns = b.reshape(*A.shape[:-1], -1)
    return scipy.linalg.solve(A, columns, assume_a="gen").reshape(b.shape)


# ---------------------------------------------------------------- what the network is worth


def test_an_exact_network_is_not_refined():
    A, b = systems(5)
    result = stub_solver(exact).solve(A, b)
    assert set(result.status) == {Status.LEARNED}
    assert set(result.method) == {"learned"}
    assert not result.refinements.any()
    np.testing.assert_array_equal(result.x, exact(A, b))
    np.testing.assert_array_equal(result.x, stub_solver(exact).predict(A, b))


@pytest.mark.parametrize("name", ["single", "perturbed", "one off"])
def test_an_approximate_inverse_is_refined(name):
    A, b = systems(5)
    result = stub_solver(GOOD[name]).solve(A, b, fallback=False)
    assert set(result.status) == {Status.REFINED}
    assert set(result.method) == {"learned+refined"}
    assert np.all((result.refinements >= 1) & (result.refinements <= 6))
    assert np.all(result.backward_error <= N * EPS)
    np.testing.assert_allclose(result.x, exact(A, b), rtol=1e-13)
    assert np.all(result.forward_error > 0)  # the last correction, from a residual above the tolerance


@pytest.mark.parametrize(("rtol", "refinements"), [(0.5, 0), (3e-2, 1), (3e-4, 3), (3e-8, 7), (3e-11, 10)])
def test_number_of_refinements(rtol, refinements):
    """A tenth of the residual is left each time: 0.1 ** (refinements + 1)."""
    result = stub_solver(shrunk(0.1)).solve(*systems(), rtol=rtol)
    assert result.refinements == refinements
    assert result.relative_residual == pytest.approx(0.1 ** (refinements + 1), rel=1e-3)


def test_refinement_stops_at_its_limit_with_the_best_iterate():
    A, b = systems()
    found = [stub_solver(shrunk(0.1)).solve(A, b, max_refinements=m, fallback=False) for m in range(4)]
    assert [r.refinements for r in found] == [0, 1, 2, 3]
    assert {r.status for r in found} == {Status.UNCERTIFIED}
    assert not any(r.certified for r in found)
    for m, r in enumerate(found):
        np.testing.assert_allclose(b - A @ r.x, 0.1 ** (m + 1) * b, rtol=1e-9, atol=1e-12)
    assert stub_solver(shrunk(0.1)).solve(A, b, max_refinements=0).method == "lapack"


def test_refinement_stops_when_the_backward_error_does_not_fall():
    A, b = systems()
    asked = []

    def once(A, right):
        asked.append(right)
        return shrunk(0.1)(A, right) if len(asked) == 1 else 100 * right

    result = stub_solver(once).solve(A, b, fallback=False)
    assert len(asked) == 2  # the answer, and one correction that made it worse
    np.testing.assert_allclose(asked[1][0], b - A @ result.x, atol=1e-14)
    assert (result.refinements, result.status) == (0, Status.UNCERTIFIED)
    assert result.relative_residual == pytest.approx(0.1)


def test_a_correction_that_reaches_the_tolerance_is_kept():
    """The backward error stays 1 because of a last row nobody sees; the residual falls from 1e-6 to 1e-12."""
    A, b = np.diag([1.0] * (N - 1) + [1e-20]), np.array([1.0] * (N - 1) + [1e-20])
    blind = stub_solver(lambda A, b: (1 - 1e-6) * b * np.append(np.ones(N - 1), 0))
    result = blind.solve(A, b, rtol=1e-10)
    assert (result.status, result.refinements) == (Status.REFINED, 1)
    assert result.relative_residual < 1e-10
    assert result.backward_error == 1


@pytest.mark.parametrize("shape", [(), (3,)], ids=["one", "batch"])
@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_network_leaves_lapacks_answer(name, shape):
    A, b = systems(*shape, columns=(2,))
    result = stub_solver(WRONG[name]).solve(A, b)
    np.testing.assert_allclose(result.x, reference(A, b), rtol=1e-12)
    assert {Status.FALLBACK} == set(np.atleast_1d(result.status))
    assert {"lapack"} == set(np.atleast_1d(result.method))
    assert np.all(result.certified)


def test_only_what_the_network_cannot_solve_goes_to_lapack():
    A, b = systems(4)
    third = A[2, 0, 0]
    result = stub_solver(lambda A, b: exact(A, b) * np.where(A[:, 0, :1] == third, -1, 1)).solve(A, b)
    assert [s.name for s in result.status] == ["LEARNED", "LEARNED", "FALLBACK", "LEARNED"]
    assert list(result.method) == ["learned", "learned", "lapack", "learned"]
    np.testing.assert_allclose(result.x, reference(A, b), rtol=1e-12)


def test_a_misshapen_network_cannot_predict():
    with pytest.raises(ConfigurationError, match="shape"):
        stub_solver(WRONG["too long"]).predict(*systems())


# ---------------------------------------------------------------- shapes


@pytest.mark.parametrize("columns", [(), (1,), (4,)])
@pytest.mark.parametrize("batch", [(), (1,), (3,), (N,)])
@pytest.mark.parametrize("name", ["exact", "shrunk", "zeros"])
def test_shapes(name, batch, columns):
    A, b = systems(*batch, columns=columns)
    solver = stub_solver((GOOD | WRONG)[name])
    result = solver.solve(A, b)
    assert result.x.shape == b.shape
    np.testing.assert_allclose(result.x, reference(A, b), rtol=1e-8)
    fields = {k: v for k, v in vars(result).items() if k != "x"}
    kinds = {"status": Status, "method": str, "refinements": int, "certified": bool, "in_distribution": bool}
    if batch:
        assert {v.shape for v in fields.values()} == {batch}
        for i in range(len(A)):
            alone = solver.solve(A[i], b[i])
            np.testing.assert_allclose(result.x[i], alone.x, rtol=1e-12)
            assert [fields[k][i] for k in kinds] == [getattr(alone, k) for k in kinds]
    else:
        assert {k: type(v) for k, v in fields.items()} == {k: kinds.get(k, float) for k in fields}
    record = json.loads(json.dumps(result.record(), allow_nan=False))
    assert set(record) == set(fields)
    assert np.shape(record["backward_error"]) == batch
    assert np.atleast_1d(record["status"]).tolist() == [status.name for status in np.atleast_1d(result.status)]


def test_columns_are_read_as_systems_of_their_own():
    A, b = systems(2, columns=(3,))
    x = stub_solver(single).predict(A, b)
    np.testing.assert_array_equal(x[1, :, 2], stub_solver(single).predict(A[1], b[1, :, 2]))


def test_the_worst_column_decides():
    A, b = systems(columns=(3,))
    third = stub_solver(lambda A, b: exact(A, b) * np.array([1, 1, 1.5])[: len(b), None])
    result = third.solve(A, b, max_refinements=0, fallback=False)
    assert not result.certified
    assert result.relative_residual == pytest.approx(0.5)


# ---------------------------------------------------------------- the certificate


@settings(max_examples=200, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    n=st.integers(1, 6),
    batch=st.integers(1, 3),
    columns=st.integers(1, 2),
    kind=st.sampled_from(["plain", "nearly singular", "graded rows", "graded columns", "hilbert"]),
    A_power=st.sampled_from([-150, -10, 0, 10, 150]),
    b_power=st.sampled_from([-150, -10, 0, 10, 150]),
    network=st.sampled_from([*GOOD, "opposite", "zeros", "1e308"]),
    rtol=st.sampled_from([None, 0.0, 1e-14, 1e-10, 1e-3]),
    fallback=st.booleans(),
    real=st.booleans(),
)
def test_certificate_is_true(seed, n, batch, columns, kind, A_power, b_power, network, rtol, fallback, real):
    """What float64 says of x agrees with 64-bit arithmetic up to the rounding of b - A x; never more is claimed."""
    rng = np.random.default_rng(seed)
    A, b = rng.standard_normal((batch, n, n)), rng.standard_normal((batch, n, columns))
    if kind == "nearly singular":
        A[:, -1] = A[:, 0] + 10.0 ** rng.integers(-17, -8) * A[:, -1]
    elif kind.startswith("graded"):
        A *= 10.0 ** rng.integers(-10, 11, (n, 1) if kind.endswith("rows") else n)
    elif kind == "hilbert":
        A[:] = scipy.linalg.hilbert(n)
    A, b = A * 10.0**A_power, b * 10.0**b_power
    if not real:
        A, b, fallback = A + 1j * A[:, ::-1], b * (1 - 1j), True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LinAlgWarning)
        try:
            result = stub_solver((GOOD | WRONG)[network], n).solve(A, b, rtol, fallback=fallback)
        except SingularSystemError as error:
            result = error.result
        except np.linalg.LinAlgError:  # of the stub, in single precision
            return
    for i in range(batch):
        true = np.array([exact_measures(A[i], b[i, :, j], result.x[i, :, j]) for j in range(columns)])
        relative, omega, growth = np.minimum(true, np.finfo(float).max).astype(float).T
        slack = (n + 2) * EPS  # of |A||x| + |b|, componentwise: the rounding of b - A x itself
        if np.isfinite(result.relative_residual[i]):
            assert result.relative_residual[i] == pytest.approx(relative.max(), rel=1e-9, abs=slack * growth.max())
        if np.isfinite(result.backward_error[i]):
            assert result.backward_error[i] == pytest.approx(omega.max(), rel=1e-9, abs=slack)
        tolerance = -np.inf if rtol is None else rtol
        if result.certified[i]:
            assert np.all((relative <= tolerance + slack * growth) | (omega <= n * EPS + slack))
        else:
            assert np.any((relative > tolerance - slack * growth) & (omega > n * EPS - slack))
        assert result.certified[i] == (result.status[i].name in ("LEARNED", "REFINED", "FALLBACK", "UNSUPPORTED"))


def test_certificate_of_complex_systems():
    relative, omega, _ = measures(np.eye(2) + 0j, np.array([[1], [1j]]), np.zeros((2, 1), complex))
    assert (relative.item(), omega.item()) == (1, 1)  # 1 + 1j ** 2 is 0, and no norm


@pytest.mark.parametrize("rtol", [None, 0.0])
def test_without_a_tolerance_answers_are_as_good_as_float64_allows(rtol):
    A, b = systems(5)
    result = stub_solver(single).solve(A, b, rtol=rtol)
    assert result.certified.all()
    assert np.all(result.backward_error <= N * EPS)
    assert np.all(result.refinements > stub_solver(single).solve(A, b, rtol=1e-6).refinements)


@pytest.mark.parametrize("option", [{"rtol": -1e-3}, {"rtol": np.nan}, {"rtol": np.inf}, {"max_refinements": -1}])
def test_options_out_of_range(option):
    with pytest.raises(ValueError, match=rf"{next(iter(option))} must be .*, received -?\w"):
        stub_solver(exact).solve(*systems(), **option)


@pytest.mark.parametrize("network", ["zeros", "perturbed"])
def test_estimate_of_the_forward_error_at_the_ends_of_the_range(network):
    """It does not depend on the units of A and b, and is infinite where x is beyond float64."""
    A, b = systems()
    solver = stub_solver((GOOD | WRONG)[network])
    found = [solver.solve(A, scale * b).forward_error for scale in (2.0**-900, 1.0, 2.0**900)]
    assert found == [found[0]] * 3
    assert 0 < found[0] < 1e-12
    assert stub_solver(ZEROS).solve(1e-300 * np.eye(N), np.full(N, 1e300)).forward_error == np.inf


# ---------------------------------------------------------------- beside others


def test_threads_share_a_solver():
    solver = LearnedSolver(
        Algebraformer(ModelConfig(n=N, n_layer=1, n_head=2, n_embd=8)).eval(),
        CheckpointInfo(name="fresh", family={}, commit=None, versions={}),
    )
    before = torch.get_rng_state(), torch.get_num_threads()
    for shared in (solver, stub_solver(single)):
        jobs = [systems(4, seed=seed) for seed in range(40)]
        serial = [shared.solve(A, b) for A, b in jobs]
        with ThreadPoolExecutor(8) as pool:
            parallel = list(pool.map(lambda job, shared=shared: shared.solve(*job), jobs))
        for one, other in zip(serial, parallel, strict=True):
            np.testing.assert_array_equal(one.x, other.x)
            assert one.record() == other.record()
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == torch.get_num_threads()


def test_torch_factorises_nothing():
    """Not torch.linalg, nor its older names, but on GPUs: on the CPU their batched LU is wrong on several threads."""
    banned = {"linalg", "inverse", "lu_solve", "lu", "cholesky", "cholesky_solve", "cholesky_inverse", "qr", "svd"}
    sources = sorted((Path(__file__).parents[2] / "src").rglob("*.py"))
    assert sources
    for source in (source for source in sources if source.name != "device_lu.py"):
        for node in ast.walk(ast.parse(source.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "torch":
                assert node.attr not in banned, f"{source}:{node.lineno}"
            elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "torch":
                names = {*(node.module or "").split("."), *(alias.name for alias in node.names)}
                assert not names & banned, f"{source}:{node.lineno}"
            elif isinstance(node, ast.Import):
                assert not any(alias.name.startswith("torch.linalg") for alias in node.names), f"{source}:{node.lineno}"


BATCHED_LU = """
import json, numpy as np, torch
from algebraformer.numerics import lapack
torch.set_num_threads(2)
rng = np.random.default_rng(0)
A, b = rng.standard_normal((8, 256, 256)), rng.standard_normal((8, 256, 1))
worst = lambda x: float(np.max(np.abs(b - A @ x))) if np.isfinite(x).all() else float("inf")
try:
    torch_says = worst(torch.linalg.solve(torch.from_numpy(A), torch.from_numpy(b)).numpy())
except RuntimeError as error:
    torch_says = str(error)
print("\\n" + json.dumps([torch_says, worst(lapack.solve(A, b).x)]))
"""


def test_batched_lu_is_right_and_a_canary_skips_where_torchs_is_too():
    run = subprocess.run([sys.executable, "-c", BATCHED_LU], capture_output=True, text=True, check=True, env=os.environ)
    torch_says, ours = json.loads(run.stdout.splitlines()[-1])
    assert ours < 1e-9
    if isinstance(torch_says, float) and torch_says < 1e-6:
        pytest.skip(f"torch's batched LU is right here: residual {torch_says:.1e}")
