"""Families of stored matrices: what is held out stays held out, in the report too."""

from __future__ import annotations

import dataclasses
import sys

import numpy as np
import pytest

from algebraformer import problems
from algebraformer.assessment import Plan, assess
from algebraformer.errors import ConfigurationError
from algebraformer.problems import stored
from algebraformer.problems.base import (
    CALIBRATION_SEED,
    SCALER_SEED,
    SPECTRUM_SEED,
    TEST_SEED,
    VALIDATION_SEED,
)
from algebraformer.problems.custom import as_family, family_from_file
from algebraformer.reporting import Verdict
from algebraformer.solver import LearnedSolver
from algebraformer.training import RunOptions, train
from algebraformer.training.automatic import recipe_for

N = 6
MATRICES = np.eye(N) + 0.2 * np.random.default_rng(0).standard_normal((60, N, N))


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(problems.base, "_REGISTRY", dict(problems.base._REGISTRY))


def drawn(family, *seeds):
    """Return the bytes of all matrices that the family draws under these seeds."""
    return {matrix.tobytes() for seed in seeds for matrix in family.sample(2_000, seed).A}


def test_parts_are_disjoint_and_complete():
    family = stored(MATRICES, "pipes")
    test, held, rest = (
        drawn(family, *seeds)
        for seeds in ((TEST_SEED,), (VALIDATION_SEED, CALIBRATION_SEED), (0, 1, 2**62 - 1, SCALER_SEED, SPECTRUM_SEED))
    )
    assert (len(test), len(held), len(rest)) == (6, 6, 48)
    assert test | held | rest == {matrix.tobytes() for matrix in MATRICES}
    assert drawn(family, VALIDATION_SEED) == drawn(family, CALIBRATION_SEED)


def test_parts_do_not_depend_on_order_and_copies():
    order = np.random.default_rng(1).permutation(60)
    family, again = stored(MATRICES, "pipes"), stored([*MATRICES[order], *MATRICES[:30]], "again")
    assert drawn(again, TEST_SEED) == drawn(family, TEST_SEED)
    assert again.sha256 == family.sha256


def test_systems():
    systems = stored(MATRICES.astype(np.float32), "pipes").sample(500, seed=3)
    np.testing.assert_allclose(systems.A @ systems.x[:, :, None], systems.b[:, :, None], atol=1e-10)
    assert abs(systems.b.std() - 1) < 0.1
    single = stored(MATRICES, "pipes").at([7], seed=3)
    np.testing.assert_array_equal(single.b[0], systems.b[7])


def test_settings_name_the_matrices():
    family = stored(MATRICES, "pipes")
    settings = family.settings()
    assert problems.from_settings(settings) == family
    stored(MATRICES[:50], "pipes")  # as when the file has changed
    with pytest.raises(ConfigurationError, match="the matrices of pipes have changed"):
        problems.from_settings(settings)
    with pytest.raises(ConfigurationError, match="n = 6, received n = 7"):
        problems.get("pipes", n=7)


@pytest.mark.parametrize(
    ("matrices", "name", "message"),
    [
        (MATRICES[0], "pipes", r"must have shape \(N, n, n\), received \(6, 6\)"),
        (MATRICES[:, :4], "pipes", r"received \(60, 4, 6\)"),
        (MATRICES[:9], "pipes", "at least 10 different matrices, received 9"),
        ([MATRICES[0]] * 50, "pipes", "at least 10 different matrices, received 1"),
        (MATRICES + 0j, "pipes", "matrices must be real, received complex128"),
        (np.where(np.arange(60)[:, None, None] == 4, np.nan, MATRICES), "pipes", "NaN or infinity in number 4"),
        (MATRICES, "diffusion", "registered already"),
    ],
)
def test_what_is_refused(matrices, name, message):
    with pytest.raises(ConfigurationError, match=message):
        stored(matrices, name)
    assert problems.get("diffusion", n=5).n == 5


def test_a_file(tmp_path, monkeypatch):
    monkeypatch.setattr("sys.path", list(sys.path))
    np.save(tmp_path / "pipes.npy", MATRICES)
    text = "import numpy as np\nfrom algebraformer.problems import stored\n"
    (tmp_path / "own.py").write_text(text + f"pipes = stored(np.load({str(tmp_path / 'pipes.npy')!r}), 'pipes')\n")
    for _ in range(2):
        assert family_from_file(f"{tmp_path / 'own.py'}:pipes").settings() == stored(MATRICES, "pipes").settings()


def test_the_report_is_about_unseen_matrices(tmp_path):
    """Matrices that have nothing in common are learned by heart: the report on held-out ones shows it, and the report
    on the same matrices drawn by a function says that it cannot judge."""

    def remembered(rng):
        return MATRICES[rng.integers(len(MATRICES))]

    contractions, found = [], []
    for family in (as_family(remembered), stored(MATRICES, "pipes")):
        recipe = dataclasses.replace(recipe_for(family), samples=500, steps=100)
        train(recipe, tmp_path / family.name, RunOptions(progress=False, workers=0))
        solver = LearnedSolver.from_pretrained(tmp_path / family.name)
        report = assess(solver, plan=Plan(systems=100, contractions=100, batches=(1,), seconds=0.0))
        found.append((report.data["repeated"], report.data["matrices"] <= 60))
        contractions.append(np.median(report.data["contraction"]))
        inconclusive = report.outcomes["assessment.worth-it"].verdict == Verdict.INCONCLUSIVE
        assert inconclusive == (family.name == "remembered")
    assert found == [(100, True), (0, True)]
    assert report.data["matrices"] == 6
    assert contractions[0] < contractions[1] / 10
