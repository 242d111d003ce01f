"""How much a network reads, and how long it trains, follow from the family: automatic recipes."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from algebraformer import problems
from algebraformer.models import Algebraformer
from algebraformer.models.config import ModelConfig, OperatorConfig
from algebraformer.numerics.operator_basis import preconditioned_inverse
from algebraformer.problems import ProblemFamily
from algebraformer.training import RECIPES
from algebraformer.training.automatic import enough_read, entry_samplers, readings, recipe_for
from algebraformer.training.data import training_data
from algebraformer.training.error_sources import error_sources
from algebraformer.training.recipes import Recipe


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoSpecies(ProblemFamily):
    """Two species that diffuse and react: [[D1, C1], [C2, D2]] of tridiagonal blocks that vary along the grid."""

    n: int = 64
    modes: int = 20

    def draw(self, rng):
        return {"c": rng.uniform(-1, 1, (4, self.modes)), "b": rng.standard_normal(self.n)}

    def assemble(self, params):
        m = self.n // 2
        x = (np.arange(m) + 0.5) / m
        waves = np.cos(np.pi * np.arange(self.modes)[:, None] * x) / self.modes
        d1, c1, c2, d2 = (params["c"] @ waves).transpose(1, 0, 2)[..., None]  # (B, m, 1) each
        neighbours = np.eye(m, k=1) + np.eye(m, k=-1)
        diffusion, coupling = 2 * np.eye(m) - neighbours, np.eye(m) + 0.5 * neighbours
        first = np.concatenate((np.eye(m) + (1 + 0.9 * d1) * diffusion, c1 * coupling), axis=2)
        second = np.concatenate((c2 * coupling, np.eye(m) + (1 + 0.9 * d2) * diffusion), axis=2)
        return np.concatenate((first, second), axis=1), params["b"]


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    """What a test registers is forgotten after it."""
    monkeypatch.setattr(problems.base, "_REGISTRY", dict(problems.base._REGISTRY))
    problems.register("two-species")(TwoSpecies)


@pytest.fixture(scope="module")
def two_species_readings():
    return readings(TwoSpecies())


def test_a_banded_family_is_read_as_a_whole(monkeypatch, two_species_readings):
    """16 rows and columns meet in few of the entries that vary: they leave most of the inverse open, 64 do not."""
    A = TwoSpecies().sample(200).A
    condition = np.linalg.cond(A)
    assert 2 < condition.min() < condition.max() < 10
    vary = [np.count_nonzero(sampler.inverse_std) for sampler in entry_samplers(TwoSpecies(), [16, 64])]
    assert vary[0] < 64
    assert vary[1] == np.count_nonzero(A.std(axis=0) > 1e-12) == 376
    errors = two_species_readings
    assert errors[16] > 0.5
    assert errors[32] > 0.3
    assert errors[64] < 0.02
    monkeypatch.setattr("algebraformer.training.automatic.spectrum", lambda family, report: np.ones(300))
    monkeypatch.setattr("algebraformer.training.automatic.readings", lambda family, report: errors)
    head = recipe_for(TwoSpecies()).model.head
    assert (head.n_column, head.n_row, head.n_combination, head.rank) == (64, 64, 4, 256)


@pytest.mark.parametrize("name", ["diffusion", "advection-diffusion", "reaction-diffusion", "random-diffusion"])
def test_the_shipped_families_are_read_as_before(monkeypatch, name):
    family = problems.get(name, n=32)
    errors = readings(family)
    assert max(errors.values()) < 3e-3
    monkeypatch.setattr("algebraformer.training.automatic.spectrum", lambda family, report: np.ones(20))
    monkeypatch.setattr("algebraformer.training.automatic.readings", lambda family, report: errors)
    head = recipe_for(family).model.head
    assert head == OperatorConfig(rank=32, n_column=16, n_row=16, whiten=True)


@pytest.mark.parametrize(
    ("errors", "size"),
    [
        ({16: 0.3, 32: 0.29, 64: 0.16}, 16),  # less than a factor of two
        ({16: 0.3, 32: 0.2, 64: 0.1}, 32),
        ({16: 2e-3, 32: 1e-5, 64: 1e-6}, 16),  # small enough
        ({16: 0.5, 20: 1e-3}, 20),
    ],
)
def test_enough_read(errors, size):
    assert enough_read(errors) == size


@pytest.mark.parametrize(
    ("n", "m", "steps", "batch"), [(64, 64, 12_000, 32), (128, 64, 6_000, 16), (64, 576, 1_500, 8)]
)
def test_large_noisy_families_train_on_fewer_systems(n, m, steps, batch):
    recipe = recipe_for(problems.get("gravity", n=n, m=m))
    assert (recipe.steps, recipe.batch_size) == (steps, batch)
    assert recipe.lr == RECIPES["deblur-64"].lr


def test_error_sources_against_dense_arithmetic():
    """The exact coefficients of a basis of 4, and a network that answers with none of them."""
    family = TwoSpecies(n=12, modes=3)
    head = OperatorConfig(rank=4, n_column=6, n_row=6, whiten=True)
    recipe = Recipe(
        family="two-species",
        family_settings={"modes": 3},
        model=ModelConfig(n=12, architecture="mlp", head=head, n_layer=1, n_embd=8),
        basis_samples=300,
    )
    model = Algebraformer(recipe.model).eval()
    model.head.begin(model, training_data(recipe, family))
    model.head.linear.weight.data.zero_()
    model.head.linear.bias.data.zero_()
    found = error_sources(model, family, 50, seen=(0, 30))

    def errors(seed, count):
        basis, A = model.operator_head.basis, family.sample(count, seed).A
        z, s = basis.sampler(A)
        assert z.shape == (count, 6, 6)
        T = preconditioned_inverse(A / s[:, None, None], basis.A_mean).reshape(count, -1)
        weight = 1 / np.linalg.norm(T, axis=1)
        E = T - basis.T_mean.ravel()
        F = basis.components.reshape(4, -1).astype(float)
        c = np.linalg.lstsq(F.T, E.T, rcond=None)[0].T
        size = np.mean(np.sum(E**2, axis=1) * weight**2)
        parts = np.sum((E - c @ F) ** 2, axis=1), np.sum(c**2, axis=1)
        return [np.sqrt(np.median(part * weight**2) / size) for part in parts]

    assert (found.truncation, found.network) == pytest.approx(errors(2**63 + 2, 50), rel=1e-3)
    assert found.network_seen == pytest.approx(errors(0, 30)[1], rel=1e-3)
    assert found.most_read == 12
    assert found.most_reading < 1e-3 < found.reading
