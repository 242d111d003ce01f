"""What every kind of network promises, whatever its head. A new head passes `CHECKS`, see test_custom_head.py."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch

from algebraformer.models import Algebraformer, ModelConfig, predict
from algebraformer.models.heads import Sample, TrainingData, data
from algebraformer.models.inference import operator_reader, reader
from algebraformer.problems import ProblemFamily, Systems


def begin(model: Algebraformer, family: ProblemFamily) -> Algebraformer:
    """Give a network what it learns of the family before training, from 64 systems."""
    sample = Sample(family, 64, seed=1)
    model.head.begin(model, TrainingData(sample, sample, sample, 64, few=True, trained_on=64, readout=tuple))
    return model


def build(config: ModelConfig, family: ProblemFamily, seed: int = 0) -> Algebraformer:
    """Return a network with random weights: a fresh one answers x = 0, which would hide a lot."""
    torch.manual_seed(seed)
    model = begin(Algebraformer(config), family).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model


def batch(model: Algebraformer, family: ProblemFamily, count: int, seed: int) -> data.Batch:
    """Return what the loss takes, from the first systems of a seed."""
    return model.head.example_maker(model)(family, range(count), seed)


def tensors(systems: Systems) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return A, b and x as tensors."""
    return torch.from_numpy(systems.A), torch.from_numpy(systems.b), torch.from_numpy(systems.x)


def change(a: torch.Tensor, b: torch.Tensor) -> float:
    """Return the largest relative difference of two batches of solutions."""
    return float(((a - b).norm(dim=1) / b.norm(dim=1)).max())


@torch.no_grad()
def shape_and_dtype(model: Algebraformer, family: ProblemFamily) -> None:
    for count in (1, 5):
        A, b, _ = tensors(family.sample(count, seed=2))
        x = model(A, b)
        assert (x.shape, x.dtype) == ((count, family.n), torch.float64)
        assert torch.isfinite(x).all()


@torch.no_grad()
def systems_of_a_batch_do_not_mix(model: Algebraformer, family: ProblemFamily) -> None:
    """float32 rounding may depend on the size of the batch, and nothing else; NaN stays where it is."""
    A, b, _ = tensors(family.sample(7, seed=3))
    x = model(A, b)
    for i in range(7):
        assert change(model(A[i : i + 1], b[i : i + 1]), x[i : i + 1]) < 1e-5
    A[2], b[4, 1] = torch.nan, torch.inf  # all of A: an operator head reads some entries only
    with np.errstate(invalid="ignore"):
        finite = torch.isfinite(model(A, b)).all(dim=1)
    assert finite.tolist() == [True, True, False, True, False, True, True]


@torch.no_grad()
def zero_gives_zero(model: Algebraformer, family: ProblemFamily) -> None:
    A, b, _ = tensors(family.sample(4, seed=4))
    assert torch.equal(model(A, 0 * b), torch.zeros(4, family.n, dtype=torch.float64))


@torch.no_grad()
def scaling_by_powers_of_two_is_exact(model: Algebraformer, family: ProblemFamily) -> None:
    """Such a scaling rounds nothing, so not one bit of the network's input may change."""
    A, b, _ = tensors(family.sample(4, seed=5))
    x = model(A, b)
    for c, ratio, sign in ((0, 5, -1.0), (-600, 300, 1.0), (521, -210, -1.0)):
        scaled = model(sign * 2.0**c * A, 2.0 ** (c + ratio) * b)
        assert torch.equal(scaled, sign * 2.0**ratio * x)


def same_seed_same_weights(model: Algebraformer, family: ProblemFamily) -> None:
    states = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        states.append(Algebraformer(model.config).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
    assert all(torch.isfinite(tensor).all() for tensor in states[0].values())


def gradients_reach_every_parameter(model: Algebraformer, family: ProblemFamily) -> None:
    model = build(model.config, family).train()
    model.loss(*batch(model, family, 8, seed=7)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.abs().max() > 0, name


@torch.no_grad()
def loss_is_a_mean_over_systems(model: Algebraformer, family: ProblemFamily) -> None:
    """So that processes can share a batch."""
    examples = batch(model, family, 7, seed=11)
    losses = [float(model.loss(*(part[i : i + 1] for part in examples))) for i in range(7)]
    assert float(model.loss(*examples)) == pytest.approx(np.mean(losses), rel=1e-5)


def predict_is_forward_in_chunks(model: Algebraformer, family: ProblemFamily) -> None:
    """One right-hand side or several, in chunks of any size: each is answered as if it were alone."""
    systems = family.sample(7, seed=8)
    b = np.stack((systems.b, systems.b[::-1], -2 * systems.b), axis=2)
    for array in (systems.A, b):
        array.flags.writeable = False  # as np.load(mmap_mode="r") gives them; torch warns about those
    with torch.no_grad():
        forward = [model(torch.tensor(systems.A), torch.tensor(b[:, :, j])) for j in range(3)]
    for batch_size in (1, 3, 100):
        with pytest.MonkeyPatch.context() as patch:
            for module in (reader, operator_reader):
                patch.setattr(module, "BATCH_SIZE", batch_size)
            patch.setattr(operator_reader, "max_batch_size", lambda n, size=batch_size: size)
            x = predict(model, systems.A, b)
        assert isinstance(x, np.ndarray)
        assert (x.dtype, x.shape) == (np.float64, (7, family.n, 3))
        assert max(change(torch.from_numpy(x[:, :, j]), forward[j]) for j in range(3)) < 1e-5


def predict_nothing(model: Algebraformer, family: ProblemFamily) -> None:
    m, n = model.config.n_equations, family.n
    assert predict(model, np.empty((0, m, n)), np.empty((0, m, 1))).shape == (0, n, 1)


def prepared_answers_are_predictions(model: Algebraformer, family: ProblemFamily) -> None:
    """Also for some of the matrices that were read."""
    if model.config.head.unsupported_reason:
        return
    systems = family.sample(6, seed=9)
    reading, b = model.read(systems.A), systems.b[:, :, None]
    assert reading.in_distribution.shape == (6,)
    x = predict(model, systems.A, b)
    np.testing.assert_array_equal(reading.predict(b), x)
    chosen = np.array([4, 1])
    assert len(reading[chosen]) == 2
    np.testing.assert_allclose(reading[chosen].predict(b[chosen]), x[chosen], rtol=1e-4)
    assert (reading.inverse is not None) == model.config.head.is_linear
    if reading.inverse is not None:
        np.testing.assert_allclose(reading.inverse(b), x, rtol=1e-4, atol=1e-6 * np.abs(x).max())
        assert reading.defect is not None
        assert reading.defect.shape == (6,)


def defect_shows_what_is_not_finite(model: Algebraformer, family: ProblemFamily) -> None:
    """Wherever the entry is, read or not: a matrix is not looked at again where the probe leaves less than all."""
    if not model.config.head.is_linear:
        return
    A, n = family.sample(1, seed=10).A[0], family.n
    places = [(i, j) for i in range(n) for j in range(n)]
    for value in (np.nan, np.inf, -np.inf):
        broken = np.repeat(A[None], len(places), axis=0)
        broken[np.arange(len(places)), *np.transpose(places)] = value
        with np.errstate(all="ignore"):
            defect = model.read(broken).defect
        assert defect is not None
        assert (defect >= 1).all()


CHECKS: tuple[Callable[[Algebraformer, ProblemFamily], None], ...] = (
    shape_and_dtype,
    systems_of_a_batch_do_not_mix,
    zero_gives_zero,
    scaling_by_powers_of_two_is_exact,
    same_seed_same_weights,
    gradients_reach_every_parameter,
    loss_is_a_mean_over_systems,
    predict_is_forward_in_chunks,
    predict_nothing,
    prepared_answers_are_predictions,
    defect_shows_what_is_not_finite,
)
