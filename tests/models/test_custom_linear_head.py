"""A head of one's own that is linear in b gets what operator heads get: operators, conjugate residuals, a report."""

import numpy as np
import torch

from algebraformer import LearnedSolver, assessment, kantorovich, problems, training
from algebraformer.models import Head, HeadConfig, MatrixReading, ModelConfig, register_head
from algebraformer.numerics.gcr import probe_defect
from algebraformer.numerics.preconditioner import ApproximateInverse
from head_contract import CHECKS, build


class DiagonalConfig(HeadConfig):
    is_linear = True


@register_head("diagonal", DiagonalConfig)
class DiagonalHead(Head):
    """M = D inv(Abar) / s with the mean matrix Abar of the family, D diagonal, and s from the traces of A and Abar."""

    def __init__(self, config, width):
        super().__init__(config, width)
        self.linear = torch.nn.Linear(width, 1)
        self.register_buffer("mean", torch.zeros(config.n, config.n, dtype=torch.float64))

    def begin(self, network, data, part=None):
        self.mean.copy_(torch.from_numpy(data.basis.matrices().mean(axis=0)))

    def factors(self, network, A):
        s = (A.diagonal(dim1=1, dim2=2).sum(dim=1) / self.mean.trace())[:, None, None]
        tokens = torch.nn.functional.pad(A.mT / s / self.mean.abs().max(), (0, 1))  # to n + 1 values, as in [A, b]
        return 1 + self.linear(network.encode(tokens.float())).double(), s

    def answer(self, network, A, b):
        D, s = self.factors(network, A)
        return (D * torch.linalg.solve(self.mean, b[:, :, None]) / s)[:, :, 0]

    def loss(self, network, A, b, x):
        return ((self.answer(network, A, b) - x).square().sum(dim=1) / x.square().sum(dim=1)).mean()

    def read_matrices(self, network, A):
        D, s = (part.detach().numpy() for part in self.factors(network, torch.tensor(A)))
        inverse = ApproximateInverse((D * np.eye(A.shape[1])).astype("f4"), self.mean.inverse().numpy(), s[:, 0, 0])
        defect = probe_defect(A, inverse)
        return MatrixReading(A, defect < 0.5, lambda A, b: self.predict(network, A, b), inverse, defect, 0.5)


def test_it_trains_loads_solves_and_is_assessed(tmp_path):
    family, model = problems.get("bratu", n=12), ModelConfig(n=12, head="diagonal", n_layer=1, n_head=2, n_embd=8)
    for check in CHECKS:
        check(build(model, family), family)
    recipe = training.Recipe(family="bratu", model=model, steps=60, batch_size=16)
    training.train(recipe, tmp_path, training.RunOptions(progress=False, workers=0))
    solver, systems = LearnedSolver.from_pretrained(tmp_path), family.sample(50, seed=1)
    assert set(solver.solve(systems.A, systems.b).method) == {"learned+refined"}
    for operator in (solver.operator(systems.A[0]), solver.prepare(systems.A[0]).operator):
        np.testing.assert_allclose(operator @ systems.b[0], solver.predict(systems.A[0], systems.b[0]), rtol=1e-5)
    report = assessment.assess(solver, plan=assessment.Plan(systems=20, contractions=9, batches=(1, 4), seconds=0.0))
    assert (report.data["certified"], report.data["rank"], report.data["relative_error_max"] < 1e-12) == (1, None, True)
    assert kantorovich.solve(family, family.parameters(range(5)), solver).factorisations.sum() == 0
