"""Estimates of x >= 0: means and intervals, the classical answer beside them, and what checkpoints and recipes keep."""

from __future__ import annotations

import copy
import dataclasses
import json
from typing import ClassVar

import numpy as np
import pytest
import torch
from scipy.optimize import lsq_linear

import algebraformer as af
from algebraformer import checkpoint, problems
from algebraformer.checkpoint import CONFIG, CheckpointInfo
from algebraformer.errors import ConfigurationError, InconsistentWarning
from algebraformer.metrics import GAUSS_90
from algebraformer.numerics.nonnegative import choose_parameter
from algebraformer.numerics.regularization import differences
from algebraformer.training import Recipe, RunOptions, train
from algebraformer.training.automatic import estimate_network

M, N = 14, 10


@problems.register("test-lines")
@dataclasses.dataclass(frozen=True, kw_only=True)
class Lines(problems.NoisyFamily):
    """One or two lines on a floor of nothing."""

    n: int = N
    nonnegative: ClassVar[bool] = True

    def draw_operator(self, rng):
        return {"width": rng.uniform(0.1, 0.2)}

    def matrix(self, params):
        s, t = ((np.arange(k) + 0.5) / k for k in (self.n_equations, self.n))
        return np.exp(-(((s[:, None] - t) / params["width"][:, None, None]) ** 2))

    def draw_signal(self, rng, u):
        x = np.zeros(len(u))
        x[rng.integers(len(u), size=2)] = rng.uniform(0.5, 1.5, 2)
        return x


FAMILY = Lines(m=M, noise=(0.01, 0.05))


def recipe(**changes):
    model = dataclasses.replace(estimate_network(FAMILY), n_layer=1, n_head=2, n_embd=16)
    settings = {"m": M, "noise": [0.01, 0.05]}
    few = {"steps": 80, "batch_size": 32, "lr": 3e-3, "scaler_samples": 512, "calibration_samples": 1024}
    return Recipe(**{"family": "test-lines", "family_settings": settings, "model": model, **few} | changes)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "lines"
    assert train(recipe(), folder, RunOptions(progress=False, workers=0)).finished
    return folder


@pytest.fixture(scope="module")
def solver(folder):
    return af.LearnedSolver.from_pretrained(folder)


@pytest.fixture(scope="module")
def unseen():
    return FAMILY.sample(300, seed=77)


@pytest.mark.filterwarnings("ignore::algebraformer.errors.InconsistentWarning")
def test_means_and_intervals(solver, unseen):
    found = solver.estimate(unseen.A, unseen.b)
    low, high = found.interval
    assert found.nonnegative
    assert found.x.min() == low.min() == 0
    assert high.min() > 0
    np.testing.assert_array_equal(low, np.maximum(found.x - GAUSS_90 * found.std, 0))
    np.testing.assert_allclose(high, found.x + GAUSS_90 * found.std)
    assert 0.86 < np.mean((low <= unseen.x) & (unseen.x <= high)) < 0.94
    np.testing.assert_array_equal(solver.predict(unseen.A, unseen.b), found.x)


@pytest.mark.filterwarnings("ignore::algebraformer.errors.InconsistentWarning")
def test_only_negative_numbers_have_changed(solver, unseen):
    """The same weights without the bound give the same x where it is positive."""
    config = solver.network.config.with_head(nonnegative=False)
    free = af.LearnedSolver(type(solver.network)(config, solver.network.arrays), solver.info)
    x = free.estimate(unseen.A, unseen.b).x
    assert x.min() < 0
    np.testing.assert_array_equal(solver.estimate(unseen.A, unseen.b).x, np.maximum(x, 0))


@pytest.mark.filterwarnings("ignore::algebraformer.errors.InconsistentWarning")
@pytest.mark.parametrize(("c", "d"), [(-1.0, -2.0), (-1.0, 2.0)])
def test_the_sign_of_A_and_b(solver, unseen, c, d):
    """(c A, d b) has the solution (d / c) x: where that is negative, nothing >= 0 fits."""
    A, b = unseen.A[:5], unseen.b[:5]
    plain, found = solver.estimate(A, b), solver.estimate(c * A, d * b)
    if d / c > 0:
        np.testing.assert_allclose(found.x, d / c * plain.x, rtol=1e-6, atol=1e-12)
    else:
        assert found.x.min() >= 0
        assert not found.consistent.any()


def test_module_and_arrays_agree(folder, unseen):
    module, _ = checkpoint.load(checkpoint.resolve(folder))
    arrays, _ = checkpoint.load_network(checkpoint.resolve(folder))
    one, two = (network.estimates(unseen.A[:20], unseen.b[:20]) for network in (module, arrays))
    np.testing.assert_allclose(one.mean, two.mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(one.std, two.std, rtol=1e-4)
    assert two.mean.min() >= 0


def test_gradients(solver, unseen):
    """Those of torch against differences; none where x is cut off."""
    A, b = (torch.from_numpy(part[:1]) for part in (unseen.A, unseen.b))
    b.requires_grad_()
    x = solver.estimate(A, b).x
    at_zero = x[0] == 0
    assert at_zero.any()
    (gradient,) = torch.autograd.grad(x[0][at_zero].sum(), b, retain_graph=True)
    assert not gradient.any()
    largest = int(x[0].argmax())
    (gradient,) = torch.autograd.grad(x[0, largest], b)
    step = 1e-4 * torch.randn(b.shape, generator=torch.manual_seed(0), dtype=b.dtype)
    up, down = (solver.estimate(A, (b + sign * step).detach()).x[0, largest] for sign in (1, -1))
    assert float(up - down) == pytest.approx(2 * float((gradient * step).sum()), rel=0.02)


def test_the_classical_answer_beside_it_is_nonnegative(solver, unseen):
    """GCV, then bounded least squares by SciPy's other solver."""
    model = copy.deepcopy(solver.model)
    model.estimate_head.misfit.zero_()  # nothing fits
    strict = af.LearnedSolver(model.eval(), CheckpointInfo(name="stub", family=FAMILY.settings()))
    with pytest.warns(InconsistentWarning):
        found = strict.estimate(unseen.A[:3], unseen.b[:3])
    for A, b, x in zip(unseen.A, unseen.b, found.tikhonov, strict=False):
        stacked = np.vstack((A, choose_parameter(A, b) * differences(N, 2)))
        expected = lsq_linear(stacked, np.concatenate((b, np.zeros(N - 2))), (0, np.inf), tol=1e-14).x
        np.testing.assert_allclose(x, expected, atol=1e-5 * expected.max())
    assert found.record()["nonnegative"] is True


def test_recipes(folder):
    assert estimate_network(FAMILY).head.nonnegative
    assert not estimate_network(problems.get("deblur", n=8)).head.nonnegative
    assert af.LearnedSolver.from_pretrained(folder).network.config.head.nonnegative
    with pytest.raises(ConfigurationError, match=r"model.head.nonnegative = false"):
        recipe(family="deblur", family_settings={"m": M})
    free = recipe(model=recipe().model.with_head(nonnegative=False))
    assert not free.model.head.nonnegative
    with pytest.raises(ConfigurationError, match="nonnegative must be"):
        recipe(model=recipe().model.with_head(nonnegative="yes"))


def test_the_comparison_has_nonnegative_least_squares(solver):
    report = af.assess(solver, FAMILY, plan=af.assessment.Plan(systems=70))
    methods = [method["name"] for method in report.data["comparison"]["methods"]]
    assert methods == ["network", "GCV", "GCV + NNLS", "TV", "LMMSE"]


def test_checkpoints_without_the_setting(folder, tmp_path):
    """Those from before there was one estimate numbers of either sign, with the standard deviations as they were."""
    model, info = checkpoint.load(checkpoint.resolve(folder))
    files = checkpoint.pack(model, info)
    settings = json.loads(files[CONFIG])
    del settings["model"]["head"]["nonnegative"]
    files[CONFIG] = json.dumps(settings).encode()
    checkpoint.write_folder(tmp_path / "old", files)
    assert checkpoint.load(tmp_path / "old")[0].config.head.nonnegative is False
    del settings["model"]["head"]["encoding"]
    checkpoint.write_folder(tmp_path / "damaged", files | {CONFIG: json.dumps(settings).encode()})
    with pytest.raises(checkpoint.CheckpointError, match="head must have exactly the keys"):
        checkpoint.load(tmp_path / "damaged")


# ---------------------------------------------------------------- what is not of the family


@pytest.mark.filterwarnings("ignore::algebraformer.errors.InconsistentWarning")
def test_own_systems_are_rarely_flagged_and_strange_ones_often(solver):
    """A grating instead of one or two lines, an outlier in the data; A is that of the family."""
    own = FAMILY.sample(2000, seed=5)
    found = solver.estimate(own.A, own.b)
    assert np.mean(found.consistent & found.in_distribution) > 0.96

    few, rng = own[:300], np.random.default_rng(0)
    spoilt = few.b.copy()
    size = np.sqrt(np.mean(few.params["clean"] ** 2, axis=1)) * few.params["noise"]
    spoilt[np.arange(300), rng.integers(M, size=300)] += 20 * size
    grating = np.tile([2.0, 0.0], (300, N // 2))
    clean = np.einsum("bmn,bn->bm", few.A, grating)
    other = clean + size[:, None] * few.params["z"]
    for b in (spoilt, other):
        found = solver.estimate(few.A, b)
        assert np.mean(~(found.consistent & found.in_distribution)) > 0.3
