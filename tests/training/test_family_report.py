"""The report on whether a network is worth it: its measures against NumPy, its outcomes on made-up data, its files."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import json

import matplotlib.image
import numpy as np
import pytest
import torch

from algebraformer import assessment as report
from algebraformer import plotting, problems
from algebraformer.assessment import Plan, assess, contraction
from algebraformer.checkpoint import CheckpointInfo
from algebraformer.errors import ConfigurationError, UnknownNameError
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.reporting import Outcome, Verdict, conclusions
from algebraformer.rivals import Rival, direct
from algebraformer.solver import LearnedSolver
from algebraformer.verdict import SENTENCES, outcomes

N = 16
FAMILY = problems.get("diffusion", n=N)
PLAN = Plan(systems=60, contractions=20, batches=(1, 8, 1000), seconds=0.0)


@pytest.fixture(scope="module")
def trained(operator_run):
    return LearnedSolver.from_pretrained(operator_run)


@pytest.fixture(scope="module")
def measured(trained):
    """Fewer samples for the spectrum: its own test is elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(report, "spectrum", lambda family: np.geomspace(2.0, 2e-8, 300))
        return assess(trained, plan=PLAN, training_seconds=12.0)


# ---------------------------------------------------------------- measures


def test_contraction_against_dense_eigenvalues(trained):
    """M = (Tbar + sum c_r T_r) Abar^-1 / s from the model's coefficients, and eig of I - M A."""
    A = FAMILY.sample(6, seed=4).A
    head = trained.model.operator_head
    basis = head.basis
    z, s = basis.sampler(A)
    with torch.no_grad():
        features = head.features(trained.model, torch.tensor(z, dtype=torch.float32))
        c = head(features).numpy().astype(float)
    for i, radius in enumerate(contraction(trained, A)):
        T = basis.T_mean + np.tensordot(c[i], basis.components.astype(float), 1)
        M = T @ np.linalg.inv(basis.A_mean) / s[i]
        expected = np.abs(np.linalg.eigvals(np.eye(N) - M @ A[i])).max()
        assert radius == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_contraction_is_what_refinement_does(trained):
    """||e_k+1|| / ||e_k|| of x + M (b - A x) from a random error tends to the spectral radius, or hops around it."""
    A = FAMILY.sample(5, seed=4).A
    M = trained.model.approximate_inverse(A)
    e = np.random.default_rng(0).standard_normal((5, N, 1))
    sizes = []
    for _ in range(40):
        e = e - M(A @ e)
        sizes.append(np.linalg.norm(e, axis=(1, 2)))
        e /= sizes[-1][:, None, None]
    np.testing.assert_allclose(np.exp(np.mean(np.log(sizes[10:]), axis=0)), contraction(trained, A), rtol=0.3)


def test_contraction_of_a_network_that_is_not_finite(trained):
    model = copy.deepcopy(trained.model)
    with torch.no_grad():
        model.head.linear.bias.fill_(torch.nan)
    assert np.isinf(contraction(LearnedSolver(model, trained.info), FAMILY.sample(2).A)).all()


def test_measures(measured, trained):
    data = measured.data
    assert (data["n"], data["rank"], data["systems"], data["model"]) == (N, 32, 60, "diffusion")
    assert (data["matrices"], data["repeated"]) == (60, 0)
    assert data["behind"] == pytest.approx(1e-8 ** (32 / 299))
    assert len(data["spectrum"]) == 2 * 32 + 16
    assert data["spectrum"][0] == 1
    assert len(data["contraction"]) == 20
    assert [entry["batch"] for entry in data["times"]] == [1, 8, 60]  # no more than there are systems
    for entry in data["times"]:
        rivals = entry["rivals"]
        assert 0 < entry["rival"] == min(rivals.values()) == rivals[entry["best"]]
        assert entry["lapack"] == min(t for name, t in rivals.items() if name.startswith(("numpy", "scipy", "dgesv")))
        assert 0 < entry["quartiles"][0] <= entry["ours"] <= entry["quartiles"][1]
    systems = FAMILY.sample(60, seed=2**63 + 2)
    result = trained.solve(systems.A, systems.b, fallback=False)
    assert data["certified"] == result.certified.mean()
    assert data["refinements"] == result.refinements[result.certified].tolist()
    error = np.linalg.norm(result.x - systems.x, axis=1) / np.linalg.norm(systems.x, axis=1)
    assert data["relative_error_max"] == pytest.approx(error[result.certified].max(), rel=1e-9)
    cells = dict(measured.tables[0].rows)
    assert cells["contraction per refinement, median"] == np.median(data["contraction"])
    assert cells["certified without LAPACK"] == data["certified"]
    assert cells["error by the network"] == data["errors"]["network"] > data["errors"]["truncation"] > 0
    assert data["errors"]["most_read"] == N
    assert [row[0] for row in measured.tables[1].rows] == [1, 8, 60]
    for row, entry in zip(measured.tables[1].rows, data["times"], strict=True):
        assert row[2] == entry["best"]
        assert row[4] == pytest.approx(row[3] / row[1])
        assert row[6] == pytest.approx(row[5] / row[1])


def test_rivals_of_the_report(measured):
    """All that apply to diffusion, judged on the same systems; those that count are timed, with a pool and without."""
    judged = {way["name"]: way for way in measured.data["rivals"]}
    assert {"numpy.linalg.solve", "dgesv", "float32 LU + refinement"} < set(judged)
    assert "scaled mean inverse + conjugate residuals" in judged
    assert all(way["counts"] and way["share"] == 1 and way["relative_error_max"] < 1e-9 for way in judged.values())
    timed = set(measured.data["times"][0]["rivals"])
    assert (
        {"numpy.linalg.solve, pool", "dgesv"} < timed <= {f"{name}{end}" for name in judged for end in ("", ", pool")}
    )
    table = measured.tables[2]
    assert [row[0] for row in table.rows] == list(judged)
    assert [row[3] for row in table.rows] == [way["relative_error_max"] for way in judged.values()]
    for row in table.rows:
        both = [measured.data["times"][0]["rivals"][f"{row[0]}{end}"] for end in ("", ", pool") if row[0] in timed]
        assert row[4] == (1e3 * min(both) if both else None)


def test_rivals_that_are_not_accurate_do_not_count(trained, monkeypatch):
    monkeypatch.setattr(report, "spectrum", lambda family: np.geomspace(2.0, 2e-8, 300))
    wrong = Rival("guess, pool", lambda A, b: b)
    monkeypatch.setattr(report.rivals, "rivals_for", lambda *_: [Rival("dgesv, pool", direct.numpy_lu), wrong])
    found = assess(trained, plan=Plan(systems=20, contractions=8, batches=(1,), seconds=0.0))
    assert [(way["name"], way["counts"]) for way in found.data["rivals"]] == [("dgesv", True), ("guess", False)]
    assert set(found.data["times"][0]["rivals"]) == {"dgesv, pool"}
    assert found.tables[2].rows[1][-1] is None
    json.dumps(found.data, allow_nan=False)


def test_banded_families_meet_a_banded_rival():
    ways = report.rivals_of(problems.get("stiff-jacobian", n=32), 20)
    assert {"banded LU", "banded LU, pool"} < {way.name for way in ways}


def test_a_network_that_solves_nothing_has_a_report(trained, monkeypatch):
    monkeypatch.setattr(report, "spectrum", lambda family: np.array([0.0, 0.0]) + 1)
    model = copy.deepcopy(trained.model)
    with torch.no_grad():
        model.head.linear.bias.fill_(torch.nan)
    found = assess(LearnedSolver(model, trained.info), FAMILY, plan=Plan(systems=5, batches=(1,), seconds=0.0))
    assert found.outcomes["assessment.worth-it"].verdict == Verdict.NOT_WORTH_IT
    assert found.data["certified"] == 0
    json.dumps(found.data, allow_nan=False)
    plotting.assessment_figure(found.data)


def test_measure_refuses(trained):
    with pytest.raises(ConfigurationError, match="the model is for n = 16, the family has n = 12"):
        assess(trained, problems.get("diffusion", n=12), plan=PLAN)
    token = Algebraformer(ModelConfig(n=N, n_layer=1, n_head=2, n_embd=8)).eval()
    with pytest.raises(ConfigurationError, match="token head"):
        assess(LearnedSolver(token, trained.info), plan=PLAN)
    with pytest.raises(UnknownNameError, match="unknown family 'nobodys'"):
        assess(LearnedSolver(trained.model, CheckpointInfo(name="x", family={"name": "nobodys", "n": N})), plan=PLAN)


# ---------------------------------------------------------------- outcomes


SMALL = {
    "truncation": 1e-4, "network": 2e-3, "network_seen": 1.8e-3, "reading": 1e-3, "most_read": 64, "most_reading": 9e-4,
}  # fmt: skip


def timed(batch, ours, rival, lapack=9e-3, best="dposv, pool"):
    return {"batch": batch, "ours": ours, "rival": rival, "best": best, "lapack": lapack}


def made_up(ours=1e-3, rival=5e-3, certified=1.0, training_seconds=None, contractions=(1e-3, 1e-2), **errors):
    """What `outcomes` reads: at batch 1 a rival is faster, at 16 and 64 the times are those given."""
    return {
        "n": 512,
        "rank": 64,
        "systems": 200,
        "matrices": 200,
        "repeated": 0,
        "certified": certified,
        "n_read": 256,
        "errors": SMALL | errors,
        "contraction": list(contractions),
        "training_seconds": training_seconds,
        "times": [timed(1, 9e-3, 5e-3), timed(16, ours, rival), timed(64, ours, rival)],
    }


COMPARED = {"ours": 1e-3, "rival": 5e-3, "best": "dposv, pool", "speed_up": 5.0, "lapack": 9e-3, "over_lapack": 9.0}


def test_worth_it():
    found = outcomes(made_up(training_seconds=400.0))
    worth = found["assessment.worth-it"]
    assert worth.verdict == Verdict.WORTH_IT
    assert worth.numbers == COMPARED | {
        "n": 512, "batch": 64, "certified": 1.0, "systems": 200, "repeated": 0, "faster_at": "16, 64",
    }  # fmt: skip
    assert found["assessment.rival/batch 16"].numbers == COMPARED | {"batch": 16}
    assert found["assessment.rival/batch 1"].numbers["speed_up"] == pytest.approx(5 / 9)
    assert found["assessment.payback"].numbers == {"seconds": 400.0, "solves": pytest.approx(1e5)}  # 400 s / 4 ms
    assert found["assessment.accuracy"].numbers["contraction_median"] == pytest.approx(5.5e-3)
    rivals = {f"rival/batch {size}" for size in (1, 16, 64)}
    assert set(found) == {f"assessment.{key}" for key in ("worth-it", "payback", "accuracy", *rivals)}
    assert "assessment.payback" not in outcomes(made_up())


def test_worth_it_at_some_batch_sizes():
    """The largest one at which it is faster is shown."""
    data = made_up()
    data["times"].append(timed(256, 5e-3, 5e-3))
    worth = outcomes(data)["assessment.worth-it"]
    assert worth.verdict == Verdict.WORTH_IT
    assert (worth.numbers["batch"], worth.numbers["faster_at"]) == (64, "16, 64")


@pytest.mark.parametrize(
    ("changes", "limits"),
    [
        ({"ours": 6e-3}, {"assessment.size"}),
        ({"ours": 4.8e-3}, {"assessment.size"}),  # less than 5 % is no difference
        ({"ours": 6e-3, "network": 0.1}, {"assessment.size", "assessment.limit"}),
        ({"certified": 0.985}, {"assessment.limit"}),
        ({"certified": 0.1, "ours": 9e-3}, {"assessment.limit"}),
    ],
)
def test_not_worth_it(changes, limits):
    data = made_up(**changes)
    found = outcomes(data)
    assert found["assessment.worth-it"].verdict == Verdict.NOT_WORTH_IT
    assert found["assessment.worth-it"].numbers["certified"] == data["certified"]
    assert {"assessment.size", "assessment.limit"} & set(found) == limits
    assert "assessment.payback" not in found


@pytest.mark.parametrize(
    ("errors", "limit"),
    [
        ({"network": 0.3, "truncation": 0.4, "reading": 0.3}, "rank"),
        ({"network": 0.3, "reading": 0.25, "most_reading": 0.01}, "reading"),
        ({"network": 0.3, "reading": 0.25, "most_reading": 0.2, "network_seen": 0.29}, "training"),  # no more to read
        ({"network": 0.3, "reading": 0.05, "most_reading": 0.01, "network_seen": 0.29}, "training"),  # far from it
        ({"network": 0.02, "reading": 0.2, "most_reading": 0.01, "network_seen": 0.02}, "training"),  # better than it
        ({"network": 0.3, "network_seen": 0.1}, "samples"),
        ({"network": 0.3, "network_seen": None}, "training"),
        ({"network": 1e300, "network_seen": 1e300}, "training"),
    ],
)
def test_what_limits_the_accuracy(errors, limit):
    """Whatever the verdict is; with the numbers that it follows from."""
    found = outcomes(made_up(**errors))
    assert found["assessment.worth-it"].verdict == Verdict.WORTH_IT
    assert found["assessment.limit"].numbers == {"limit": limit, "rank": 64, "n_read": 256, **SMALL, **errors}
    assert conclusions(found, SENTENCES)


def test_the_limits_of_worth_it():
    assert outcomes(made_up(certified=0.99, ours=4.7e-3))["assessment.worth-it"].verdict == Verdict.WORTH_IT


def test_a_head_without_a_basis_is_not_limited_by_one():
    found = outcomes(made_up(certified=0.5) | {"rank": None, "errors": None, "n_read": None})
    assert found["assessment.limit"].numbers == {"limit": "unknown"}


@pytest.mark.parametrize("certified", [0.1, 1.0])
def test_matrices_that_were_trained_on_are_not_judged(certified):
    found = outcomes(made_up(certified=certified, truncation=0.2) | {"repeated": 3, "matrices": 40})
    worth = found["assessment.worth-it"]
    assert worth.verdict == Verdict.INCONCLUSIVE
    assert (worth.numbers["repeated"], worth.numbers["systems"]) == (3, 200)
    assert found["assessment.accuracy"].numbers["kind"] == "partly seen systems"
    assert found["assessment.matrices"].numbers == {"matrices": 40, "systems": 200}
    assert not {"assessment.payback", "assessment.limit", "assessment.size"} & set(found)


def test_few_unseen_matrices_are_counted():
    found = outcomes(made_up() | {"matrices": 7})
    assert found["assessment.worth-it"].verdict == Verdict.WORTH_IT
    assert found["assessment.matrices"].numbers["matrices"] == 7


def test_sentences():
    """Every kind of sentence once, with its numbers."""
    worth = conclusions(outcomes(made_up(training_seconds=400.0)), SENTENCES)
    assert worth[0] == (
        "Worth it for this family: 1 ms per certified solve against 5 ms for the fastest rival (dposv, pool; n = 512, "
        "64 systems per call), 5 times as fast. Of the batch sizes that were measured it is faster at 16, 64."
    )
    assert worth[1] == (
        "Batch 1: 9 ms per system, the fastest rival (dposv, pool) 5 ms, LAPACK's LU 9 ms: 0.56 and 1 times as fast."
    )
    assert worth[4] == "The training of 400 s is paid back after 1e+05 solves."
    slow = conclusions(outcomes(made_up(certified=0.1, ours=9e-3)), SENTENCES)
    assert slow[0].startswith("Not worth it for this family: only 10 % of unseen systems are certified without LAPACK")
    assert " and it is not faster: 9 ms per certified solve against 5 ms" in slow[0]
    banded = made_up()
    banded["times"] = [timed(64, 1e-3, 1e-5, best="banded LU, pool")]
    assert conclusions(outcomes(banded), SENTENCES)[-1].startswith("The matrices are banded")
    assert conclusions(outcomes(made_up(ours=9e-3)), SENTENCES)[-1].startswith("It converges")
    seen = conclusions(outcomes(made_up() | {"repeated": 3}), SENTENCES)
    assert seen[0].startswith("Not judged on unseen matrices: the matrices of 3 of the 200 systems")


# ---------------------------------------------------------------- matrices seen before


def of_model(trained, **recipe):
    info = dataclasses.replace(trained.info, recipe=trained.info.recipe | recipe)
    return LearnedSolver(trained.model, info)


@pytest.mark.parametrize(("training", "repeated"), [(8, 5), (3, 3), (100, 5)])
def test_repeated_matrices_are_found(trained, monkeypatch, training, repeated):
    """The report's systems are made the first ones of the training, of which so many are looked through."""
    monkeypatch.setattr(report, "spectrum", lambda family: np.geomspace(2.0, 2e-8, 300))
    monkeypatch.setattr(report, "TEST_SEED", trained.info.recipe["seed"])
    plan = Plan(systems=5, batches=(1,), seconds=0.0, training=training)
    parts = []
    found = assess(trained, plan=plan, progress=lambda *part: parts.append(part))
    assert (found.data["repeated"], found.data["matrices"]) == (repeated, 5)
    assert parts == [(done, 7) for done in (0, 1, 2, 3, 4, 5, 6, 7, 7)]
    assert dict(found.tables[0].rows)["systems whose matrix was trained on"] == repeated


def test_what_a_training_was_on(trained):
    """Of a fixed set no more than there is of it, of fresh systems what all steps took; nothing of another family."""
    own = {matrix.tobytes() for matrix in FAMILY.sample(24, seed=0).A}
    for recipe in ({"samples": 24}, {"samples": None, "steps": 3, "batch_size": 8}):
        found = report.trained_on(of_model(trained, **recipe).info, FAMILY, 100)
        assert found == {hashlib.blake2b(matrix, digest_size=16).digest() for matrix in own}
    assert report.trained_on(trained.info, problems.get("diffusion", n=N, f_modes=3), 100) == set()
    assert report.trained_on(dataclasses.replace(trained.info, recipe={}), FAMILY, 100) == set()


# ---------------------------------------------------------------- files


def test_files(measured, tmp_path):
    path = plotting.save_report(measured, tmp_path, command="algebraformer train mine.py:Mine")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["report.json", "report.md", "report.png"]
    content = json.loads(path.read_text(), parse_constant=pytest.fail)
    assert content["command"] == "algebraformer train mine.py:Mine"
    assert content["conclusions"] == conclusions(outcomes(content["data"]), SENTENCES) == list(measured.conclusions)
    assert {key: Outcome.from_settings(one) for key, one in content["outcomes"].items()} == measured.outcomes
    assert {"provenance", "table", "tables", "data"} <= set(content)
    page = (tmp_path / "report.md").read_text()
    assert page.index(measured.conclusions[0]) < page.index("| basis operators | 32 |") < page.index("report.png")
    pixels = matplotlib.image.imread(tmp_path / "report.png")
    assert pixels.shape[1] > 3 * pixels.shape[0] > 900
    assert np.ptp(pixels[..., :3]) == 1


def test_figure_shows_the_data(measured):
    figure = plotting.assessment_figure(measured.data)
    spectrum, radii, refinements, times = figure.axes
    np.testing.assert_allclose(spectrum.lines[0].get_ydata(), np.maximum(measured.data["spectrum"], 1e-10))
    np.testing.assert_array_equal(radii.lines[0].get_ydata(), np.sort(measured.data["contraction"]))
    assert sum(bar.get_height() for bar in refinements.patches) == pytest.approx(measured.data["certified"])
    for line, key in zip(times.lines, ("ours", "lapack", "rival"), strict=True):
        np.testing.assert_allclose(line.get_ydata(), [1e3 * t[key] for t in measured.data["times"]])
    titles = [axes.get_title() for axes in figure.axes]
    without = plotting.assessment_figure(measured.data | {"rank": None, "spectrum": [], "behind": None})
    assert [axes.get_title() for axes in without.axes] == titles[1:]
