"""A module of torch that maps A and b to x, as the network of a solver: what is needed to refine and to certify it."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar, Literal, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.metrics import ScoredSystems, answer_scores
from algebraformer.models.config import HeadConfig, ModelConfig, check_choice
from algebraformer.models.heads.data import Sample, to_tensors
from algebraformer.models.heads.estimate import MIN_OUTSIDE, principal_axes
from algebraformer.models.heads.scaler import FamilyScaler
from algebraformer.models.inference.estimate_reader import N_AXES, share_outside
from algebraformer.models.inference.reader import HeadChecks, by_column, not_estimating, not_linear
from algebraformer.models.inference.reading import Estimates, MatrixReading
from algebraformer.models.scaling import DISTANCE_MARGIN, signed_size
from algebraformer.numerics.entry_sampler import Entries
from algebraformer.numerics.preconditioner import LinearInverse

Scale = Literal["family", "unit"]
SAMPLES = 4096
"""Systems that the statistics of the family are taken from: the default of recipes."""
SAMPLE_ENTRIES = 2**25
"""Entries of their matrices at most, 256 MB of float64, which are copied a few times; but `FEWEST` systems at least."""
FEWEST = 64
"""Twice the number of principal axes."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModuleConfig(HeadConfig):
    """The place of a head where a module does everything: it has no settings that a checkpoint could hold."""

    name: ClassVar[str] = "module"

    def settings(self) -> dict[str, Any]:
        """Raise `ConfigurationError`: there is nothing to save."""
        raise ConfigurationError(
            "a solver made by from_module has no network of this package, and is not saved as a checkpoint, which "
            "holds no code: save the state_dict of solver.network.module, and call from_module again"
        )


class ModuleNetwork(HeadChecks):
    """A module between the scaling of systems and the certificate, see `LearnedSolver.from_module`.

    Parameters
    ----------
    module : nn.Module
        Put into evaluation mode.
    family : ProblemFamily
        Real, with as many equations as unknowns.
    seed : int
        Of the systems that the statistics of the family are taken from.
    scale : {"family", "unit"}
        Sizes of the systems that the module is given.

    Raises
    ------
    ConfigurationError
        The family or the module does not suit, see `LearnedSolver.from_module`.
    """

    def __init__(self, module: nn.Module, family: Any, seed: int, scale: Scale = "family") -> None:
        if not isinstance(module, nn.Module):
            raise ConfigurationError(f"from_module takes a torch.nn.Module, received {type(module).__name__}")
        check_choice("scale", scale, get_args(Scale))
        if family.is_complex or family.n_equations != family.n or not family.is_linear_system:
            raise ConfigurationError(
                f"from_module takes a family of real square systems that x solves, received {family}"
            )
        self.config = ModelConfig(n=family.n, head=ModuleConfig())
        self.module = module.eval() if module.training else module
        self.scale = scale

        # 1. The statistics of the family: sizes, z-scores, and the principal axes of the scaled matrices.
        self.scaler = FamilyScaler(family.n)
        count = min(SAMPLES, max(FEWEST, SAMPLE_ENTRIES // family.n**2))
        systems = Sample(family, count, seed).systems()
        self.scaler.fit(*to_tensors(systems))
        self.b_rms = float(np.sqrt(np.mean(systems.b**2)))
        left = self._from_mean(systems.A)[0]
        self.axes = principal_axes(left, min(N_AXES, family.n**2))[1]
        self.max_outside = max(MIN_OUTSIDE, DISTANCE_MARGIN * float(self._outside(systems.A).max()))

        # 2. The module answers one system and several, so that a wrong shape is an error here and not in `solve`.
        for few in (1, 2):
            self.answer(systems.A[:few], systems.b[:few])

    @property
    def device(self) -> torch.device:
        """Where the module is."""
        return next((tensor.device for tensor in self._tensors()), torch.device("cpu"))

    @property
    def dtype(self) -> torch.dtype:
        """What the module computes in: float64 if it has nothing that says so."""
        return next((tensor.dtype for tensor in self._tensors() if tensor.is_floating_point()), torch.float64)

    def _tensors(self) -> list[Tensor]:
        return [*self.module.parameters(), *self.module.buffers()]

    def parameter_count(self) -> int:
        """Return the number of trained parameters; buffers are not counted."""
        return sum(p.numel() for p in self.module.parameters())

    @torch.no_grad()
    def answer(self, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return x (B, n), float64, for A (B, n, n) and b (B, n), from one call of the module.

        Raises
        ------
        ConfigurationError
            The module returns something else than a real floating-point tensor (B, n).
        """
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):  # of systems beyond float64
            s_A, s_b = np.ones(len(A)), size_of(b)
            if self.scale == "unit":
                s_A = nonzero(size_of(A))
            elif self.b_rms > 0:
                s_b = s_b / self.b_rms
            scaled = A / s_A[:, None, None], b / nonzero(s_b)[:, None]
        x = self.module(*(torch.from_numpy(part).to(self.device, self.dtype) for part in scaled))
        if not isinstance(x, Tensor) or not x.is_floating_point() or x.shape != b.shape:
            received = f"{x.dtype} of shape {tuple(x.shape)}" if isinstance(x, Tensor) else type(x).__name__
            raise ConfigurationError(
                f"the module {type(self.module).__name__} must return a floating-point tensor of shape {b.shape} for A "
                f"{A.shape} and b {b.shape}, received {received}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            y: FloatArray = x.cpu().double().numpy(force=True)
            return y * (s_b / s_A)[:, None]

    def predict(self, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return the bare answers x (B, n, k) for A (B, n, n) and b (B, n, k); every b is a system of its own."""
        return by_column(self.answer, A, b)

    def _from_mean(self, A: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return scaled matrices less their mean over the family (B, n^2), and their norms (B,)."""
        flat = self.scaler.scaled_matrix(torch.from_numpy(A.copy()))[0].flatten(1).numpy()
        return flat - self.scaler.A_mean.flatten().numpy(), np.linalg.norm(flat, axis=1)

    def _outside(self, A: FloatArray) -> FloatArray:
        """Return the share (B,) of scaled matrices that lies outside of the family's principal axes."""
        left, size = self._from_mean(A)
        return share_outside(left, left @ self.axes.T, self.axes, size)

    def in_distribution(self, A: FloatArray) -> NDArray[np.bool_]:
        """Say which matrices (B, n, n) are no further out than the family's sample was.

        By their z-scores, as with a token head, and by what lies outside of the family's principal axes: where few
        parameters move the matrices far, z-scores alone would let any matrix of that size pass.
        """
        with np.errstate(over="ignore", invalid="ignore"):  # of matrices beyond float64
            distance = self.scaler.distance(torch.from_numpy(A.copy())).numpy()
            near: NDArray[np.bool_] = distance <= float(self.scaler.max_distance)
            return near & (self._outside(A) <= self.max_outside)

    def read(self, A: FloatArray) -> MatrixReading:
        """Read matrices A (B, n, n): whether they look like the family."""
        return MatrixReading(A, self.in_distribution(A), self.predict)

    def scores(self, systems: ScoredSystems) -> dict[str, float]:
        """Return the scores of the bare module on a set of systems."""
        return answer_scores(self.predict(systems.A, systems.b[:, :, None])[:, :, 0], systems)

    def approximate_inverse(self, A: Entries) -> LinearInverse:
        """Raise `ConfigurationError`: the module answers for A and b together."""
        raise not_linear(self)

    def estimates(self, A: FloatArray, b: FloatArray) -> Estimates:
        """Raise `ConfigurationError`: the module makes no estimates."""
        raise not_estimating(self)

    def fits(self, misfit: FloatArray) -> NDArray[np.bool_]:
        """Raise `ConfigurationError`: the module makes no estimates."""
        raise not_estimating(self)


def size_of(v: FloatArray) -> FloatArray:
    """Return the root mean square (B,) of the entries of each v (B, ...)."""
    flat = v.reshape(len(v), -1)
    return np.abs(signed_size(flat, np.ones(flat.shape[1])))


def nonzero(size: FloatArray) -> FloatArray:
    """Return sizes to divide by: 1 instead of 0."""
    return np.where(size > 0, size, 1.0)
