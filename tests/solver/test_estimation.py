"""Estimates from noisy systems: what is read, what is learned, what a user gets, and what is refused."""

from __future__ import annotations

import copy
import dataclasses
import json
import tracemalloc
import warnings

import numpy as np
import pytest
import scipy.linalg
import scipy.stats
import torch

import algebraformer as af
from algebraformer import evaluation, problems
from algebraformer.checkpoint import CheckpointInfo
from algebraformer.errors import ConfigurationError, InconsistentWarning
from algebraformer.metrics import GAUSS_90
from algebraformer.models import Algebraformer, EstimateConfig, ModelConfig, estimates
from algebraformer.models.bodies import FirstAnswer
from algebraformer.models.heads.estimate import AUXILIARY_WEIGHT, EstimateHead, Output, examples
from algebraformer.models.inference.estimate_reader import (
    STD_FLOOR,
    TYPICAL_NOISE,
    kalman_update,
    network_input,
)
from algebraformer.models.scaling import scale_systems
from algebraformer.models.tikhonov import TIKHONOV_PARAMETERS, tikhonov_channels
from algebraformer.solver import LearnedSolver
from algebraformer.training import RECIPES, FinetuneRecipe, Recipe
from algebraformer.training.data import TEST_SEED

M, N = 15, 12
FAMILY = problems.get("deblur", n=N, m=M, width=(0.08, 0.16), priors=("piecewise", "smooth"))
CONFIG = ModelConfig(
    n=N,
    architecture="feedback",
    head=EstimateConfig(encoding="column-tikhonov", n_equations=M),
    n_layer=2,
    n_head=2,
    n_embd=8,
)


@pytest.fixture(scope="module")
def solver(estimate_run):
    return LearnedSolver.from_pretrained(estimate_run)


@pytest.fixture(scope="module")
def unseen():
    return FAMILY.sample(400, seed=77)


def quietly(solver, A, b):
    """Estimate without the warnings about single systems."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", InconsistentWarning)
        return solver.estimate(A, b)


def wrapped(model):
    return LearnedSolver(model.eval(), CheckpointInfo(name="stub", family=FAMILY.settings(), commit=None, versions={}))


# ---------------------------------------------------------------- what is read


@pytest.mark.parametrize("c", [1.0, -3.0])
def test_scaling_by_hand(c):
    systems = FAMILY.sample(5, seed=1)
    A, b, size = scale_systems(c * systems.A, systems.b)
    for i in range(5):
        norm = np.linalg.norm(systems.A[i].T @ systems.A[i]) ** 0.5
        np.testing.assert_allclose(A[i], systems.A[i] / norm, rtol=1e-12, atol=1e-17)  # positive, as all entries are
        sign = np.sign(systems.b[i].sum())
        rms = np.sqrt(np.mean(systems.b[i] ** 2))
        np.testing.assert_allclose(b[i], sign * systems.b[i] / rms, rtol=1e-12)
        assert size[i] == pytest.approx(sign * rms / (c * norm), rel=1e-12)


def test_nothing_is_scaled_to_nothing():
    A, b, size = scale_systems(np.zeros((2, M, N)), np.zeros((2, M)))
    assert not A.any()
    assert not b.any()
    assert not size.any()


@pytest.mark.parametrize("shape", [(M, N), (N, M), (N, N)])
def test_tikhonov_channels_are_least_squares_with_more_rows(shape):
    rng = np.random.default_rng(0)
    A, b, _ = scale_systems(rng.standard_normal((3, *shape)), rng.standard_normal((3, shape[0])))
    found = tikhonov_channels(A.mT @ A, (A.mT @ b[..., None])[..., 0])
    for i in range(3):
        for k, parameter in enumerate(TIKHONOV_PARAMETERS):
            stacked = np.vstack((A[i], np.sqrt(parameter) * np.eye(shape[1])))
            expected = scipy.linalg.lstsq(stacked, np.concatenate((b[i], np.zeros(shape[1]))))[0]
            np.testing.assert_allclose(found[i, k], expected, rtol=1e-7, atol=1e-9)


@pytest.mark.parametrize(("m", "expected"), [(N, "b"), (M, "A'b")])
def test_tokens_by_hand(m, expected):
    systems = scale_systems(*(lambda s: (s.A, s.b))(dataclasses.replace(FAMILY, m=m).sample(2, seed=3)))
    config = CONFIG.with_head(n_equations=m)
    tokens = network_input(config, systems).tokens
    assert tokens.shape == (2, N, m + 11)
    x = tikhonov_channels(systems.A.mT @ systems.A, np.einsum("bmn,bm->bn", systems.A, systems.b))
    for i in range(2):
        np.testing.assert_allclose(tokens[i, :, :m], np.sqrt(N) * systems.A[i].T, rtol=1e-6)
        own = systems.b[i] if expected == "b" else systems.A[i].T @ systems.b[i]
        np.testing.assert_allclose(tokens[i, :, m], own, rtol=1e-5, atol=1e-7)
        power = 1 + np.mean(x[i] ** 2, axis=1)  # (5,)
        np.testing.assert_allclose(
            tokens[i, :, m + 1 : m + 6], (x[i] / np.sqrt(power)[:, None]).T, rtol=1e-4, atol=1e-6
        )
        np.testing.assert_allclose(tokens[i, :, m + 6 :], np.tile(np.log(power) / 2, (N, 1)), rtol=1e-4, atol=1e-6)
    bare = network_input(config.with_head(encoding="column"), systems).tokens
    np.testing.assert_array_equal(bare, tokens[:, :, : m + 1])


def test_examples_are_scaled_alike():
    """What is learned does not depend on the units of A and b."""
    systems = FAMILY.sample(3, seed=4)
    first = examples(CONFIG, systems.A, systems.b, systems.x, systems.params["noise"])
    other = examples(CONFIG, -2 * systems.A, 8 * systems.b, -4 * systems.x, systems.params["noise"])
    assert all(torch.equal(one, two) for one, two in zip(first, other, strict=True))
    np.testing.assert_allclose(np.exp(first[-1].numpy()), systems.params["noise"], rtol=1e-6)
    A, b, y = (part.double().numpy() for part in first[1:4])
    left = np.linalg.norm(np.einsum("bmn,bn->bm", A, y) - b, axis=1) / np.linalg.norm(b, axis=1)
    assert (left < 3 * systems.params["noise"]).all()


# ---------------------------------------------------------------- the network


def test_feedback_is_the_gradient_of_the_misfit():
    torch.manual_seed(0)
    read = FirstAnswer(CONFIG)
    h, A, b = torch.randn(3, N, 8), torch.randn(3, M, N), torch.randn(3, M)
    x = read.read(read.norm(h))[:, :, 0].detach().requires_grad_()
    (0.5 * (torch.einsum("bmn,bn->bm", A, x) - b).square().sum()).backward()
    g = -x.grad
    unit = g / g.square().mean(dim=1, keepdim=True).sqrt()
    expected = h + torch.stack((x, g, unit), dim=2) @ read.write.weight.T + read.write.bias
    torch.testing.assert_close(read(h, A, b), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("k", range(5))
def test_the_head_can_choose_a_tikhonov_solution(k):
    """Where its output does not depend on the tokens and weighs one channel alone, the mean is that solution."""
    systems = FAMILY.sample(3, seed=5)
    model = Algebraformer(CONFIG)
    A, b, size = scale_systems(systems.A, systems.b)
    x = tikhonov_channels(A.mT @ A, np.einsum("bmn,bm->bn", A, b))[:, k]
    with torch.no_grad():
        model.estimate_head.linear.bias.zero_()[2 + k] = 1
        model.estimate_head.prior_scale.zero_()  # no update by the data
    found = estimates(model.eval(), systems.A, systems.b)
    expected = size[:, None] * x / np.sqrt(1 + np.mean(x**2, axis=1, keepdims=True))
    np.testing.assert_allclose(found.mean, expected, rtol=1e-4, atol=1e-5 * np.abs(expected).max())
    np.testing.assert_allclose(found.noise, TYPICAL_NOISE, rtol=1e-6)
    np.testing.assert_allclose(found.std, np.abs(size[:, None]) * (1 + STD_FLOOR) * np.ones((3, N)), rtol=1e-6)


def test_update_is_that_of_a_gaussian_vector():
    """It minimises the misfit and the distance from the mean, each in its standard deviations, together."""
    systems = FAMILY.sample(3, seed=6)
    A, b, _ = pair = scale_systems(systems.A, systems.b)
    rng = np.random.default_rng(0)
    mean, std, noise = rng.standard_normal((3, N)), rng.uniform(0.1, 2, (3, N)), np.array([1e-3, 1e-2, 0.5])
    x, after = kalman_update(pair, mean, std, noise)
    for i in range(3):
        stacked = np.vstack((A[i] / noise[i], np.diag(1 / std[i])))
        right = np.concatenate((b[i] / noise[i], mean[i] / std[i]))
        np.testing.assert_allclose(x[i], scipy.linalg.lstsq(stacked, right)[0], rtol=1e-6, atol=1e-8)
        covariance = scipy.linalg.inv(stacked.T @ stacked)
        np.testing.assert_allclose(after[i], np.sqrt(np.diag(covariance)), rtol=1e-5)


def test_loss_against_scipy():
    rng = np.random.default_rng(0)
    mean, y, log_noise, true_noise = (rng.standard_normal(s) for s in ((4, N), (4, N), 4, 4))
    std = rng.uniform(0.1, 2, (4, N))
    head = EstimateHead(CONFIG, 8)
    tensors = [torch.from_numpy(v).float() for v in (mean, std, log_noise, y, true_noise)]
    found = float(head.output_loss(Output(*tensors[:3]), *tensors[3:]))
    relative = np.mean(np.linalg.norm(mean - y, axis=1) / np.linalg.norm(y, axis=1))
    likelihood = -scipy.stats.norm.logpdf(y, mean, std).mean() - 0.5 * np.log(2 * np.pi)
    assert found == pytest.approx(
        relative + AUXILIARY_WEIGHT * (likelihood + np.mean((log_noise - true_noise) ** 2)), rel=1e-5
    )


def test_the_standard_deviation_does_not_move_the_mean():
    """Seitzer et al.: a likelihood that moves both learns neither; here the mean has its own loss."""
    head = EstimateHead(CONFIG, 8)
    gradients = []
    for std in (0.1, 10.0):
        mean = torch.zeros(2, N, requires_grad=True)
        loss = head.output_loss(Output(mean, torch.full((2, N), std), torch.zeros(2)), torch.ones(2, N), torch.zeros(2))
        gradients.append(torch.autograd.grad(loss, mean)[0])
    assert torch.equal(*gradients)


def test_calibration_makes_intervals_hold_90_percent():
    rng = np.random.default_rng(0)
    head = EstimateHead(CONFIG, 8)
    head.std_factor.fill_(7.0)
    z = np.abs(3 * rng.standard_normal((1000, N)))
    head.calibrate(z, rng.random((1000, N)), rng.uniform(0.9, 1.1, 1000))
    assert float(head.std_factor) == pytest.approx(21, rel=0.02)
    assert head.fits(Algebraformer(CONFIG), np.array([0.5, 0.85, 1.0, 1.15, 1.5])).tolist() == [
        False,
        True,
        True,
        True,
        False,
    ]


# ---------------------------------------------------------------- trained


def test_it_has_learned(solver, unseen):
    """Better than every single Tikhonov parameter could be for all systems together; the noise level is recognised."""
    found = quietly(solver, unseen.A, unseen.b)
    errors = np.linalg.norm(found.x - unseen.x, axis=1) / np.linalg.norm(unseen.x, axis=1)
    A, b, size = scale_systems(unseen.A, unseen.b)
    single = size[:, None, None] * tikhonov_channels(A.mT @ A, np.einsum("bmn,bm->bn", A, b))
    rivals = np.linalg.norm(single - unseen.x[:, None], axis=2) / np.linalg.norm(unseen.x, axis=1)[:, None]
    assert np.median(errors) < np.median(rivals, axis=0).min()
    assert np.corrcoef(np.log(found.noise), np.log(unseen.params["noise"]))[0, 1] > 0.5


def test_intervals_and_judgements_of_the_family(solver, unseen):
    found = quietly(solver, unseen.A, unseen.b)
    low, high = found.interval
    assert 0.86 < np.mean((low <= unseen.x) & (unseen.x <= high)) < 0.94
    np.testing.assert_allclose(high - found.x, scipy.stats.norm.ppf(0.95) * found.std, rtol=1e-12)
    assert np.mean(found.consistent) > 0.97
    assert np.mean(found.in_distribution) > 0.97
    left = np.linalg.norm(np.einsum("bmn,bn->bm", unseen.A, found.x) - unseen.b, axis=1)
    np.testing.assert_allclose(found.misfit, left / (found.noise * np.linalg.norm(unseen.b, axis=1)), rtol=1e-10)


def test_other_systems_are_noticed(solver, unseen):
    rng = np.random.default_rng(0)
    permuted = quietly(solver, unseen.A[:, rng.permutation(M)], unseen.b)
    assert not permuted.in_distribution.any()
    noise = quietly(solver, unseen.A, unseen.b + 3 * rng.standard_normal(unseen.b.shape))
    assert np.mean(noise.consistent & noise.in_distribution) < 0.2


@pytest.mark.parametrize("name", ["deblur-64", "gravity-64", "fredholm-64"])
def test_shipped_models_know_their_matrices(name):
    """Those of other families, and with noise, are none of theirs; a trace of noise is allowed."""
    solver, rng = LearnedSolver.from_pretrained(name), np.random.default_rng(0)
    own = solver.info.problem_family().sample(200, TEST_SEED)
    assert np.mean(quietly(solver, own.A, own.b).in_distribution) > 0.97
    others = {"deblur-64": "gravity", "gravity-64": "phillips", "fredholm-64": "burgers"}
    strange = [problems.get(family, n=64).sample(50, TEST_SEED).A for family in ("diffusion", others[name])]
    strange += [own.A[:50, ::-1], rng.standard_normal((50, 64, 64)), np.broadcast_to(np.eye(64), (50, 64, 64))]
    for A in strange:
        assert not quietly(solver, A, own.b[:50]).in_distribution.any()
    noise = rng.standard_normal(own.A.shape) * np.linalg.norm(own.A, axis=(1, 2), keepdims=True) / 64
    familiar = quietly(solver, own.A, own.b).in_distribution
    assert not quietly(solver, own.A + 3e-2 * noise, own.b).in_distribution.any()
    assert np.mean(quietly(solver, own.A + 3e-4 * noise, own.b).in_distribution[familiar]) > 0.97


def test_a_matrix_of_zeros_is_refused(solver, unseen):
    A = unseen.A[:3].copy()
    A[1] = 0
    with pytest.raises(ValueError, match="system 1 of A is zero throughout"):
        solver.estimate(A, unseen.b[:3])
    with pytest.raises(ValueError, match="A is zero throughout"):
        solver.predict(A[1], unseen.b[1])


def test_what_does_not_fit_has_tikhonov_beside_it(solver, unseen):
    """A judge who is stricter than the one that was calibrated, so that one of three systems fails."""
    A, b = unseen.A[:3], unseen.b[:3]
    ratios = quietly(solver, A, b).misfit
    worst, model = int(ratios.argmax()), copy.deepcopy(solver.model)
    model.estimate_head.misfit[1] = np.mean(np.sort(ratios)[1:])  # between the worst and the next
    strict = wrapped(model)
    with pytest.warns(InconsistentWarning, match="1 of 3 estimates are inconsistent"):
        found = strict.estimate(A, b)
    assert np.flatnonzero(~found.consistent).tolist() == [worst]
    assert np.isfinite(found.tikhonov).all(axis=1).tolist() == (~found.consistent).tolist()
    with pytest.warns(InconsistentWarning, match="the estimate is inconsistent"):
        single = strict.estimate(A[worst], b[worst])
    np.testing.assert_allclose(single.tikhonov, found.tikhonov[worst], rtol=1e-8)
    assert single.consistent is False
    best = min(  # some Tikhonov solution is near the one that was chosen
        np.linalg.norm(np.linalg.solve(A[worst].T @ A[worst] + t * np.eye(N), A[worst].T @ b[worst]) - single.tikhonov)
        for t in np.geomspace(1e-14, 1e2, 400)
    )
    assert best < 0.05 * np.linalg.norm(single.tikhonov)


def test_a_network_without_sense_is_not_consistent(solver, unseen):
    model = copy.deepcopy(solver.model)
    with torch.no_grad():
        model.estimate_head.linear.bias.fill_(float("nan"))
    with pytest.warns(InconsistentWarning):
        found = wrapped(model).estimate(unseen.A[:4], unseen.b[:4])
    assert not found.consistent.any()
    assert np.isfinite(found.tikhonov).all()
    json.dumps(found.record(), allow_nan=False)


# ---------------------------------------------------------------- what a user gives and gets


def test_every_shape_of_input(solver, unseen):
    A, b = unseen.A[:3], unseen.b[:3]
    many = np.stack((b, b[::-1], -2 * b), axis=2)  # (3, M, 3)
    whole = quietly(solver, A, many)
    assert (whole.x.shape, whole.std.shape) == ((3, N, 3), (3, N, 3))
    assert (whole.noise.shape, whole.consistent.shape) == ((3, 3), (3, 3))
    np.testing.assert_allclose(whole.x[:, :, 2], -2 * whole.x[:, :, 0], rtol=1e-5)
    np.testing.assert_allclose(whole.std[:, :, 2], 2 * whole.std[:, :, 0], rtol=1e-5)
    batch, columns, single = quietly(solver, A, b), quietly(solver, A[0], many[0]), quietly(solver, A[0], b[0])
    assert (batch.x.shape, batch.noise.shape) == ((3, N), (3,))
    assert (columns.x.shape, columns.noise.shape) == ((N, 3), (3,))
    assert (single.x.shape, type(single.noise), type(single.consistent)) == ((N,), float, bool)
    for found in (batch.x[0], columns.x[:, 0], single.x):
        np.testing.assert_allclose(found, whole.x[0, :, 0], rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(solver.predict(A, b), batch.x)
    np.testing.assert_array_equal(solver.predict(A, many), whole.x)
    assert quietly(solver, np.empty((0, M, N)), np.empty((0, M))).x.shape == (0, N)
    assert quietly(solver, A[0], np.empty((M, 0))).x.shape == (N, 0)
    np.testing.assert_allclose(quietly(solver, A.astype(np.float32), b.tolist()).x, batch.x, rtol=1e-3, atol=1e-4)


GOOD_A, GOOD_B = np.ones((M, N)), np.ones(M)
HOLE = np.where(np.arange(M) == 4, np.nan, 1.0)


@pytest.mark.parametrize("method", ["estimate", "predict"])
@pytest.mark.parametrize(
    ("A", "b", "message"),
    [
        (np.ones((N, M)), np.ones(N), r"matrices of shape \(15, 12\), received \(12, 15\)"),
        (np.ones((2, M, M)), np.ones((2, M)), r"matrices of shape \(15, 12\), received \(15, 15\)"),
        (2.0, GOOD_B, r"A must have shape \(m, n\) or \(B, m, n\), received \(\)"),
        (GOOD_A, np.ones(N), "b has 12 rows, A has 15"),
        (GOOD_A, 1.0, r"b must have shape \(m,\) or \(m, k\), received \(\)"),
        (GOOD_A[None], GOOD_B, r"b must have shape \(B, m\) or \(B, m, k\), received \(15,\)"),
        (GOOD_A[None], np.ones((2, M)), "b holds 2 systems, A holds 1"),
        (GOOD_A * HOLE[:, None], GOOD_B, r"A contains NaN or infinity, first at index \(4, 0\)"),
        (GOOD_A, HOLE, r"b contains NaN or infinity, first at index \(4,\)"),
        (GOOD_A * 1j, GOOD_B, "A has dtype complex128, expected real numbers"),
        (GOOD_A, GOOD_B.astype(str), "b has dtype <U"),
        (GOOD_A.astype(object), GOOD_B, "A has dtype object"),
        (GOOD_A, np.ma.masked_array(GOOD_B, GOOD_B > 0), "b is a masked array"),
    ],
)
def test_bad_input_is_refused(solver, method, A, b, message):
    with pytest.raises(ValueError, match=message):
        getattr(solver, method)(A, b)


def test_each_head_says_what_it_is_for(solver, tiny_run):
    A, b = np.eye(8), np.ones(8)
    for call in (lambda: solver.solve(A, b), lambda: solver.operator(A), lambda: af.solve(A, b, model=solver)):
        with pytest.raises(ConfigurationError, match="is an estimator for noisy systems: call `estimate`"):
            call()
    with pytest.raises(ConfigurationError, match="this model has a token head: only estimate heads"):
        LearnedSolver.from_pretrained(tiny_run).estimate(A, b)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"family": "diffusion", "family_settings": {}},
            "an estimate head learns a noisy family, received 'diffusion'",
        ),
        ({"family_settings": {"m": N}}, "the model reads 15 equations, the family has 12"),
    ],
)
def test_recipes_that_do_not_fit(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Recipe(**{"family": "deblur", "family_settings": {"m": M}, "model": CONFIG} | change)


@pytest.mark.parametrize("name", ["quick", "diffusion-64-mlp"])
def test_other_heads_learn_no_noisy_family(name):
    recipe = RECIPES[name]
    with pytest.raises(ConfigurationError, match=f"change the family of the recipe.*head '{recipe.model.head.name}'"):
        dataclasses.replace(recipe, family="gravity")


def test_estimate_heads_are_not_tuned_on_few_systems():
    with pytest.raises(ConfigurationError, match="few systems are for the other heads"):
        FinetuneRecipe(family="deblur", family_settings={"m": M}, model=CONFIG, samples=100)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"architecture": "mlp"}, "estimate heads go with transformer, lstm, gru, feedback.*, received 'mlp'"),
        ({"head": "token"}, "token heads go with transformer, lstm, gru.*, received 'feedback'"),
        ({"head": {"name": "estimate", "n_equations": -1}}, "n_equations must be a whole number from 1"),
        (
            {"head": {"name": "estimate", "rank": 3}},
            "settings of head 'estimate' are encoding, n_equations, nonnegative",
        ),
    ],
)
def test_configurations_that_do_not_fit(change, message):
    with pytest.raises(ConfigurationError, match=message):
        dataclasses.replace(CONFIG, **change)


def test_scores(solver, unseen):
    scores = evaluation.evaluate_estimates(solver, unseen)["estimate"]
    found = quietly(solver, unseen.A, unseen.b)
    errors = np.linalg.norm(found.x - unseen.x, axis=1) / np.linalg.norm(unseen.x, axis=1)
    noise = unseen.params["noise"]
    assert scores["relative_error_90"] == pytest.approx(np.quantile(errors, 0.9))
    assert scores["coverage"] == pytest.approx(np.mean(np.abs(found.x - unseen.x) <= GAUSS_90 * found.std))
    low = errors[(noise >= 1e-3) & (noise < 3e-3)]
    assert scores["relative_error_median, noise 0.001 to 0.003"] == pytest.approx(np.median(low))
    assert scores["consistent"] == pytest.approx(np.mean(found.consistent))
    assert solver.info.scores["relative_error_median"] == pytest.approx(scores["relative_error_median"], rel=0.3)


# ---------------------------------------------------------------- units and memory


@pytest.mark.parametrize(
    ("A_power", "b_power"), [(565, 0), (0, 565), (-565, 300), (-565, -565), (990, 990), (-900, -800)]
)
def test_units_do_not_matter(solver, unseen, A_power, b_power):
    """Powers of two round nothing: everything is as before but for the unit of x, up to 1e+-300."""
    A, b = unseen.A[:5], unseen.b[:5]
    plain = solver.estimate(A, b)
    found = solver.estimate(np.ldexp(A, A_power), np.ldexp(b, b_power))
    for name in ("noise", "misfit", "consistent", "in_distribution"):
        np.testing.assert_array_equal(getattr(found, name), getattr(plain, name))
    np.testing.assert_array_equal(np.ldexp(found.x, A_power - b_power), plain.x)
    np.testing.assert_array_equal(np.ldexp(found.std, A_power - b_power), plain.std)


def test_tikhonov_at_the_ends_of_the_range(solver, unseen):
    b = np.random.default_rng(0).standard_normal(unseen.b[:3].shape)
    with pytest.warns(InconsistentWarning):
        plain, found = (solver.estimate(np.ldexp(unseen.A[:3], p), np.ldexp(b, p)) for p in (0, 900))
    odd = ~plain.consistent
    assert odd.any()
    np.testing.assert_allclose(found.tikhonov[odd], plain.tikhonov[odd], rtol=1e-12)


def test_memory_of_many_right_hand_sides(solver, unseen):
    """A is not copied for every b: with 20,000 of them that alone would be a hundred times b."""
    A, b = unseen.A[0], np.repeat(unseen.b[:1].T, 20_000, axis=1)
    tracemalloc.start()
    found = solver.estimate(A, b)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    np.testing.assert_allclose(found.x[:, -1], solver.estimate(A, b[:, 0]).x, rtol=1e-5, atol=1e-6)
    assert peak < 20_000 * A.nbytes


def test_an_estimate_beyond_float64_is_not_consistent(solver, unseen):
    with pytest.warns(InconsistentWarning):
        found = solver.estimate(1e-300 * unseen.A[:2], 1e300 * unseen.b[:2])
    assert not np.isfinite(found.x).all()
    assert not found.consistent.any()
