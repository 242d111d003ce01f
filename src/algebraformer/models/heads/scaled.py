"""What heads have in common that scale systems by statistics of their family."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from algebraformer.linalg import FloatArray
from algebraformer.models.heads.base import Head, Network
from algebraformer.models.heads.data import TrainingData, to_tensors
from algebraformer.models.heads.scaler import FamilyScaler, PreconditionedScaler
from algebraformer.models.scaling import DISTANCE_MARGIN
from algebraformer.progress import PartCallback, all_silent


class ScaledHead(Head):
    """A head with a scaler, which is fitted before training and tells matrices of the family from others."""

    scaler: FamilyScaler | PreconditionedScaler

    @torch.no_grad()
    def in_distribution(self, network: Network, A: FloatArray) -> NDArray[np.bool_]:
        """Say which matrices (B, n, n) are no further from the middle of the family than its sample was."""
        limit = self.scaler.max_distance
        return (self.scaler.distance(torch.from_numpy(A.copy()).to(limit.device)) <= limit).numpy(force=True)

    def begin(self, network: Network, data: TrainingData, part: PartCallback = all_silent) -> None:
        """Fit the scaler."""
        report = part("scaler")
        report(0, 1)
        self.scaler.fit(*to_tensors(data.scaler.systems()))
        report(1, 1)

    @torch.no_grad()
    def begin_from(
        self,
        network: Network,
        initial: Head,
        data: TrainingData,
        scaler: str,
        basis: str,
        part: PartCallback = all_silent,
    ) -> None:
        """Take over the read-out; refit the scaler, or keep it and measure how far the new matrices are from it."""
        self.load_state_dict(initial.state_dict())
        if scaler == "refitted":
            self.begin(network, data, part)
        else:
            A = torch.from_numpy(data.scaler.systems().A)
            self.scaler.max_distance.copy_(DISTANCE_MARGIN * self.scaler.distance(A).max())
