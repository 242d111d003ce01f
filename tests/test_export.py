"""Exported networks return what the networks return, and answers made of them are certified like any other."""

from __future__ import annotations

import copy
import dataclasses
import io
import pickle
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

import algebraformer as af
from algebraformer import checkpoint, export, problems
from algebraformer.errors import ConfigurationError
from algebraformer.models import EstimateConfig, ModelConfig, NumpyNetwork, OperatorConfig
from algebraformer.numerics import gcr
from head_contract import build
from tests.models.test_inference import distance, in_torch, seen

TOLERANCE = 1e-5


def onnx_forward(data: bytes | str, inputs: list[str]):
    """Return the forward pass of an ONNX model on the CPU, one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    engine = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    assert [one.name for one in engine.get_inputs()] == inputs
    return lambda *parts: tuple(engine.run(None, dict(zip(inputs, parts, strict=False)))), engine


def torch_forward(data):
    module = torch.export.load(data).module()

    def forward(*parts):
        with torch.no_grad():
            return tuple(found.numpy() for found in module(*map(torch.from_numpy, parts)))

    return forward


def systems_of(info) -> problems.Systems:
    return info.problem_family().sample(5, seed=4)


@pytest.fixture(scope="module", params=af.pretrained_names())
def shipped(request, tmp_path_factory):
    """A shipped network with both of its exports."""
    folder, path = checkpoint.resolve(request.param), tmp_path_factory.mktemp("export")
    network, info = checkpoint.load_network(folder)
    for format in ("onnx", "torch"):
        assert export.save(network, path / format, format) == export.signature(network.config)
    return network, info, path


def test_every_shipped_checkpoint(shipped) -> None:
    """Against the network in float64 arithmetic, for one system and several: the bare answers x to 1e-5.

    So are the outputs, or no further off than a few times torch in float32: the read-out of an operator head is fitted
    by least squares, and multiples of its smallest coefficients carry a rounding of 1e-4 in float32, wherever it runs.
    """
    network, info, path = shipped
    model = checkpoint.as_module(network)
    names = list(export.signature(network.config).inputs)
    forward, engine = onnx_forward(str(path / "onnx"), names)
    other = torch_forward(path / "torch")
    assert [one.name for one in engine.get_outputs()] == list(export.signature(network.config).outputs)
    onnx.checker.check_model(str(path / "onnx"), full_check=True)
    systems = systems_of(info)

    def exact(*inputs: np.ndarray) -> tuple[np.ndarray, ...]:
        return tuple(in_torch(model, inputs, torch.float64))

    for count in (1, 5):
        A, b = systems.A[:count], systems.b[:count, :, None]
        (inputs,) = seen(network, systems[np.arange(count)])
        double, single = exact(*inputs), in_torch(model, inputs, torch.float32)
        for run in (forward, other):
            for one, right, rounded in zip(run(*inputs[: len(names)]), double, single, strict=True):
                assert (one.dtype, one.shape) == (np.float32, right.shape)
                assert distance(one, right) < max(TOLERANCE, 3 * distance(rounded, right))
            if network.config.head.name != "inversion":  # A and b do not say where was measured
                x, right = (network.with_forward(each).predict(A, b) for each in (run, exact))
                assert distance(x, right) < TOLERANCE


def test_shapes_are_those_of_the_signature(shipped) -> None:
    network, _, path = shipped
    found = export.signature(network.config)
    _, engine = onnx_forward(str(path / "onnx"), list(found.inputs))
    for parts, expected in ((engine.get_inputs(), found.inputs), (engine.get_outputs(), found.outputs)):
        assert {one.name: tuple(one.shape) for one in parts} == expected
        assert {one.type for one in parts} == {"tensor(float)"}


def test_answers_are_certified(shipped) -> None:
    """The exported network inside of the NumPy runtime."""
    network, info, path = shipped
    if network.config.head.name == "inversion":
        pytest.skip("it inverts measurements")
    names = list(export.signature(network.config).inputs)
    systems = systems_of(info)
    for forward in (onnx_forward(str(path / "onnx"), names)[0], torch_forward(path / "torch")):
        solver = af.LearnedSolver(network.with_forward(forward), info)
        if network.config.head.estimates:
            found, expected = (
                solver.estimate(systems.A, systems.b),
                af.LearnedSolver(network, info).estimate(systems.A, systems.b),
            )
            np.testing.assert_allclose(found.x, expected.x, rtol=1e-3, atol=1e-3 * np.abs(expected.x).max())
            np.testing.assert_array_equal(found.in_distribution, expected.in_distribution)
            continue
        x = network.predict(systems.A, systems.b[:, :, None])[:, :, 0]
        np.testing.assert_allclose(solver.predict(systems.A, systems.b), x, rtol=1e-3, atol=1e-3 * np.abs(x).max())
        if info.is_linear_system:
            result = solver.solve(systems.A, systems.b)
            assert result.certified.all()
            if network.config.head.is_linear:
                assert set(result.method) == {"learned+refined"}


def test_by_hand_with_the_reader_and_its_inverse(shipped) -> None:
    """The steps of the document: entries by the reader, coefficients by ONNX, refinement by their inverses."""
    network, info, path = shipped
    if not network.config.head.is_linear:
        return
    forward, _ = onnx_forward(str(path / "onnx"), ["tokens"])
    systems, reader = systems_of(info), network.reader
    z, scaling = reader.basis.read(systems.A)
    (multiples,) = forward(z.reshape(5, network.config.n_token, -1).astype(np.float32))
    inverse = reader.inverse_of(multiples * reader.typical, scaling)
    found = gcr.gcr_restarted(systems.A, systems.b[:, :, None], inverse, None, 10)
    assert found.certified.all()
    np.testing.assert_allclose(found.x[:, :, 0], systems.x, rtol=1e-7, atol=1e-9 * np.abs(systems.x).max())


def test_the_basis_is_not_exported(shipped) -> None:
    """What belongs to the reader stays there: the files hold the parameters, and little besides."""
    network, _, path = shipped
    size = 4 * network.parameter_count()
    for format in ("onnx", "torch"):
        assert size < (path / format).stat().st_size < size + 500_000
    if network.config.head.is_linear:
        assert sum(array.nbytes for array in network.buffers.values()) > 1_000_000


KINDS = {
    "lstm": ModelConfig(n=6, architecture="lstm", n_layer=2, n_embd=8, bidirectional=True),
    "gru": ModelConfig(n=6, architecture="gru", n_layer=1, n_embd=8),
    "causal": ModelConfig(n=6, n_layer=2, n_head=2, n_embd=8, causal=True),
    "entry": ModelConfig(n=6, n_layer=1, n_head=2, n_embd=8, head={"name": "token", "encoding": "entry"}),
    "operator": ModelConfig(n=6, n_layer=1, n_head=2, n_embd=8, head=OperatorConfig(rank=4, n_column=4, n_row=3)),
    "estimate": ModelConfig(n=6, n_layer=1, n_head=2, n_embd=8, head=EstimateConfig(n_equations=9)),
}
SLOW = ("lstm", "causal", "entry")
"""Kinds that are exported by the same code as the others."""


@pytest.mark.parametrize("kind", [pytest.param(k, marks=[pytest.mark.slow] if k in SLOW else []) for k in KINDS])
def test_other_networks(kind: str) -> None:
    """Also from a module of torch, which is not changed."""
    config = KINDS[kind]
    family = problems.get("deblur", n=6, m=9) if config.head.estimates else problems.get("diffusion", n=6)
    model = build(config, family).train()
    before = copy.deepcopy(model.state_dict())
    stream = io.BytesIO(export._onnx(model, export.signature(config)))
    program = torch_forward(io.BytesIO(export._program(model, export.signature(config))))
    assert model.training
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    names = list(export.signature(config).inputs)
    forward, _ = onnx_forward(stream.getvalue(), names)
    network = NumpyNetwork(config, checkpoint.arrays_of(model))
    (inputs,) = seen(network, family.sample(3, seed=1))
    exact = in_torch(model.eval(), inputs, torch.float64)
    for run in (forward, program):
        for one, right in zip(run(*inputs[: len(names)]), exact, strict=True):
            assert distance(one, right) < TOLERANCE


def test_complex_coefficients_are_pairs() -> None:
    head = OperatorConfig(rank=5, n_column=4, n_row=3, numbers="complex")
    config = ModelConfig(n=8, architecture="mlp", head=head, n_layer=1, n_embd=8)
    assert export.signature(config).outputs == {"multiples": ("batch", 10)}
    model = build(config, problems.get("helmholtz", n=8))
    data = io.BytesIO(export._program(model, export.signature(config)))
    assert torch_forward(data)(np.zeros((3, 1, 24), "f4"))[0].shape == (3, 10)


# ---------------------------------------------------------------- another forward pass


def test_a_network_with_another_forward_pass() -> None:
    solver = af.LearnedSolver.from_pretrained("diffusion-64")
    systems = problems.get("diffusion", n=64).sample(4, seed=3)
    other = solver.network.with_forward(Twice(solver.network))
    one, two = (n.forward(np.ones((2, 1, 256), "f4"))[0] for n in (solver.network, other))
    np.testing.assert_array_equal(two, 2 * one)
    for again in (copy.deepcopy(other), pickle.loads(pickle.dumps(other))):
        np.testing.assert_array_equal(again.forward(np.ones((2, 1, 256), "f4"))[0], two)
    assert other.parameter_count() == solver.network.parameter_count()
    result = af.LearnedSolver(other, solver.info).solve(systems.A, systems.b)  # twice the coefficients: no inverse
    assert set(result.method) == {"lapack"}
    assert result.certified.all()


@dataclasses.dataclass
class Twice:
    network: NumpyNetwork

    def __call__(self, *inputs):
        return tuple(2 * part for part in self.network.forward(*inputs))


# ---------------------------------------------------------------- what cannot be exported


def test_what_is_refused(tmp_path: Path) -> None:
    network = af.LearnedSolver.from_pretrained("diffusion-64").network
    with pytest.raises(ConfigurationError, match="format must be one of onnx, torch, received 'tflite'"):
        export.save(network, tmp_path / "x", "tflite")
    module = af.LearnedSolver.from_module(Zero(), problems.get("diffusion", n=6)).network
    with pytest.raises(ConfigurationError, match="head 'module': only heads of the package"):
        export.save(module, tmp_path / "x")
    with pytest.raises(OSError, match="nowhere"):
        export.save(network, tmp_path / "nowhere" / "x", "torch")
    assert list(tmp_path.iterdir()) == []


class Zero(torch.nn.Module):
    def forward(self, A, b):
        return 0 * b


def test_without_onnx(tmp_path: Path) -> None:
    code = (
        "import importlib.util as u, sys; find = u.find_spec\n"
        "u.find_spec = lambda name, *rest: None if name.startswith('onnx') else find(name, *rest)\n"
        "from algebraformer.cli import main; sys.exit(main())"
    )
    words = ("export", "diffusion-64", "--output", tmp_path / "x.onnx")
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=False)
    message = "algebraformer: an export to ONNX needs onnx and onnxscript: pip install 'algebraformer[onnx]'\n"
    assert (done.returncode, done.stderr) == (2, message)


def test_the_command(tmp_path: Path, answer, run, refused) -> None:
    code, found = answer("export", "deblur-64", "--format", "torch", "--output", tmp_path / "d.pt2")
    assert (code, found["model"], found["format"]) == (0, "deblur-64", "torch")
    assert found["inputs"] == {"tokens": ["batch", 64, 75], "A": ["batch", 64, 64], "b": ["batch", 64]}
    assert found["outputs"] == {"x_mean": ["batch", 64], "x_std": ["batch", 64], "log_noise": ["batch"]}
    assert len(torch_forward(found["file"])(*(np.zeros((2, *s[1:]), "f4") for s in found["inputs"].values()))) == 3
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        code, out, err = run("export", "diffusion-64", "--output", tmp_path / "d.onnx")
    assert (code, err) == (0, "")
    assert "batch x 1 x 256" in out
    refused("export", "no-such-model", "--output", tmp_path / "x.onnx")
    refused("export", "diffusion-64", "--output", tmp_path / "nowhere" / "x.onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["d.onnx", "d.pt2"]
