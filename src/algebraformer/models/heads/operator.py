"""The head that approximates the inverse of A: coefficients in a basis of the family's inverses (ours)."""

from __future__ import annotations

import dataclasses
from typing import ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.models.config import ModelConfig, OperatorConfig
from algebraformer.models.heads.base import BATCH_SIZE, Head, Network, max_batch_size, register_head
from algebraformer.models.heads.data import Batch, Family, Indices, Sample, TrainingData
from algebraformer.models.heads.reading import MatrixReading
from algebraformer.models.heads.readout import RIDGE_RTOL, RIDGES, normal_equations, ridge_solution, ridge_update
from algebraformer.models.scaling import DISTANCE_MARGIN
from algebraformer.numerics import gcr, operator_basis, sine_tiles
from algebraformer.numerics.entry_sampler import Entries, EntrySampler
from algebraformer.numerics.forward_error import MAX_DEFECT
from algebraformer.numerics.operator_basis import LEADING, OperatorBasis, inverse_weighted_metric
from algebraformer.numerics.preconditioner import ApproximateInverse
from algebraformer.numerics.sine_tiles import TiledInverse, TiledOperators
from algebraformer.progress import PartCallback, ProgressCallback, all_silent, silent

DEFECT_MARGIN = 4.0
"""Vectors unlike the family's right-hand sides leave a larger share than these: 2 to 5 times, random ones and A x with
random x, on the shipped families (LOG.md, 2026-11-26)."""
TYPICAL_QUANTILE = 0.999
"""Share of a sample whose first residuals count as typical of the family: the largest of thousands is several times
larger, enough to take matrices from elsewhere for the family's own."""
NEGLIGIBLE_COEFFICIENT = 1e-12
"""Components whose coefficients are below this share of the largest are rounding."""


def distance_of(z: FloatArray) -> FloatArray:
    """Return the root mean square (B,) of z-scored entries z (B, q, m): how far a matrix is from the family's mean."""
    return np.sqrt(np.mean(z**2, axis=(1, 2)))


def fit_basis(
    config: OperatorConfig, sample: Sample, few: bool = False, report: ProgressCallback = silent
) -> OperatorBasis:
    """Return the basis that an operator head of these settings needs, see `numerics.operator_basis.fit`.

    Parameters
    ----------
    config : OperatorConfig
    sample : Sample
        The systems: all of them if they are few, else as many as the rank calls for.
    few : bool
    report : ProgressCallback
    """
    family = sample.family
    count = sample.count if few else operator_basis.snapshot_count(family.n, config.rank, sample.count)
    return operator_basis.fit(
        lambda indices: family.assembled(indices, sample.seed)[0],
        family.n,
        config.rank,
        config.n_column,
        config.n_row,
        count=count,
        whiten=config.whiten,
        n_combination=config.n_combination,
        weighted=config.norm == "weighted",
        report=report,
    )


@dataclasses.dataclass(frozen=True)
class OperatorExamples:
    """Examples are z (B, q, m), c (B, R) and weights (B,), float32, see `OperatorBasis.coefficients`."""

    compact: ClassVar[bool] = True
    basis: OperatorBasis

    def __call__(self, family: Family, indices: Indices, seed: int) -> Batch:
        parts = self.basis.coefficients(family.assembled(indices, seed)[0])
        return tuple(torch.from_numpy(np.ascontiguousarray(part, dtype=np.float32)) for part in parts)


@register_head("operator", OperatorConfig)
class OperatorHead(Head):
    """One linear map of all tokens together to the coefficients of the inverse, and the basis these refer to.

    Departs from the paper, whose network returns x. The buffers hold an `OperatorBasis`; they travel in the checkpoint,
    components from number 32 on in float16.
    """

    carries_gradients: ClassVar[bool] = False
    max_distance: Tensor
    max_first_residual: Tensor
    coefficient_rms: Tensor
    scale: Tensor

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__(config, width)
        settings = OperatorConfig.of(config)
        self.n_token, self.settings = config.n_token, settings
        n, R, m, q = config.n, settings.rank, settings.n_row, settings.n_column
        self.linear = nn.Linear(config.n_token * width, R)
        lead = min(R, LEADING)
        for name, shape, dtype in (
            ("rows", (m,), torch.int64),
            ("columns", (q,), torch.int64),
            ("weight", (m, q), torch.float64),
            ("mean", (m, q), torch.float64),
            ("inverse_std", (m, q), torch.float64),
            ("A_mean", (n, n), torch.float64),
            ("T_mean", (n, n), torch.float32),
            ("leading", (lead, n, n), torch.float32),
            ("others", (R - lead, n, n), torch.float16),
            ("coefficient_rms", (R,), torch.float64),
            ("scale", (), torch.float64),
            ("max_distance", (), torch.float64),
            ("max_first_residual", (), torch.float64),
        ):
            self.register_buffer(name, torch.zeros(shape, dtype=dtype))
        if settings.whiten:
            combinations = q * settings.n_combination
            self.register_buffer("whitening", torch.zeros((combinations, q * m), dtype=torch.float64))
        self._basis: OperatorBasis | None = None
        self._operators: OperatorBasis | TiledOperators | None = None

    # ---------------------------------------------------------------- the basis

    @torch.no_grad()
    def set_basis(self, basis: OperatorBasis) -> None:
        """Take over a basis."""
        lead = len(self.get_buffer("leading"))
        values = {
            **{name: getattr(basis.sampler, name) for name in ("rows", "columns", "weight", "mean", "inverse_std")},
            **{name: getattr(basis, name) for name in ("A_mean", "T_mean")},
            "coefficient_rms": basis.coefficient_rms,
            "scale": np.array(basis.scale),
            "leading": basis.components[:lead],
            "others": basis.components[lead:],
        }
        if basis.sampler.whitening is not None:
            values["whitening"] = basis.sampler.whitening
        for name, value in values.items():
            self.get_buffer(name).copy_(torch.from_numpy(np.array(value)))
        self._basis = None

    def use_basis(self, network: Network, basis: OperatorBasis) -> None:
        self.set_basis(basis)

    @property
    def basis(self) -> OperatorBasis:
        """The basis in NumPy; made from the buffers at the first use.

        Raises `ConfigurationError` if the buffers hold no basis.
        """
        if self._basis is None:
            # Copies: sending a model to another process makes torch move its tensors, and leaves views behind.
            arrays = {name: buffer.cpu().numpy().copy() for name, buffer in self.named_buffers()}
            n = len(arrays["A_mean"])
            for name in ("rows", "columns"):
                if not ((arrays[name] >= 0) & (arrays[name] < n)).all():
                    raise ConfigurationError(f"{name} of an operator head must be from 0 to {n - 1}")
            try:
                inverse = np.linalg.inv(arrays["A_mean"])
            except np.linalg.LinAlgError:
                raise ConfigurationError(
                    "the mean matrix of an operator head is singular: no basis was fitted"
                ) from None
            self._operators = None
            names = ("rows", "columns", "weight", "mean", "inverse_std", "whitening")
            sampler = EntrySampler(*(arrays[name] for name in names if name in arrays))
            self._basis = OperatorBasis(
                sampler=sampler,
                A_mean=arrays["A_mean"],
                inverse=inverse,
                operators=np.concatenate(
                    (arrays["T_mean"][None], arrays["leading"], arrays["others"]), dtype=np.float32
                ),
                coefficient_rms=arrays["coefficient_rms"],
                scale=float(arrays["scale"]),
                spectrum=np.empty(0),
                metric=inverse_weighted_metric(arrays["A_mean"]) if self.settings.norm == "weighted" else None,
            )
        return self._basis

    def check(self) -> None:
        """Make the basis, which raises `ConfigurationError` if the buffers hold none."""
        self._basis = self.basis

    # ---------------------------------------------------------------- answers

    def forward(self, h: Tensor) -> Tensor:
        """Return the coefficients (B, R), float32, from tokens (B, T, width)."""
        return self.linear(h.flatten(1)) * self.scale_of_coefficients()

    def features(self, network: Network, z: Tensor) -> Tensor:
        """Return what the read-out gets (B, T, width) from z-scored entries (B, q, m), float32."""
        return network.encode(z.reshape(len(z), self.n_token, -1))

    def parameters_per_system(self) -> int:
        """The read-out gets all tokens at once."""
        return sum(p.numel() for p in self.parameters())

    def scale_of_coefficients(self) -> Tensor:
        """Return the typical size of each coefficient (R,), float32."""
        return (self.coefficient_rms * self.scale).float()

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

    def distance(self, A: FloatArray) -> FloatArray:
        """Return the root mean square (B,) of the z-scores of the entries that are read of A (B, n, n)."""
        return distance_of(self.basis.sampler(A)[0])

    def max_defect(self) -> float:
        """Return the largest share of L b, or of a random vector, that M A may leave of a matrix in distribution."""
        typical = DEFECT_MARGIN * float(self.max_first_residual)
        return min(MAX_DEFECT, typical) if np.isfinite(typical) else 0.0

    def inverse_of(self, c: NDArray[np.floating], s: FloatArray) -> ApproximateInverse | TiledInverse:
        """Return the approximate inverses of B matrices from coefficients c (B, R) and sizes s (B,).

        By the basis, or in fewer operations where `sine_tiles.compress` finds a way.
        """
        basis = self.basis
        if self._operators is None:
            self._operators = sine_tiles.compress(basis) or basis
        return self._operators.inverse_of(c, s)

    def read_inverse(self, network: Network, A: Entries) -> ApproximateInverse | TiledInverse:
        """Return the approximate inverses of A (B, n, n)."""
        return self.inverse_and_distance(network, A)[0]

    @torch.inference_mode()
    def inverse_and_distance(
        self, network: Network, A: Entries
    ) -> tuple[ApproximateInverse | TiledInverse, FloatArray]:
        """Return the approximate inverses of A (B, n, n) and how far (B,) each matrix is from the family's mean."""
        z, s = self.basis.sampler(A)
        return self.inverse_of(self.coefficients(network, z), s), distance_of(z)

    @torch.inference_mode()
    def coefficients(self, network: Network, z: FloatArray) -> NDArray[np.floating]:
        """Return the coefficients (B, R) from what is read (B, q, m)."""
        parts = [
            self(self.features(network, torch.from_numpy(part.astype(np.float32)).to(network.device))).cpu()
            for part in (z[i : i + BATCH_SIZE] for i in range(0, len(z), BATCH_SIZE))
        ]
        return torch.cat(parts).numpy() if parts else np.empty((0, self.basis.rank))

    def answer(self, network: Network, A: Tensor, b: Tensor) -> Tensor:
        inverse = self.read_inverse(network, A.numpy(force=True))
        return torch.from_numpy(inverse(b.numpy(force=True)[:, :, None])[:, :, 0]).to(A.device)

    def predict(self, network: Network, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return x (B, n, k); every matrix is read once for all its right-hand sides."""
        step, parts = max_batch_size(A.shape[2]), []
        with np.errstate(over="ignore", invalid="ignore"):  # of answers beyond float64
            for i in range(0, len(b), step):
                parts.append(self.read_inverse(network, A[i : i + step])(b[i : i + step]))
        return np.concatenate(parts) if parts else np.empty(b.shape)

    def read_matrices(self, network: Network, A: FloatArray) -> MatrixReading:
        """Read matrices; in distribution are those near the mean on which the approximate inverse is good."""
        inverse, distance = self.inverse_and_distance(network, A)
        defect, max_defect = gcr.probe_defect(A, inverse), self.max_defect()
        near = (distance <= float(self.max_distance)) & (defect <= max_defect)
        return MatrixReading(A, near, lambda A, b: self.predict(network, A, b), inverse, defect, max_defect)

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
        self.set_basis(operator_basis.extended(initial.basis, data.basis.matrices(), self.settings.rank))
        before = initial.readout_weights()
        new = torch.zeros(len(before), self.settings.rank - before.shape[1], dtype=before.dtype)
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

        The sample is another one than that of the basis, which is at its best on its own. A random vector counts as a
        first residual too: see `max_defect`.
        """
        distance, first, defect = [], [], []
        done, step = 0, max(1, min(256, 2**24 // sample.family.n**2))
        for systems in sample.parts(step):
            distance.append(self.distance(systems.A).max())
            inverse = self.read_inverse(network, systems.A)
            first.append(gcr.solve(systems.A, systems.b[:, :, None], inverse, rtol=0.0, maxiter=1).first_residual_ratio)
            defect.append(gcr.probe_defect(systems.A, inverse))
            done += len(systems)
            report(done, sample.count)
        self.max_distance.fill_(DISTANCE_MARGIN * float(max(distance)))
        typical, random = (float(np.quantile(np.concatenate(s), TYPICAL_QUANTILE)) for s in (first, defect))
        self.max_first_residual.fill_(DISTANCE_MARGIN * max(typical, random / DEFECT_MARGIN))
