"""The head that approximates the inverse of A: coefficients in a basis of the family's inverses (ours)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.linalg import FloatArray
from algebraformer.models.config import ModelConfig, OperatorConfig
from algebraformer.models.heads.base import Head, Network, ReadHead, register_head, torch_dtype
from algebraformer.models.heads.data import Batch, Family, Indices, Sample, TrainingData
from algebraformer.models.heads.readout import RIDGE_RTOL, RIDGES, normal_equations, ridge_solution, ridge_update
from algebraformer.models.inference.operator_reader import OperatorReader, limits
from algebraformer.models.inference.stored_basis import Basis, as_dense, as_pairs, to_arrays
from algebraformer.numerics import low_rank_fit, operator_basis
from algebraformer.numerics.low_rank import LowRankBasis
from algebraformer.numerics.operator_basis import inverse_weighted_metric
from algebraformer.progress import PartCallback, ProgressCallback, all_silent, silent

NEGLIGIBLE_COEFFICIENT = 1e-12
"""Components whose coefficients are below this share of the largest are rounding."""


def fit_basis(config: OperatorConfig, sample: Sample, few: bool = False, report: ProgressCallback = silent) -> Basis:
    """Return the basis that an operator head of these settings needs, see `fit` of the modules in `numerics`.

    Parameters
    ----------
    config : OperatorConfig
    sample : Sample
        The systems: all of them if they are few, else as many as the rank calls for.
    few : bool
    report : ProgressCallback
    """
    config.check_trained()
    family, most = sample.family, sample.count

    def matrices(indices: range) -> FloatArray:
        A: FloatArray = family.assembled(indices, sample.seed)[0]
        return A

    if config.form == "low-rank":
        return low_rank_fit.fit(
            matrices,
            family.n,
            config.rank,
            config.p,
            config.row_terms,
            config.n_column,
            config.n_row,
            count=most if few else low_rank_fit.snapshot_count(config.rank, most),
            whiten=config.whiten,
            n_combination=config.n_combination,
            report=report,
        )
    return operator_basis.fit(
        matrices,
        family.n,
        config.rank,
        config.n_column,
        config.n_row,
        count=most if few else operator_basis.snapshot_count(family.n, config.rank, most),
        whiten=config.whiten,
        n_combination=config.n_combination,
        weighted=config.norm == "weighted",
        report=report,
    )


@dataclasses.dataclass(frozen=True)
class OperatorExamples:
    """Examples are z (B, q, m), c (B, R) and weights (B,), float32, see `OperatorBasis.coefficients`.

    Complex coefficients are pairs of real ones, c (B, 2 R).
    """

    compact: ClassVar[bool] = True
    basis: Basis

    def __call__(self, family: Family, indices: Indices, seed: int) -> Batch:
        z, c, weight = self.basis.coefficients(family.assembled(indices, seed)[0])
        parts = z, as_pairs(c).reshape(len(c), -1), weight
        return tuple(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in parts)


@register_head("operator", OperatorConfig)
class OperatorHead(ReadHead):
    """One linear map of all tokens together to the coefficients of the inverse, and the basis these refer to.

    Departs from the paper, whose network returns x. The buffers hold the basis and travel in the checkpoint, see
    `models.inference.stored_basis`.
    """

    carries_gradients: ClassVar[bool] = False
    max_distance: Tensor
    max_first_residual: Tensor
    coefficient_rms: Tensor
    scale: Tensor

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__(config, width)
        settings = OperatorConfig.of(config)
        self.config, self.settings = config, settings
        self.linear = nn.Linear(config.n_token * width, settings.n_output)
        for name, (shape, dtype) in OperatorReader.buffers(config).items():
            self.register_buffer(name, torch.zeros(shape, dtype=torch_dtype(dtype)))
        self._reader: OperatorReader | None = None
        self._metric: FloatArray | None = None

    # ---------------------------------------------------------------- the basis

    @torch.no_grad()
    def set_basis(self, basis: Basis) -> None:
        """Take over a basis of the form that the settings name."""
        for name, value in to_arrays(basis).items():
            self.get_buffer(name).copy_(torch.from_numpy(np.array(value)))
        self._reader = self._metric = None

    def use_basis(self, network: Network, basis: Basis) -> None:
        self.set_basis(basis)

    @property
    def reader(self) -> OperatorReader:
        """The reader; its basis is made from the buffers at the first use, its limits are those of the buffers now.

        Raises `ConfigurationError` if the buffers hold no basis.
        """
        if self._reader is None:
            self._reader = OperatorReader(self.config, self.arrays())
        self._reader.max_distance = float(self.max_distance)
        self._reader.max_first_residual = float(self.max_first_residual)
        return self._reader

    @property
    def basis(self) -> Basis:
        """The basis in NumPy; `ConfigurationError` if the buffers hold none."""
        basis = self.reader.basis
        if isinstance(basis, LowRankBasis):
            return basis
        if self._metric is None and self.settings.norm == "weighted":
            self._metric = inverse_weighted_metric(basis.A_mean)
        return dataclasses.replace(basis, metric=self._metric)

    # ---------------------------------------------------------------- answers

    def forward(self, h: Tensor) -> Tensor:
        """Return the coefficients (B, R), float32, from tokens (B, T, width)."""
        return self.multiples(h) * self.scale_of_coefficients()

    def multiples(self, h: Tensor) -> Tensor:
        """Return the coefficients in their typical size (B, R)."""
        multiples: Tensor = self.linear(h.flatten(1))
        return multiples

    def features(self, network: Network, z: Tensor) -> Tensor:
        """Return what the read-out gets (B, T, width) from z-scored entries (B, q, m), float32."""
        return network.encode(z.reshape(len(z), self.config.n_token, -1))

    def parameters_per_system(self) -> int:
        """The read-out gets all tokens at once."""
        return sum(p.numel() for p in self.parameters())

    def scale_of_coefficients(self) -> Tensor:
        """Return the typical size of each coefficient (R,), float32; of complex ones twice, for both parts."""
        typical = (self.coefficient_rms * self.scale).float()
        return typical.repeat_interleave(2) if self.settings.kind == "c" else typical

    def loss(self, network: Network, *batch: Tensor) -> Tensor:
        """Return the weighted mean square error of the coefficients, relative to that of c = 0 over the family.

        It is the error of M Abar in the norm of the basis.

        Parameters
        ----------
        network : Network
        *batch : Tensor
            z (B, q, m), c (B, R) and weights (B,), float32, as `OperatorExamples` makes them.
        """
        z, target, weight = batch
        error = ((self(self.features(network, z)) - target).square().sum(dim=1) * weight.square()).mean()
        return error / self.coefficient_rms.square().sum().float()

    def outputs(self, network: Network, *inputs: Tensor) -> tuple[Tensor, ...]:
        return (self.multiples(network.encode(*inputs)),)

    def coefficients(self, network: Network, z: FloatArray) -> NDArray[np.floating]:
        """Return the coefficients (B, R) from what is read (B, q, m)."""
        return self.reader.coefficients(self.forward_pass(network), z)

    def answer(self, network: Network, A: Tensor, b: Tensor) -> Tensor:
        inverse = self.read_inverse(network, A.numpy(force=True))
        return torch.from_numpy(inverse(b.numpy(force=True)[:, :, None])[:, :, 0]).to(A.device)

    # ---------------------------------------------------------------- training

    def example_maker(self, network: Network) -> OperatorExamples:
        return OperatorExamples(self.basis)

    def begin(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Compute the basis."""
        self.set_basis(fit_basis(self.settings, data.basis, data.few, part("basis")))

    def begin_from(
        self,
        network: Network,
        initial: Head,
        data: TrainingData,
        scaler: str,
        basis: str,
        part: PartCallback = all_silent,
    ) -> None:
        """Refit the basis, with a new read-out; or keep or extend it, with the old one for what it had."""
        if basis == "refitted" or not isinstance(initial, OperatorHead):
            self.begin(network, data, part)
            return
        self.set_basis(operator_basis.extended(as_dense(initial.basis), data.basis.matrices(), self.settings.rank))
        before = initial.readout_weights()
        new = torch.zeros(len(before), self.settings.n_output - before.shape[1], dtype=before.dtype)
        self.set_readout(torch.cat((before, new), dim=1))

    def finish(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Fit the read-out and calibrate.

        With few systems those that no step was taken on choose the ridge, and the calibration measures first answers
        that are honest on them; only then the read-out is fitted to all systems.
        """
        stored = data.readout()
        if not data.few:
            self.fit_readout(network, stored, part("read-out"))
            self.calibrate(network, data.calibration, part("calibration"))
            return
        before = self.readout_weights()
        ridge = self.choose_ridge(network, stored, data.trained_on)
        self.calibrate(network, data.calibration, part("calibration"))
        self.refit_readout(network, stored, before, ridge)

    def normal_equations(
        self, network: Network, stored: Batch, report: ProgressCallback = silent
    ) -> tuple[Tensor, Tensor]:
        """Return Gram matrix (w, w) and moments (w, R) of the features of stored examples, float64."""
        return normal_equations(
            lambda z: self.features(network, z.to(network.device)).flatten(1).cpu().double(), stored, report
        )

    def fit_readout(self, network: Network, stored: Batch, report: ProgressCallback = silent) -> None:
        """Replace the read-out by the weighted least-squares solution on stored examples, after the last step.

        The loss is quadratic in the read-out, so this is its exact minimum for the features the body has learned;
        gradient steps come near it only slowly, because the features differ in size and are correlated. In the middle
        of training it does harm: the fitted weights are large, and so are the gradients behind them (LOG.md).

        Raises
        ------
        TrainingError
            The features are not finite.
        """
        self.set_readout(ridge_solution(*self.normal_equations(network, stored, report), RIDGE_RTOL))

    @torch.no_grad()
    def choose_ridge(self, network: Network, stored: Batch, trained_on: int) -> float:
        """Fit the read-out to the first of few examples and return the ridge that is best on the others.

        Parameters
        ----------
        network : Network
        stored : tuple of Tensor
            z, c and weights of N examples.
        trained_on : int
            Number of the first examples that the body has seen in training.

        Returns
        -------
        float
            One of `RIDGES`, the largest of those that lead to the smallest loss on the other examples. The read-out is
            left as this fit on the first examples made it.

        Raises
        ------
        TrainingError
            The features are not finite.
        """
        seen, held_out = (tuple(part[rows] for part in stored) for rows in (slice(trained_on), slice(trained_on, None)))
        equations, before = self.normal_equations(network, seen), self.readout_weights()
        solutions = {ridge: ridge_update(before, *equations, ridge) for ridge in RIDGES}
        losses = {}
        for ridge, solution in solutions.items():
            self.set_readout(solution)
            losses[ridge] = float(self.loss(network, *(part.to(network.device) for part in held_out)))
        best = min(RIDGES, key=lambda ridge: losses[ridge])
        self.set_readout(solutions[best])
        return best

    def refit_readout(self, network: Network, stored: Batch, before: Tensor, ridge: float) -> None:
        """Move the read-out from `before` to the minimum of loss + ridge ||read-out - before||^2 on few examples."""
        self.set_readout(ridge_update(before, *self.normal_equations(network, stored), ridge))

    def readout_weights(self) -> Tensor:
        """Return weights and bias of the read-out as one matrix (w, R), float64, for coefficients in their size."""
        both = torch.cat((self.linear.weight.T, self.linear.bias[None])).detach().cpu().double()
        return both * self.scale_of_coefficients().cpu().double()

    @torch.no_grad()
    def set_readout(self, solution: Tensor) -> None:
        """Set the read-out to what `readout_weights` returned."""
        scale = self.scale_of_coefficients().cpu().double()
        spanned = scale > NEGLIGIBLE_COEFFICIENT * scale.max()  # a family may need fewer components than the basis has
        solution = torch.where(spanned, solution / torch.where(spanned, scale, 1.0), 0.0)
        self.linear.weight.copy_(solution[:-1].T)
        self.linear.bias.copy_(solution[-1])

    def calibrate(self, network: Network, sample: Sample, report: ProgressCallback = silent) -> None:
        """Measure the largest distance in a sample of the family, and the first residuals that are typical of it.

        The sample is another one than that of the basis, which is at its best on its own.
        """
        found = limits(self.reader, self.forward_pass(network), sample.family, sample.count, sample.seed, report)
        self.max_distance.fill_(found.max_distance)
        self.max_first_residual.fill_(found.max_first_residual)
