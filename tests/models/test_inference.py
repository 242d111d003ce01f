"""Networks in NumPy give what the same networks give in torch, as closely as float32 goes."""

from __future__ import annotations

import copy
import functools
import pickle

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, softmax

import algebraformer as af
from algebraformer import checkpoint, problems
from algebraformer.checkpoint import CheckpointInfo, arrays_of
from algebraformer.errors import ConfigurationError
from algebraformer.models import Algebraformer, NumpyNetwork
from algebraformer.models.inference.layers import CACHED, FEW, MODERATE_SCORE, centred, gelu, softmax_mean, standardized
from algebraformer.models.inference.network import has_numpy_form, parameter_count
from head_contract import build
from tests.models.test_models import KINDS, family

OURS = [kind for kind, config in KINDS.items() if has_numpy_form(config)]
ROUNDING = 1e-6
"""What the outputs of a small network in float32 may differ by, relative to their norm over a batch."""


@functools.cache
def pair(kind: str) -> tuple[NumpyNetwork, Algebraformer]:
    """Return a network with random weights twice."""
    model = build(KINDS[kind], family(kind))
    return NumpyNetwork(model.config, arrays_of(model)), model


def seen(network: NumpyNetwork, systems: problems.Systems) -> list[tuple[np.ndarray, ...]]:
    """Return what the network is asked about these systems."""
    if network.config.head.name == "inversion":
        return [(np.concatenate([network.reader.read(data).tokens for data, _ in systems.groups()]),)]
    asked = []

    def forward(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        asked.append(inputs)
        return network.forward(*inputs)

    (network.reader.estimates if network.config.head.estimates else network.reader.predict)(
        forward, systems.A, systems.b if network.config.head.estimates else systems.b[:, :, None]
    )
    return asked


@torch.no_grad()
def in_torch(model: Algebraformer, inputs: tuple[np.ndarray, ...], dtype: torch.dtype) -> list[np.ndarray]:
    """Return the outputs that the reader asks for from the module in another precision, float64."""
    model = copy.deepcopy(model).to(dtype)
    tensors = [torch.tensor(part).to(dtype) for part in inputs]
    h = model.encode(*tensors)
    match model.config.head.name:
        case "operator":
            found = [model.operator_head(h) / model.operator_head.scale_of_coefficients()]
        case "token" | "preconditioned":
            found = [model.head(h)]
        case "inversion":
            found = list(model.head.outputs(model, *tensors))
        case _:
            found = list(model.head(h, tensors[0]))
    return [part.double().numpy() for part in found]


def distance(found: np.ndarray, expected: np.ndarray) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("kind", OURS)
def test_every_kind_of_network(kind: str) -> None:
    network, model = pair(kind)
    systems = family(kind).sample(40, seed=5)
    for inputs in seen(network, systems):
        for found, exact in zip(network.forward(*inputs), in_torch(model, inputs, torch.float64), strict=True):
            assert (found.dtype, found.shape) == (np.float32, exact.shape)
            assert distance(found, exact) < ROUNDING
    assert distance(
        network.predict(systems.A, systems.b[:, :, None]), model.predict(systems.A, systems.b[:, :, None])
    ) < (10 * ROUNDING)


@pytest.mark.parametrize("kind", OURS)
def test_readings_and_estimates(kind: str) -> None:
    network, model = pair(kind)
    systems = family(kind).sample(9, seed=6)
    if network.config.head.estimates:
        for found, expected in zip(*(one.estimates(systems.A, systems.b) for one in (network, model)), strict=True):
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4 * np.abs(expected).max())
    else:
        found, expected = (one.read(systems.A) for one in (network, model))
        np.testing.assert_array_equal(found.in_distribution, expected.in_distribution)
        assert (found.inverse is None) == (expected.inverse is None)
    assert network.parameter_count() == model.parameter_count() == parameter_count(model.config)


@pytest.mark.parametrize("name", af.pretrained_names())
def test_every_shipped_checkpoint(name: str) -> None:
    """No further from the same network in float64 than torch is in float32, to a factor that rounding explains."""
    folder = checkpoint.resolve(name)
    (network, info), (model, _) = checkpoint.load_network(folder), checkpoint.load(folder)
    assert isinstance(network, NumpyNetwork)
    systems = info.problem_family().sample(128, seed=4)
    for inputs in seen(network, systems):
        exact, single = (in_torch(model, inputs, dtype) for dtype in (torch.float64, torch.float32))
        for found, right, other in zip(network.forward(*inputs), exact, single, strict=True):
            assert distance(found, right) < max(ROUNDING, 2 * distance(other, right))


def test_far_outside_the_family_nothing_is_said() -> None:
    """Numbers that leave float32 are no warning: what comes of them is measured later."""
    for kind in OURS:
        network, _ = pair(kind)
        inputs = [np.full_like(part, 1e30) for part in seen(network, family(kind).sample(2, seed=5))[0]]
        network.forward(*inputs)


# ---------------------------------------------------------------- one network, two forms


@pytest.mark.parametrize("kind", OURS)
@pytest.mark.parametrize("size", [1e-315, np.finfo(float).max])
def test_numbers_at_the_ends_of_float64_give_no_warning(kind: str, size: float) -> None:
    network, _ = pair(kind)
    m, n = network.config.n_equations, network.config.n
    A = np.random.default_rng(0).uniform(0.5, 1, (2, m, n)) * size
    assert network.predict(A, np.ones((2, m, 1))).shape == (2, n, 1)
    if not network.config.head.estimates:
        assert len(network.read(A)) == 2


def test_there_and_back() -> None:
    network, model = pair("transformer-token-column")
    again = checkpoint.as_module(network)
    assert checkpoint.as_module(model) is model
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, model.state_dict()[name])
        tensor.zero_()
    assert all(array.any() for name, array in network.arrays.items() if "embedding" in name)


def test_the_module_of_a_solver_is_a_copy() -> None:
    solver = af.LearnedSolver.from_pretrained("diffusion-64")
    systems = problems.get("diffusion", n=64).sample(2, seed=1)
    before = solver.predict(systems.A, systems.b)
    with torch.no_grad():
        solver.model.operator_head.linear.bias.add_(1.0)
    np.testing.assert_array_equal(solver.predict(systems.A, systems.b), before)
    changed = af.LearnedSolver(solver.model, solver.info)
    assert changed.network is changed.model is solver.model
    assert distance(changed.predict(systems.A, systems.b), before) > 1e-3


def test_any_device_but_the_cpu_is_torchs() -> None:
    solver = af.LearnedSolver.from_pretrained("diffusion-64", device="cpu:0")
    assert isinstance(solver.network, Algebraformer)


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda solver: pickle.loads(pickle.dumps(solver))])
def test_solvers_are_copied_and_pickled(copied: object) -> None:
    solver = af.LearnedSolver.from_pretrained("diffusion-64")
    systems = problems.get("diffusion", n=64).sample(2, seed=1)
    other = copied(solver)  # type: ignore[operator]
    np.testing.assert_array_equal(other.solve(systems.A, systems.b).x, solver.solve(systems.A, systems.b).x)


def test_a_checkpoint_of_a_numpy_network(tmp_path) -> None:
    network, model = pair(next(kind for kind in OURS if kind.startswith("mlp")))
    info = CheckpointInfo(name="x", family={"name": "reaction-diffusion", "n": 6})
    checkpoint.save(tmp_path / "numpy", network, info)
    checkpoint.save(tmp_path / "torch", model, info)
    for file in (checkpoint.MODEL, checkpoint.CONFIG):
        assert (tmp_path / "numpy" / file).read_bytes() == (tmp_path / "torch" / file).read_bytes()


def test_wrong_arrays_are_refused() -> None:
    network, _ = pair("transformer-token-column")
    name = "tokens.embedding.weight"
    for arrays, message in (
        ({**network.arrays, "zeta": np.zeros(1)}, "unknown tensor 'zeta'"),
        ({key: value for key, value in network.arrays.items() if key != name}, f"'{name}' is missing"),
        ({**network.arrays, name: network.arrays[name].T}, f"{name} has shape"),
        ({**network.arrays, name: network.arrays[name].astype(float)}, "dtype float64"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            NumpyNetwork(network.config, arrays)


# ---------------------------------------------------------------- layers


@pytest.mark.parametrize("size", [1, FEW, FEW + 1, CACHED, CACHED + 1, 3 * CACHED])
def test_gelu(size: int) -> None:
    x = np.linspace(-20, 20, size, dtype=np.float32)
    exact = x * ndtr(x.astype(float))
    assert np.abs(gelu(x.copy()) - exact).max() < 4e-7 * max(1.0, np.abs(exact).max() / 2)
    assert gelu(np.full(size, np.inf, np.float32))[0] == np.inf


@given(st.floats(0, 300), st.integers(1, 9), st.integers(0, 99))
@settings(max_examples=60, deadline=None)
def test_softmax(size: float, T: int, seed: int) -> None:
    """On both sides of what needs no shift."""
    rng = np.random.default_rng(seed)
    scores, values = rng.uniform(-size, size, (2, T, T)).astype("f4"), rng.standard_normal((2, T, 3)).astype("f4")
    exact = softmax(scores.astype(float), axis=-2).mT @ values
    np.testing.assert_allclose(softmax_mean(scores, values), exact, rtol=1e-4, atol=1e-5)
    assert MODERATE_SCORE < 80


def test_standardized() -> None:
    h = np.random.default_rng(0).standard_normal((3, 5, 16)).astype("f4") * 7 + 3
    found = standardized(centred(h))
    np.testing.assert_allclose(found.mean(axis=-1), 0, atol=1e-6)
    np.testing.assert_allclose(found.std(axis=-1), 1, rtol=1e-4)
