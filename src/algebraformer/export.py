"""Networks for other runtimes: ONNX, and programs of torch.export.

What is exported is the part between reading a system and making an answer of what the network returns: embedding, body
and read-out, float32, for any number of systems. Scaling, basis, refinement and certificate stay with the NumPy
runtime, in float64: `NumpyNetwork.with_forward` puts the two together again.
"""

from __future__ import annotations

import dataclasses
import io
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal, get_args

from algebraformer import checkpoint
from algebraformer.errors import ConfigurationError
from algebraformer.extras import require_packages, require_torch
from algebraformer.models.config import EstimateConfig, ModelConfig, OperatorConfig, TokenConfig, check_choice
from algebraformer.models.inference.answers import AnyNetwork
from algebraformer.models.inversion import OUTPUTS, InversionConfig
from algebraformer.models.preconditioned import PreconditionedConfig
from algebraformer.writing import write_bytes

if TYPE_CHECKING:
    from torch import nn

Format = Literal["onnx", "torch"]
Shape = tuple[int | str, ...]
BATCH = "batch"
"""Name of the first axis of every input and output."""
NOISE: tuple[tuple[str, type[Warning]], ...] = (
    (r"`isinstance\(treespec, LeafSpec\)` is deprecated", FutureWarning),
    (r"_check_is_size will be removed", FutureWarning),
    (r"The tensor attributes self\.network\.body\.\w+\._flat_weights", UserWarning),
    (r"# The axis name: batch will not be used", UserWarning),
)
"""Warnings of torch 2.13 about its own code, its recurrent layers among it, and about the name of an axis of several
inputs, which then has that of the first."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """Inputs and outputs of an exported network, float32, with their shapes by name."""

    inputs: dict[str, Shape]
    outputs: dict[str, Shape]


def signature(config: ModelConfig) -> Signature:
    """Return inputs and outputs of a network when it is exported.

    Inputs are the tokens that its reader makes of systems (batch, T, token_width), and scaled A (batch, m, n) and b
    (batch, m) for the body "feedback". Outputs are those that the reader asks for: of a token head the standardised
    solution y (batch, n), of an operator head the coefficients in multiples of their typical size (batch, R), for
    complex families pairs of real and imaginary parts (batch, 2 R), of an estimate head x_mean and x_std (batch, n) and
    the logarithm of the noise level, log_noise (batch), and of an inversion head numbers for each unknown (batch, n, 8)
    and for the nuisance parameters (batch, 2 k + 2), which its reader makes bands of.

    Raises
    ------
    ConfigurationError
        The network has a head of another kind.

    Examples
    --------
    >>> signature(ModelConfig(n=8, head=OperatorConfig(rank=6, n_column=4, n_row=4)))
    Signature(inputs={'tokens': ('batch', 4, 4)}, outputs={'multiples': ('batch', 6)})
    """
    head, n, m = config.head, config.n, config.n_equations
    inputs: dict[str, Shape] = {"tokens": (BATCH, config.n_token, config.token_width)}
    if config.body.needs_system:
        inputs |= {"A": (BATCH, m, n), "b": (BATCH, m)}
    if config.body.needs_right_side:
        inputs |= {"b": (BATCH, n)}
    outputs: dict[str, Shape]
    if isinstance(head, TokenConfig | PreconditionedConfig):
        outputs = {"y": (BATCH, n)}
    elif isinstance(head, OperatorConfig):
        outputs = {"multiples": (BATCH, head.n_output)}
    elif isinstance(head, EstimateConfig):
        outputs = {"x_mean": (BATCH, n), "x_std": (BATCH, n), "log_noise": (BATCH,)}
    elif isinstance(head, InversionConfig):
        outputs = {"numbers": (BATCH, n, OUTPUTS), "nuisance": (BATCH, 2 * (head.n_nuisance + 1))}
    else:
        raise ConfigurationError(f"this model has the head {head.name!r}: only heads of the package can be exported")
    return Signature(inputs, outputs)


def save(network: AnyNetwork, file: str | os.PathLike[str], format: Format = "onnx") -> Signature:
    """Write the network's part of a model for another runtime, atomically.

    Parameters
    ----------
    network : NumpyNetwork or Algebraformer
        `LearnedSolver.network`.
    file : path
    format : {"onnx", "torch"}
        "onnx": a model whose inputs and outputs have the names of `signature`. "torch": a program that
        `torch.export.load` reads; its module takes the inputs in this order and returns a tuple of the outputs.

    Returns
    -------
    Signature

    Raises
    ------
    ConfigurationError
        The network has a head or a body that cannot be exported, or the format is unknown.
    MissingExtraError
        There is no torch, or no onnx and onnxscript for ONNX.
    OSError
        The file cannot be written.

    Examples
    --------
    >>> import tempfile
    >>> import torch
    >>> import algebraformer as af
    >>> network = af.LearnedSolver.from_pretrained("diffusion-64").network
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = save(network, f"{folder}/network.pt2", "torch")
    ...     module = torch.export.load(f"{folder}/network.pt2").module()
    >>> found.inputs
    {'tokens': ('batch', 1, 256)}
    >>> module(torch.zeros(5, 1, 256))[0].shape
    torch.Size([5, 96])
    """
    check_choice("format", format, get_args(Format))
    found = signature(network.config)
    require_torch("an export")
    if format == "onnx":
        require_packages("an export to ONNX", ("onnx", "onnxscript"), "onnx")
    write_bytes(file, _onnx(network, found) if format == "onnx" else _program(network, found))
    return found


def _program(network: AnyNetwork, found: Signature) -> bytes:
    """Return a program of torch.export."""
    import torch

    part, inputs, shapes = _part(network, found)
    stream = io.BytesIO()
    with _without_noise():
        torch.export.save(torch.export.export(part, inputs, dynamic_shapes=(shapes,)), stream)
    return stream.getvalue()


def _onnx(network: AnyNetwork, found: Signature) -> bytes:
    """Return an ONNX model."""
    import torch

    part, inputs, shapes = _part(network, found)
    with _without_noise():
        program = torch.onnx.export(
            part,
            inputs,
            dynamo=True,
            dynamic_shapes=(shapes,),
            input_names=list(found.inputs),
            output_names=list(found.outputs),
            verbose=False,
        )
    if program is None:
        raise ConfigurationError("torch.onnx.export returned no program")
    return bytes(program.model_proto.SerializeToString())


def _part(network: AnyNetwork, found: Signature) -> tuple[nn.Module, tuple[Any, ...], tuple[Any, ...]]:
    """Return the module to export, an example of its inputs, and which of their axes are of any length."""
    import torch

    from algebraformer.models.network import from_arrays

    class Part(torch.nn.Module):
        """From inputs to outputs; without what the head knows of the family, which this part does not read."""

        def __init__(self) -> None:
            super().__init__()
            self.network = from_arrays(network.config, checkpoint.arrays_of(network))  # a copy, on the CPU
            head = self.network.head
            head._buffers = {}
            head._modules = {name: part for name, part in head._modules.items() if part and [*part.parameters()]}

        def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
            return tuple(self.network.head.outputs(self.network, *inputs))

    part = Part().eval().requires_grad_(False)
    systems = torch.export.Dim(BATCH, min=1)
    # Two systems in the example: torch takes an axis of length one for one that always has it.
    inputs = tuple(torch.zeros(2, *shape[1:]) for shape in found.inputs.values())  # type: ignore[arg-type]
    return part, inputs, tuple({0: systems} for _ in inputs)


@contextmanager
def _without_noise() -> Iterator[None]:
    """Hide `NOISE`, and the names of packages that torch.onnx could use."""
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            for message, category in NOISE:
                warnings.filterwarnings("ignore", message, category)
            yield
    finally:
        logger.setLevel(level)
