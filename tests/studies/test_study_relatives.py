"""The study of relatives: its Calderon problem against finite differences, its numbers recomputed, its outcomes."""

from __future__ import annotations

import copy
import itertools
import json

import numpy as np
import pytest
from rich.progress import Progress
from scipy.sparse.linalg import LinearOperator, gmres

from algebraformer import testing
from algebraformer.models.inference.stored_basis import as_dense
from algebraformer.reporting import Verdict, conclusions
from algebraformer.solver import LearnedSolver
from algebraformer.training.data import TEST_SEED
from studies.baselines import reduced_basis
from studies.baselines.methods import MEAN, NEAREST, SNAPSHOTS
from studies.baselines.trunk import DAMPING
from studies.harness.study import load_study, run_study, where
from studies.relatives import costs, measure, report
from studies.relatives.calderon import Calderon, network, response
from studies.relatives.report import COEFFICIENTS, FACTORS, HEAD, MEAN_FACTORS, MEAN_TRUNK, METHODS, SHIPPED, TRUNK
from study_results import assert_tables_and_figure

PLAN = measure.PRESETS["quick"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("relatives")


@pytest.fixture(scope="module")
def result(folder):
    return run_study(load_study("relatives"), "quick", folder, Progress(disable=True))


@pytest.fixture(scope="module")
def records(result):
    return result.data["records"]


# ---------------------------------------------------------------- the Calderon problem


def test_calderon_is_a_family():
    testing.check_family(Calderon(n=9, modes=2))


def test_voltages_obey_ohm_and_kirchhoff():
    """The network of resistors, node by node: currents add up to nothing inside and to Lambda g at the boundary."""
    N, rng = 3, np.random.default_rng(0)
    q, family = 0.5 * rng.standard_normal((1, N * N)), Calderon(n=N * N, modes=2)
    a = np.ones((N + 2, N + 2))
    a[1:-1, 1:-1] = np.exp(q).reshape(N, N)
    corners = [(0, 0), (0, N + 1), (N + 1, 0), (N + 1, N + 1)]
    nodes = [node for node in itertools.product(range(N + 2), repeat=2) if node not in corners]
    inner = [node for node in nodes if 0 < node[0] <= N and 0 < node[1] <= N]
    outer = [node for node in nodes if node not in inner]
    K = np.zeros((len(nodes), len(nodes)))
    order = {node: i for i, node in enumerate([*inner, *outer])}
    for (i, j), (k, l) in itertools.combinations(order, 2):
        if abs(i - k) + abs(j - l) == 1 and not ((i, j) in outer and (k, l) in outer):
            w, p, r = (a[i, j] + a[k, l]) / 2, order[i, j], order[k, l]
            K[[p, r], [p, r]] += w
            K[[p, r], [r, p]] -= w
    size = N * N
    schur = K[size:, size:] - K[size:, :size] @ np.linalg.solve(K[:size, :size], K[:size, size:])
    found = response(*family.drops(q))[0]
    # boundary nodes have other numbers here and there: the same matrix up to a permutation
    np.testing.assert_allclose(np.sort(found, axis=None), np.sort(schur, axis=None), atol=1e-12)
    np.testing.assert_allclose(np.linalg.eigvalsh(found), np.linalg.eigvalsh(schur), atol=1e-12)
    np.testing.assert_allclose(found.sum(axis=1), 0, atol=1e-12)  # no current where all voltages are equal
    assert len(network(N)[0]) == 2 * N * (N + 1)


def test_gauss_newton_against_finite_differences():
    family, n, h = Calderon(n=16, modes=3), 16, 1e-5
    params = family.parameters(range(2), 5)
    A, b = family.assemble(params)
    q, true = (family.log_conductivity(params[name]) for name in ("current", "true"))

    def entries(q):
        return response(*family.drops(q)).reshape(len(q), -1)

    J = np.stack([(entries(q + h * e) - entries(q - h * e)) / (2 * h) for e in np.eye(n)], axis=2)
    expected = J.transpose(0, 2, 1) @ J + family.alpha * np.eye(n)
    np.testing.assert_allclose(A, expected, atol=1e-8)
    misfit = entries(true) - entries(q)
    np.testing.assert_allclose(b, (J.transpose(0, 2, 1) @ misfit[:, :, None])[:, :, 0] - family.alpha * q, atol=1e-8)


def test_gauss_newton_steps_find_the_conductivity():
    """The family's steps, repeated, reduce the misfit to what the regularisation leaves."""
    family = Calderon(n=16, modes=2, alpha=1e-8)
    params = family.parameters(range(1), 3)
    true = family.log_conductivity(params["true"])
    start = family.drops(family.log_conductivity(params["current"]))
    data = response(*family.drops(true))
    before = np.linalg.norm(data - response(*start))
    waves = np.linalg.pinv(np.stack([family.log_conductivity(c.reshape(1, 2, 2))[0] for c in np.eye(4)], axis=1))
    current = params["current"]
    for _ in range(6):
        A, b = family.assemble({"current": current, "true": params["true"]})
        current = current + (waves @ np.linalg.solve(A, b[:, :, None])[0]).reshape(1, 2, 2)
    after = np.linalg.norm(data - response(*family.drops(family.log_conductivity(current))))
    assert after < 1e-3 * before
    np.testing.assert_allclose(current, params["true"], atol=1e-3)


# ---------------------------------------------------------------- measures


def test_every_method_is_measured(records):
    assert len(records) == len(PLAN.families) * len(PLAN.samples) * len(METHODS)
    for record in records:
        assert record["contraction_median"] <= record["contraction_95"]
        assert 0 <= record["certified"] <= 1
        assert record["seconds"] > 0
        assert record["lu_flops"] == costs.lu(16)
        assert record["flops"] > 0
    json.dumps(records, allow_nan=False)


@pytest.fixture(scope="module")
def diffusion(folder):
    """The network of diffusion with the most systems, its family, these systems, and unseen ones."""
    solver = LearnedSolver.from_pretrained(folder / f"diffusion-{PLAN.samples[-1]}")
    family = solver.info.problem_family()
    return solver, family.sample(PLAN.samples[-1], 0), family.sample(PLAN.systems, TEST_SEED)


def record_of(records, method):
    (record,) = where(records, family="diffusion", N=PLAN.samples[-1], method=method)
    return record


def radii(M, A):
    return np.abs(np.linalg.eigvals(np.eye(16) - M @ A)).max(axis=1)


def test_operator_head_by_the_solver(records, diffusion):
    solver, _, unseen = diffusion
    found, M = record_of(records, HEAD), np.stack([solver.operator(A).matmat(np.eye(16)) for A in unseen.A])
    assert found["contraction_median"] == pytest.approx(np.median(radii(M, unseen.A)), rel=1e-3)
    x = solver.predict(unseen.A, unseen.b)
    errors = np.linalg.norm(x - unseen.x, axis=1) / np.linalg.norm(unseen.x, axis=1)
    assert found["relative_error_median"] == pytest.approx(np.median(errors), rel=1e-5)


def test_trunk_basis_by_scipy(records, diffusion):
    """Contraction by the formula, and as many products as SciPy's GMRES with the same preconditioner."""
    _, seen, unseen = diffusion
    V = reduced_basis.fit(seen.x, np.eye(16), PLAN.trunk).V
    found, A = record_of(records, TRUNK), unseen.A
    C = V @ np.linalg.solve(V.T @ A @ V, np.broadcast_to(V.T, (len(A), *V.T.shape)))
    S = DAMPING * np.eye(16) / np.diagonal(A, axis1=1, axis2=2)[:, :, None]
    M = C + S @ (np.eye(16) - A @ C)
    assert found["contraction_median"] == pytest.approx(np.median(radii(M, A)), rel=1e-6)
    counts = []
    for i in range(10):
        steps = []
        operator = LinearOperator((16, 16), matvec=M[i].__matmul__, dtype=float)
        AM = LinearOperator((16, 16), matvec=lambda v, i=i, M=operator: A[i] @ M.matvec(v), dtype=float)
        gmres(AM, unseen.b[i], rtol=1e-13, restart=16, callback=steps.append, callback_type="pr_norm")
        counts.append(len(steps) - 1)  # the first step is the answer
    assert found["refinements_median"] == pytest.approx(np.median(counts), abs=1.5)


def test_mean_inverse_by_numpy(records, diffusion):
    solver, _, unseen = diffusion
    mean = as_dense(solver.model.operator_head.basis).A_mean
    expected = np.median(radii(np.linalg.inv(mean), unseen.A))
    assert record_of(records, MEAN)["contraction_median"] == pytest.approx(expected, rel=1e-6)


def test_methods_stand_in_the_order_they_must(records):
    """More systems help what learns; interpolation, which sees all of A, is best here."""
    for name, method in itertools.product(("diffusion", "calderon"), (HEAD, COEFFICIENTS, FACTORS, NEAREST, SNAPSHOTS)):
        few, many = where(records, family=name, method=method)
        assert many["contraction_median"] < few["contraction_median"]
    rho = {method: record_of(records, method)["contraction_median"] for method in METHODS}
    assert rho[SNAPSHOTS] == min(rho.values())
    assert rho[HEAD] < rho[NEAREST] < rho[MEAN]


def test_a_measured_case_is_not_measured_again(result, folder, monkeypatch):
    monkeypatch.setattr(measure, "measure", lambda *_: pytest.fail("measured again"))
    again = run_study(load_study("relatives"), "quick", folder, Progress(disable=True))
    assert (again.data, again.outcomes) == (result.data, result.outcomes)


def test_shipped_networks_are_measured_where_there_are_some(diffusion):
    solver = diffusion[0]
    relative = measure.head(SHIPPED, solver, 7)
    assert relative.samples == 7
    assert relative.cost.apply == 4 * 16**2
    parameters = solver.model.parameter_count()
    assert relative.cost.setup == 2 * 64**2 + 2 * parameters + 2 * PLAN.rank * 16**2


# ---------------------------------------------------------------- operations, outcomes, tables


def test_operations_by_hand():
    cost = costs.trunk(n=10, k=2, smoother=10)
    assert cost.setup == 2 * 100 * 2 + 2 * 10 * 4 + 2 * 8
    assert cost.apply == 6 * 10 * 2 + 2 * 4 + 10
    assert cost.solve(10, 3) == cost.setup + 4 * (cost.apply + 200)
    assert costs.lu(3) == 2 / 3 * 27 + 18


def changed(records, **contraction):
    """Copies of the records of diffusion with other contractions by method."""
    found = copy.deepcopy(where(records, family="diffusion"))
    for record in found:
        record["contraction_median"] = contraction.get(record["method"], 10.0)
    return found


@pytest.mark.parametrize(
    ("head", "kernel", "factors", "verdicts"),
    [
        (0.01, 0.1, 0.5, (Verdict.HOLDS, Verdict.HOLDS, Verdict.HOLDS)),
        (0.5, 0.1, 0.01, (Verdict.FAILS, Verdict.FAILS, Verdict.FAILS)),
        (0.1, 0.11, 0.1, (Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE, Verdict.INCONCLUSIVE)),
        (None, 0.1, 0.2, (Verdict.FAILS, Verdict.HOLDS, Verdict.FAILS)),
    ],
)
def test_who_contracts_most(records, head, kernel, factors, verdicts):
    case = changed(records, **{HEAD: head, COEFFICIENTS: kernel, FACTORS: factors, MEAN_FACTORS: 2.0})
    found = report.outcomes({"records": case})
    names = ("most-systems", "cholesky", "network")
    assert tuple(found[f"relatives.{name}/diffusion"].verdict for name in names) == verdicts
    numbers = found["relatives.most-systems/diffusion"].numbers
    assert numbers["contraction"] == min(value for value in (head, kernel, factors) if value is not None)
    assert len(conclusions(found, report.SENTENCES)) == len(found)


@pytest.mark.parametrize(
    ("ours", "theirs", "verdict"),
    [((4, 1.0), (8, 1.0), Verdict.HOLDS), ((4, 0.5), (8, 1.0), Verdict.PARTLY), ((9, 1.0), (8, 1.0), Verdict.FAILS),
     ((None, 0.0), (8, 1.0), Verdict.FAILS), ((4, 1.0), (None, 0.0), Verdict.HOLDS)],
)  # fmt: skip
def test_trunk_or_head(records, ours, theirs, verdict):
    case = changed(records)
    for record in case:
        if record["method"] in (HEAD, TRUNK, MEAN_TRUNK):
            steps, certified = ours if record["method"] == HEAD else theirs
            record |= {"refinements_median": steps, "certified": certified}
            record["flops"] = None if steps is None else 1e9
    found = report.outcomes({"records": case})
    assert found["relatives.trunk/diffusion"].verdict == verdict
    assert len(conclusions(found, report.SENTENCES)) == len(found)


def test_what_is_cheaper_than_lu(records):
    case = changed(records)
    for record in case:
        record |= {"flops": 2.0, "lu_flops": 1.0, "certified": 1.0}
    assert report.outcomes({"records": case})["relatives.cheaper-than-lu"].verdict == Verdict.FAILS
    case[0]["flops"] = 0.5
    found = report.outcomes({"records": case})["relatives.cheaper-than-lu"]
    assert (found.verdict, found.numbers["cases"]) == (Verdict.HOLDS, 1)
    case[0]["certified"] = 0.9
    assert report.outcomes({"records": case})["relatives.cheaper-than-lu"].verdict == Verdict.FAILS


def test_tables(result, records):
    main, curves, details = result.tables
    assert [row[0] for row in main.rows] == list(METHODS)
    head = record_of(records, HEAD)
    contraction, steps, certified = main.rows[0][1].split("; ")
    assert float(contraction) == pytest.approx(head["contraction_median"], rel=5e-3)
    assert float(steps) == head["refinements_median"]
    assert float(certified.removesuffix(" %")) == pytest.approx(100 * head["certified"], rel=5e-3)
    low, high = main.rows[0][-1].split(" to ")
    assert float(low) <= 1.05 * head["flops"] / costs.lu(16) <= 1.1 * float(high)
    assert len(curves.rows) == len(PLAN.families) * len(METHODS)
    row = dict(zip(curves.columns, curves.rows[0], strict=True))
    assert row["median, N = 32"] == records[0]["contraction_median"]
    assert row["95 %, N = 128"] == head["contraction_95"]
    assert len(details.rows) == len(records)
    shipped = {**head, "method": SHIPPED, "samples": 200_000}
    more = report.summary([*records, shipped]).tables
    assert [more[0].rows[-1][i] for i in (0, 2)] == [SHIPPED, None]  # there is one for the first family alone
    assert len(more[1].rows) == len(curves.rows)
    untimed = [{key: value for key, value in record.items() if "seconds" not in key} for record in records]
    assert "µs per system" not in report.details(untimed).columns


def test_a_method_that_certifies_nothing_is_shown():
    record = {"contraction_median": None, "refinements_median": None, "certified": 0.0}
    assert report.in_short(record) == "–; –; 0 %"


def test_tables_and_figure_are_whole(result, records, tmp_path):
    shipped = {**record_of(records, HEAD), "method": SHIPPED, "samples": 200_000}
    assert_tables_and_figure("relatives", result, tmp_path)
    assert_tables_and_figure("relatives", report.summary([*records, shipped]), tmp_path)
