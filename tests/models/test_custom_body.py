"""A body and an encoding of one's own: one class each, named in a recipe, trained, saved, loaded and certified."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from algebraformer import LearnedSolver, assessment, checkpoint, problems
from algebraformer.checkpoint import CONFIG, CheckpointInfo
from algebraformer.errors import CheckpointError, ConfigurationError
from algebraformer.models import (
    Algebraformer,
    Body,
    BodyKind,
    EstimateConfig,
    ModelConfig,
    NumpyNetwork,
    OperatorConfig,
    TokenConfig,
    register_body,
    register_encoding,
    register_numpy_body,
)
from algebraformer.models.body_kinds import KINDS
from algebraformer.models.encodings import ENCODINGS
from algebraformer.models.inference.layers import Linear
from algebraformer.training import RunOptions, finetune, train
from head_contract import CHECKS, build
from test_examples import EXAMPLES, load

EXAMPLE = load("own_network")
QUIET = RunOptions(progress=False, workers=0)


@register_body("mean")
class Mean(Body):
    """Adds to every token what is read of the mean of all; twice as wide in the end."""

    def __init__(self, config):
        super().__init__(config)
        self.mix, self.width = nn.Linear(config.n_embd, config.n_embd), 2 * config.n_embd

    def forward(self, h, *context):
        return torch.cat((h, h + self.mix(h.mean(dim=1, keepdim=True))), dim=2)


@register_numpy_body("mean")
class NumpyMean:
    reads_norms = False

    def __init__(self, config, tensors, name):
        self.mix, self.width = Linear.take(tensors, f"{name}.mix", config.n_embd, config.n_embd), 2 * config.n_embd

    def __call__(self, h, *context):
        return np.concatenate((h, h + self.mix(h.mean(axis=1, keepdims=True))), axis=2)


@register_body("feedback-mean", BodyKind(options=(), needs_system=True))
class FeedbackMean(Mean):
    def forward(self, h, *context):
        A, b = context
        return super().forward(h) + (A.mT @ b[:, :, None])


N = 6
OPERATOR = OperatorConfig(rank=4, n_column=4, n_row=3)
SMALL = ModelConfig(n=N, n_layer=2, n_head=2, n_embd=8)
FAMILY, NOISY = problems.get("reaction-diffusion", n=N), problems.get("deblur", n=N)
NETWORKS = {
    "convolution-token": dataclasses.replace(SMALL, architecture="convolution"),
    "convolution-operator": dataclasses.replace(SMALL, architecture="convolution", head=OPERATOR),
    "convolution-estimate": dataclasses.replace(SMALL, architecture="convolution", head="estimate"),
    "mean-token": dataclasses.replace(SMALL, architecture="mean", positions=False),
    "mean-operator": dataclasses.replace(SMALL, architecture="mean", head=OPERATOR),
    "feedback-mean-estimate": dataclasses.replace(SMALL, architecture="feedback-mean", head="estimate"),
    "transformer-cross": SMALL.with_head(encoding="cross"),
    "convolution-cross": dataclasses.replace(SMALL, architecture="convolution").with_head(encoding="cross"),
    "lstm-cross": dataclasses.replace(SMALL, architecture="lstm").with_head(encoding="cross"),
}
every = pytest.mark.parametrize("name", NETWORKS)


def family(name: str) -> problems.ProblemFamily:
    return NOISY if NETWORKS[name].head.estimates else FAMILY


def info(name: str) -> CheckpointInfo:
    return CheckpointInfo(name="own", family=family(name).settings())


@every
@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(name, check):
    check(build(NETWORKS[name], family(name)), family(name))


@every
def test_there_and_back(tmp_path: Path, name: str) -> None:
    """In NumPy where head and body have such a form, with an encoding of one's own too; else through torch."""
    model, systems = build(NETWORKS[name], family(name)), family(name).sample(9, seed=3)
    checkpoint.save(tmp_path / "m", model, info(name))
    again, _ = checkpoint.load(tmp_path / "m")
    found, _ = checkpoint.load_network(tmp_path / "m")
    assert isinstance(found, Algebraformer) == NETWORKS[name].architecture.startswith(("convolution", "feedback"))
    b = systems.b[:, :, None]
    np.testing.assert_array_equal(again.predict(systems.A, b), model.predict(systems.A, b))
    x = model.predict(systems.A, b)
    np.testing.assert_allclose(found.predict(systems.A, b), x, rtol=1e-4, atol=1e-5 * np.abs(x).max())
    assert found.parameter_count() == model.parameter_count()
    checkpoint.save(tmp_path / "again", found, info(name))
    assert (tmp_path / "again" / CONFIG).read_bytes() == (tmp_path / "m" / CONFIG).read_bytes()


@every
def test_the_file_names_the_module(tmp_path: Path, name: str) -> None:
    checkpoint.save(tmp_path / "m", build(NETWORKS[name], family(name)), info(name))
    modules = {}
    if NETWORKS[name].architecture in ("convolution", "mean", "feedback-mean"):
        own = EXAMPLE.__name__ if NETWORKS[name].architecture == "convolution" else __name__
        modules["architecture"] = own
    if name.endswith("cross"):
        modules["encoding"] = EXAMPLE.__name__
    assert json.loads((tmp_path / "m" / CONFIG).read_text())["modules"] == modules


@pytest.mark.parametrize(
    ("name", "registry", "member"),
    [("convolution-token", KINDS, "convolution"), ("transformer-cross", ENCODINGS._members, "cross")],
)
def test_what_is_not_registered(tmp_path: Path, monkeypatch, name, registry, member) -> None:
    checkpoint.save(tmp_path / "m", build(NETWORKS[name], family(name)), info(name))
    monkeypatch.delitem(registry, member)
    for load_one in (checkpoint.load, checkpoint.load_network, LearnedSolver.from_pretrained):
        with pytest.raises(CheckpointError, match=f"'{member}' is not registered .* import own_network"):
            load_one(tmp_path / "m")


@pytest.mark.parametrize("modules", [["own_network"], {"architecture": 3}, "own_network"])
def test_modules_that_are_no_names(modules: object) -> None:
    settings = {"modules": modules, "format": 2}
    with pytest.raises(CheckpointError, match="modules must be"):
        checkpoint.parse_config(settings, "config.json")


def test_own_names_in_json_and_in_fields() -> None:
    for config in NETWORKS.values():
        assert ModelConfig(**json.loads(json.dumps(config.settings()))) == config
    assert {"convolution", "mean"} <= set(TokenConfig.architectures()) & set(OperatorConfig.architectures())
    assert "feedback-mean" in EstimateConfig.architectures()
    assert "feedback-mean" not in TokenConfig.architectures()


@pytest.mark.parametrize(
    "changes",
    [
        {"architecture": "convolution", "causal": True},
        {"architecture": "mean", "bidirectional": True},
        {"architecture": "feedback-mean"},
        {"architecture": "feedback-mean", "head": "estimate", "positions": False},
    ],
)
def test_options_that_a_body_does_not_have(changes: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        ModelConfig(n=N, **changes)  # type: ignore[arg-type]


def test_names_are_taken_once(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("transformer", "mean"):
        with pytest.raises(ConfigurationError, match="registered already"):
            register_body(name)(type("Other", (Mean,), {}))
        with pytest.raises(ConfigurationError, match="registered already"):
            register_numpy_body(name)(type("Other", (NumpyMean,), {}))
    for name in ("column", "cross"):
        with pytest.raises(ConfigurationError, match="registered already"):
            register_encoding(name)(type("Other", (EXAMPLE.Cross,), {}))
    assert register_body("mean")(Mean) is Mean  # again, as in a notebook
    with pytest.raises(ConfigurationError, match="name of a body"):
        register_body("")(Mean)


def test_bodies_and_encodings_that_break_their_word(monkeypatch: pytest.MonkeyPatch) -> None:
    A, b = torch.rand(2, N, N).double(), torch.rand(2, N).double()
    model = Algebraformer(dataclasses.replace(SMALL, architecture="mean"))
    model.body.width += 1
    with pytest.raises(ConfigurationError, match=r"'mean' returned tokens of shape \(6, 16\), expected \(6, 17\)"):
        model(A, b)
    monkeypatch.setattr(EXAMPLE.Cross, "token_width", lambda self, n: 2 * n)
    with pytest.raises(ConfigurationError, match="tokens of the encoding 'cross'"):
        Algebraformer(NETWORKS["transformer-cross"])
    monkeypatch.undo()
    monkeypatch.setattr(EXAMPLE.Cross, "unknowns", lambda self, y, n: y[:, 1:])
    with pytest.raises(ConfigurationError, match="unknowns of the encoding 'cross'"):
        Algebraformer(NETWORKS["transformer-cross"])


def test_numpy_alone_and_torch_alone() -> None:
    config = NETWORKS["convolution-token"]
    with pytest.raises(ConfigurationError, match="no body 'convolution' in NumPy"):
        NumpyNetwork(config, checkpoint.arrays_of(build(config, FAMILY)))
    config = NETWORKS["mean-token"]
    assert isinstance(NumpyNetwork(config, checkpoint.arrays_of(build(config, FAMILY))), NumpyNetwork)


def test_muon_gets_the_linear_maps_of_an_own_body() -> None:
    model = build(NETWORKS["convolution-operator"], FAMILY)
    linear = [model.get_parameter(f"body.blocks.{i}.within.1.weight") for i in range(2)]
    assert [(id(p), 1) for p in linear] == [(id(p), count) for p, count in model.hidden_matrices()]


def test_trained_solved_and_finetuned(tmp_path: Path) -> None:
    model = dataclasses.replace(EXAMPLE.BODY.model, n_layer=2, n_embd=32)
    recipe = dataclasses.replace(EXAMPLE.BODY, model=model, samples=4096, steps=150)
    assert train(recipe, tmp_path / "run", QUIET).finished
    solver, systems = LearnedSolver.from_pretrained(tmp_path / "run"), recipe.problem_family().sample(50, seed=1)
    result = solver.solve(systems.A, systems.b)
    assert result.certified.all()
    assert np.mean(result.method == "learned+refined") > 0.9
    np.testing.assert_allclose(result.x, systems.x, rtol=1e-6, atol=1e-9)
    tuned = finetune(tmp_path / "run", "reaction-diffusion", 60, tmp_path / "tuned", QUIET, epochs=2, frozen=1)
    one, other = (
        checkpoint.load(checkpoint.resolve(folder))[0].state_dict() for folder in (tmp_path / "run", tuned.folder)
    )
    name = "body.blocks.{}.within.1.weight"
    assert torch.equal(one[name.format(0)], other[name.format(0)])
    assert not torch.equal(one[name.format(1)], other[name.format(1)])


def test_an_encoding_learns(tmp_path: Path) -> None:
    model = dataclasses.replace(EXAMPLE.ENCODING.model, n_layer=1, n_embd=32)
    assert train(dataclasses.replace(EXAMPLE.ENCODING, model=model, steps=150), tmp_path, QUIET).finished
    solver = LearnedSolver.from_pretrained(tmp_path)
    assert isinstance(solver.network, NumpyNetwork)
    assert solver.info.scores["normalized_mse"] < 0.6


# ---------------------------------------------------------------- other processes

FILE = """
import numpy as np
from algebraformer.models import Body, register_body

@register_body("plain")
class Plain(Body):
    def forward(self, h, *context):
        return h

def mine(rng):
    return np.eye(6) + rng.uniform(0, 0.1, (6, 6))
"""


def test_on_the_command_line(tmp_path: Path, run, monkeypatch: pytest.MonkeyPatch) -> None:
    """The body is in the file of the family; `evaluate` executes that file before it loads the model."""
    (tmp_path / "mine.py").write_text(FILE)
    source, folder = f"{tmp_path / 'mine.py'}:mine", tmp_path / "run"
    monkeypatch.setattr(problems.base, "_REGISTRY", dict(problems.base._REGISTRY))
    changes = ("steps=3", "samples=256", "batch_size=32", "model.architecture=plain", "model.n_embd=8")
    monkeypatch.setattr(assessment, "Plan", functools.partial(assessment.Plan, systems=20, seconds=0.0))
    code, _, err = run("train", source, "--output", folder, "--json", "--set", *changes)
    assert (code, err) == (0, "")
    config = json.loads((folder / "model" / CONFIG).read_text())
    assert config["model"]["architecture"] == "plain"
    here = (sys.executable, "-m", "algebraformer")
    words = ("evaluate", folder, "--count", "5", "--json")
    done = subprocess.run([*here, *words, "--family", source], capture_output=True, text=True, check=False)
    assert (done.returncode, json.loads(done.stdout)["solve"]["certified"]) == (0, 1), done.stderr
    done = subprocess.run([*here, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "the architecture 'plain' is not registered in this process: import mine first" in done.stderr


WITHOUT_TORCH = """
import sys
import numpy as np
from algebraformer import LearnedSolver, problems
from algebraformer.models import register_numpy_body
from algebraformer.models.inference.layers import Linear

{source}
systems = problems.get("reaction-diffusion", n=6).sample(3, seed=1)
print(LearnedSolver.from_pretrained(sys.argv[1]).predict(systems.A, systems.b).tolist(), "torch" in sys.modules)
"""


def test_a_body_in_numpy_needs_no_torch(tmp_path: Path) -> None:
    model = build(NETWORKS["mean-operator"], FAMILY)
    checkpoint.save(tmp_path / "m", model, info("mean-operator"))
    code = WITHOUT_TORCH.format(source=inspect.getsource(NumpyMean))
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "m"], capture_output=True, text=True, check=True)
    values, _, loaded = done.stdout.strip().rpartition(" ")
    assert loaded == "False"
    systems = FAMILY.sample(3, seed=1)
    expected = model.predict(systems.A, systems.b[:, :, None])[:, :, 0]
    np.testing.assert_allclose(json.loads(values), expected, rtol=1e-4, atol=1e-6 * np.abs(expected).max())


@pytest.mark.parametrize(("start", "stop"), [("register_body", "register_encoding"), ("register_encoding", "")])
def test_own_members_are_short(start: str, stop: str) -> None:
    source = (EXAMPLES / "own_network.py").read_text()
    begin = source.index(f"@{start}")
    end = source.index(f"@{stop}" if stop else "OPERATOR =")
    assert len([line for line in source[begin:end].splitlines() if line.strip()]) <= 40
