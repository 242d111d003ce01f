"""Networks that answer on a GPU: what they know of a family lies there, and so does all that solving computes.

The numbers are those of the processor up to rounding: reading, approximate inverses, conjugate residuals and
certificate are the same functions (`numerics`), the network is the module of torch. What decides when to stop is read
from the device in every step, a few numbers per system.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from algebraformer.arrays import host
from algebraformer.models import device_lu
from algebraformer.models.inference.operator_reader import InverseForm, OperatorReader, distance_of
from algebraformer.models.inference.reader import HeadChecks
from algebraformer.models.inference.reading import MatrixReading
from algebraformer.models.inference.stored_basis import Basis
from algebraformer.models.network import Algebraformer
from algebraformer.numerics import gcr, lapack
from algebraformer.numerics.preconditioner import LinearInverse
from algebraformer.progress import slices

BATCH_SIZE = 4096
"""Systems per forward pass: 16 tokens of each are a few hundred megabytes."""
BYTES_PER_ENTRY = 20
"""What solving takes on the device for each entry of A, which is there already: |A| in float64, the approximate inverse
in float32, and as much again for copies of both."""
MEMORY = 2**30
"""Bytes that a block may take where the device does not tell how much is free."""
MEMORY_SHARE = 0.5
"""Share of what is free that a block may take."""


def moved(value: Any, convert: Callable[[np.ndarray[Any, Any]], Tensor]) -> Any:
    """Return dataclasses, named tuples and lists with all arrays in them converted."""
    if isinstance(value, np.ndarray):
        return convert(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = {field.name: moved(getattr(value, field.name), convert) for field in dataclasses.fields(value)}
        return type(value)(**fields)
    if isinstance(value, tuple):
        return type(value)(*(moved(part, convert) for part in value))
    return [moved(part, convert) for part in value] if isinstance(value, list) else value


def as_tensor(array: Any) -> Tensor:
    """Return an array of torch, CuPy or JAX on a GPU as a tensor that shares its memory; gradients are left behind."""
    return array.detach() if isinstance(array, Tensor) else torch.from_dlpack(array)


class DeviceNetwork(HeadChecks):
    """A network with an operator head, on a device of torch. Arrays that it takes and returns are tensors there.

    Parameters
    ----------
    module : Algebraformer
        In evaluation mode; copied to the device.
    device : torch.device
    """

    def __init__(self, module: Algebraformer, device: torch.device) -> None:
        self.config, self.device = module.config, device
        self._module: Algebraformer = copy.deepcopy(module).to(device).eval()
        self._reader = reader = cast(OperatorReader, module.head.reader)

        def convert(array: np.ndarray[Any, Any]) -> Tensor:
            return torch.from_numpy(np.ascontiguousarray(array)).to(device)

        self._basis: Basis = moved(reader.basis, convert)
        self._form: InverseForm = self._basis if reader.form is reader.basis else moved(reader.form, convert)
        self._typical = convert(reader.typical)

    @staticmethod
    def covers(module: Algebraformer) -> bool:
        """Say whether a network's head computes on the device; the others answer on the host."""
        return isinstance(getattr(module.head, "reader", None), OperatorReader)

    def blocks(self, count: int) -> list[slice]:
        """Return slices of `count` systems that fit into the memory of the device at a time."""
        free = MEMORY_SHARE * torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else MEMORY
        return slices(count, max(1, int(free / (BYTES_PER_ENTRY * max(1, self.config.n) ** 2))))

    def read(self, A: Any) -> MatrixReading:
        """Read matrices A (B, n, n), float64 or complex128, once for all right-hand sides."""
        inverse, distance = self._inverse_and_distance(A)
        defect, max_defect = gcr.probe_defect(A, inverse), self._reader.max_defect()
        near = (host(distance) <= self._reader.max_distance) & (defect <= max_defect)
        return MatrixReading(A, near, self.predict, inverse, defect, max_defect)

    def predict(self, A: Any, b: Any) -> Any:
        """Return the bare answers x (B, n, k) for A (B, n, n) and b (B, n, k)."""
        parts: list[Any] = [self.approximate_inverse(A[rows])(b[rows]) for rows in self.blocks(len(A))]
        return torch.cat(parts) if parts else torch.empty_like(b)

    def approximate_inverse(self, A: Any) -> LinearInverse:
        """Return the approximations of the inverses of A (B, n, n)."""
        return self._inverse_and_distance(A)[0]

    def factorised(
        self, A: Any, b: Any, rtol: float | None, singular: np.ndarray[Any, Any], transpose: bool
    ) -> lapack.DirectSolution:
        """Return the answers of LU on a GPU, see `device_lu.solve`; a tensor on the host is left to LAPACK."""
        if self.device.type == "cuda":
            return device_lu.solve(A, b, rtol, singular, transpose)
        return lapack.solve(host(A), host(b), rtol, singular, transpose=transpose)

    @torch.no_grad()
    def _inverse_and_distance(self, A: Any) -> tuple[LinearInverse, Any]:
        """Return the approximate inverses of A (B, n, n) and how far (B,) each matrix is from the family's mean."""
        scaling: Any
        z: Any
        z, scaling = self._basis.read(A)
        tokens = z.reshape(len(z), self.config.n_token, -1).float()
        head: Any = self._module.head
        parts = [head.outputs(self._module, part)[0] for part in torch.split(tokens, BATCH_SIZE)]
        c: Any = torch.cat(parts) * self._typical if parts else tokens.new_empty((0, len(self._typical)))
        if self._reader.is_complex:
            c = torch.view_as_complex(c.reshape(len(c), -1, 2))
        return self._form.inverse_of(c, scaling), distance_of(z)
