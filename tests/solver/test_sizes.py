"""One network at many n: fitted maps against the family itself, answers against LAPACK, refusals, checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import algebraformer as af
from algebraformer import checkpoint
from algebraformer.assessment import contraction
from algebraformer.errors import ConfigurationError
from algebraformer.models.config import OperatorConfig
from algebraformer.problems.base import TEST_SEED
from algebraformer.resampled import check_parameters, places, resampling
from algebraformer.training import RECIPES
from algebraformer.training.recipes import Recipe


@pytest.fixture(scope="module")
def shipped() -> af.LearnedSolver:
    return af.LearnedSolver.from_pretrained("diffusion-64")


@pytest.fixture(scope="module")
def resized(shipped: af.LearnedSolver) -> dict[int, af.LearnedSolver]:
    return {n: shipped.at_size(n) for n in (16, 21, 40)}


def test_the_size_of_the_training_is_the_solver_itself(shipped: af.LearnedSolver) -> None:
    assert shipped.at_size(64) is shipped


@pytest.mark.parametrize("n", [16, 21, 40])
def test_answers_are_lapacks(resized: dict[int, af.LearnedSolver], n: int) -> None:
    systems = af.problems.get("diffusion", n=n).sample(100, TEST_SEED)
    result = resized[n].solve(systems.A, systems.b)
    assert result.certified.all()
    assert np.mean(result.method != "lapack") >= 0.98
    assert result.refinements.max() <= 7
    exact = np.linalg.solve(systems.A, systems.b[:, :, None])[:, :, 0]
    np.testing.assert_allclose(result.x, exact, rtol=0, atol=1e-9 * np.abs(exact).max())


@pytest.mark.parametrize("n", [16, 21, 40])
def test_contraction_is_that_of_the_trained_size(
    shipped: af.LearnedSolver, resized: dict[int, af.LearnedSolver], n: int
) -> None:
    """Spectral radii of I - M A over the same parameters, at both sizes."""
    radii = []
    for solver in (shipped, resized[n]):
        A = af.problems.get("diffusion", n=solver.n).assembled(range(60), TEST_SEED)[0]
        radii.append(np.median(contraction(solver, A)))
    assert radii[1] <= 3 * radii[0]


def test_what_is_read_is_that_of_the_trained_size(shipped: af.LearnedSolver) -> None:
    sampler = shipped.network.reader.basis.sampler  # type: ignore[union-attr]
    family, other = (af.problems.get("diffusion", n=n) for n in (64, 40))
    found = resampling(sampler, family, other, 512)
    mine, theirs = (one.assembled(range(20), TEST_SEED)[0] for one in (family, other))
    z, s = found(theirs)
    expected, size = sampler(mine)
    np.testing.assert_allclose(z, expected, atol=1e-6)
    np.testing.assert_allclose(s, size, rtol=1e-8)
    again, doubled = found(-2 * theirs)
    np.testing.assert_allclose(again, z, atol=1e-9)
    np.testing.assert_allclose(doubled, -2 * s, rtol=1e-12)


def test_places_are_the_nearest_of_the_grid() -> None:
    """In the angle, by search among all."""
    mine = np.arccos(np.cos(np.pi * np.arange(1, 65) / 65))
    for n in (15, 50, 129, 200):
        theirs = np.arccos(np.cos(np.pi * np.arange(1, n + 1) / (n + 1)))
        distance = np.abs(theirs[places(np.arange(64), 64, n)] - mine)
        np.testing.assert_allclose(distance, np.abs(theirs - mine[:, None]).min(axis=1), atol=1e-12)
    assert places(np.arange(64), 64, 64).tolist() == list(range(64))


def test_other_systems_go_to_lapack(resized: dict[int, af.LearnedSolver]) -> None:
    rng = np.random.default_rng(0)
    A, b = rng.standard_normal((5, 21, 21)), rng.standard_normal((5, 21))
    with pytest.warns(af.errors.FallbackWarning):
        result = resized[21].solve(A, b)
    assert not result.in_distribution.any()
    assert set(result.method) == {"lapack"}


def test_it_is_a_checkpoint_like_any_other(resized: dict[int, af.LearnedSolver], tmp_path: Path) -> None:
    solver = resized[21]
    checkpoint.save(tmp_path / "model", solver.network, solver.info)
    again = af.LearnedSolver.from_pretrained(tmp_path / "model")
    systems = again.info.problem_family().sample(5, TEST_SEED)
    assert (again.n, systems.A.shape, again.info.name) == (21, (5, 21, 21), "diffusion-64-at-21")
    np.testing.assert_array_equal(again.solve(systems.A, systems.b).x, solver.solve(systems.A, systems.b).x)
    module = af.LearnedSolver(again.model, again.info)
    np.testing.assert_allclose(module.predict(systems.A, systems.b), solver.predict(systems.A, systems.b), rtol=1e-4)


def test_it_is_not_trained(resized: dict[int, af.LearnedSolver], tmp_path: Path) -> None:
    solver = resized[21]
    with pytest.raises(ConfigurationError, match="original"):
        solver.at_size(30)
    with pytest.raises(ConfigurationError, match="original"):
        OperatorConfig.of(solver.network.config).check_finetuning(100, "refitted", "kept")
    recipe = Recipe(model=solver.network.config, samples=64, steps=1, basis_samples=256)
    with pytest.raises(ConfigurationError, match="original"):
        af.train(recipe, tmp_path)
    plain = RECIPES["diffusion-64-mlp"].model.head
    assert "resampled" not in plain.settings()
    assert dataclasses.replace(plain, resampled=True).settings()["resampled"] is True


def test_refused(shipped: af.LearnedSolver) -> None:
    with pytest.raises(ConfigurationError, match="n_column"):
        shipped.at_size(15)
    with pytest.raises(ConfigurationError, match="whole number"):
        shipped.at_size(0)
    with pytest.raises(ConfigurationError, match="token"):
        af.LearnedSolver.from_pretrained("diffusion-64-token").at_size(32)
    with pytest.raises(ConfigurationError, match="dense"):
        OperatorConfig(rank=8, n_column=8, n_row=8, form="low-rank", p=4, row_terms=1, resampled=True).check(
            dataclasses.replace(shipped.network.config, n=16)
        )


def test_sizes_that_do_not_resolve_the_family_are_refused() -> None:
    """Sixteen modes of log K are not seen on 16 points."""
    with pytest.raises(ConfigurationError, match="do not determine"):
        af.LearnedSolver.from_pretrained("random-diffusion-64").at_size(16)


def test_parameters_that_depend_on_n_are_refused() -> None:
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Rough(af.problems.ProblemFamily):
        def draw(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
            return {"d": rng.uniform(1, 2, self.n)}

        def assemble(self, params: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
            return params["d"][:, :, None] * np.eye(self.n), params["d"]

    with pytest.raises(ConfigurationError, match="depends on n"):
        check_parameters(Rough(n=8), Rough(n=9))
