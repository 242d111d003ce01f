"""A kind of head of one's own: one class and its settings, and everything else works with it."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from algebraformer import LearnedSolver, evaluation, problems
from algebraformer.checkpoint import load
from algebraformer.metrics import score
from algebraformer.models import Head, HeadConfig, ModelConfig, register_head
from algebraformer.training import Recipe, RunOptions, train
from head_contract import CHECKS, build


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepConfig(HeadConfig):
    unit: float = 2.0


@register_head("step", StepConfig)
class StepHead(Head):
    """x = D A^T b / ||A||_F^2 with a step length for every unknown, read from the columns of A."""

    def __init__(self, config, width):
        super().__init__(config, width)
        self.unit, self.linear = StepConfig.of(config).unit, nn.Linear(width, 1)

    def answer(self, network, A, b):
        largest = A.abs().amax(dim=(1, 2), keepdim=True)
        A_1 = A / largest
        tokens = torch.cat((A_1.mT, A_1.square().sum(dim=1)[:, :, None]), dim=2).abs().float()
        steps = self.unit * self.linear(network.encode(tokens)).double()
        return (steps * (A_1.mT @ b[:, :, None]) / A_1.square().sum(dim=(1, 2), keepdim=True) / largest)[:, :, 0]

    def loss(self, network, A, b, x):
        return ((self.answer(network, A, b) - x).square().sum(dim=1) / x.square().sum(dim=1)).mean()


MODEL = ModelConfig(n=6, head=StepConfig(unit=3.0), n_layer=1, n_head=2, n_embd=8)
FAMILY = problems.get("diffusion", n=6)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_contract(check):
    check(build(MODEL, FAMILY), FAMILY)


def test_it_trains_saves_loads_evaluates_and_solves(tmp_path: Path) -> None:
    assert train(Recipe(model=MODEL, steps=60, batch_size=16), tmp_path, RunOptions(progress=False, workers=0)).finished
    model, info = load(tmp_path / "model")
    solver, systems = LearnedSolver(model, info), FAMILY.sample(50, seed=1)
    assert score(model, systems)["normalized_mse"] < 1
    assert evaluation.evaluate(solver, systems)["solve"]["certified"] == 1
    result = solver.solve(systems.A, systems.b)
    np.testing.assert_allclose(result.x, systems.x, rtol=1e-6, atol=1e-10)
