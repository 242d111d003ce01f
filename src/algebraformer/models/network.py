"""The whole network: tokens, body and head. What depends on the kind of head is in the head."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.linalg import FloatArray
from algebraformer.metrics import ScoredSystems
from algebraformer.models.bodies import Attention, CarrierBlock, make_body
from algebraformer.models.config import ModelConfig
from algebraformer.models.heads import EstimateHead, OperatorHead, TokenHead
from algebraformer.models.heads.base import make_head
from algebraformer.models.inference.layers import Tensors
from algebraformer.models.inference.reader import Arrays, HeadChecks, not_estimating, unable
from algebraformer.models.inference.reading import Estimates, MatrixReading
from algebraformer.models.tokens import Tokens
from algebraformer.numerics.entry_sampler import Entries
from algebraformer.numerics.preconditioner import LinearInverse


class Algebraformer(HeadChecks, nn.Module):
    """Reads systems A x = b of one size and returns x.

    Parameters
    ----------
    config : ModelConfig

    Examples
    --------
    >>> import torch
    >>> model = Algebraformer(ModelConfig(n=4, n_layer=1, n_head=2, n_embd=8))
    >>> A, b = torch.eye(4, dtype=torch.float64).expand(3, 4, 4), torch.ones(3, 4, dtype=torch.float64)
    >>> model(A, b).shape
    torch.Size([3, 4])
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.tokens = Tokens(config)
        self.body = make_body(config)
        self.head = make_head(config, self.body.width)
        self.reset_parameters()

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.tokens.embedding.weight.device

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise every parameter, in one place, from torch's global generator.

        Linear maps are normal with variance 1 / fan-in; what is added to the residual stream and the read-out start
        at zero, so that the network starts as x = 0. Departs from the paper, which does not say.
        """
        if self.device.type == "meta":
            return  # shapes alone are wanted; random numbers on the meta device would import a second of torch
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.LayerNorm):
                nn.init.ones_(module.weight)
                nn.init.zeros_(module.bias)
            elif isinstance(module, nn.RNNBase):
                for name, parameter in module.named_parameters():
                    if name.startswith("bias"):
                        nn.init.zeros_(parameter)
                        if isinstance(module, nn.LSTM) and "bias_ih" in name:
                            parameter[module.hidden_size : 2 * module.hidden_size] = 1.0  # forget gates start open
                    else:
                        nn.init.normal_(parameter, std=module.hidden_size**-0.5)
        for position in self.tokens.positions:
            nn.init.normal_(position, std=0.02)
        self.body.reset_parameters()
        self.head.reset_parameters()

    def encode(self, tokens: Tensor, *context: Tensor) -> Tensor:
        """Return what the body makes of raw tokens (B, T, token_width): (B, T, width).

        `context` is what the feedback body needs besides: scaled A (B, m, n) and b (B, m).
        """
        encoded: Tensor = self.body(self.tokens(tokens), *context)
        if encoded.shape[1:] != (tokens.shape[1], self.body.width):
            raise ConfigurationError(
                f"the body {self.config.architecture!r} returned tokens of shape {tuple(encoded.shape[1:])}, expected "
                f"{(tokens.shape[1], self.body.width)}"
            )
        return encoded

    def forward(self, A: Tensor, b: Tensor) -> Tensor:
        """Return x (B, n), float64, from A (B, m, n) and b (B, m), float64; m is n but for estimate heads.

        With a token head, gradients flow through x to A, b and the parameters. Operator and estimate heads read A and b
        in NumPy, and their x carries no gradients to these.

        Raises
        ------
        ConfigurationError
            A or b requires gradients, and the head carries none.
        """
        if not self.head.carries_gradients and torch.is_grad_enabled() and (A.requires_grad or b.requires_grad):
            raise ConfigurationError(
                f"{self.config.head.name} heads carry no gradients to A and b yet: detach them, call the model inside "
                "torch.no_grad(), or use a model with a token head"
            )
        return self.head.answer(self, A, b)

    def loss(self, *batch: Tensor) -> Tensor:
        """Return the loss of a batch of examples, relative to that of answering zero; see `Head.example_maker`."""
        return self.head.loss(self, *batch)

    def read(self, A: FloatArray) -> MatrixReading:
        """Read matrices A (B, n, n), float64 or complex128, once for all right-hand sides."""
        return self.head.read_matrices(self, A)

    def predict(self, A: FloatArray, b: FloatArray) -> FloatArray:
        """Return the bare answers x (B, n, k) for A (B, m, n) and b (B, m, k), in evaluation mode."""
        return self.head.predict(self, A, b)

    def estimates(self, A: FloatArray, b: FloatArray) -> Estimates:
        """Return the estimates of an estimate head for A (B, m, n) and b (B, m)."""
        return self.head.estimates(self, A, b)

    def fits(self, misfit: FloatArray) -> NDArray[np.bool_]:
        """Say which misfits of estimates are like those of the family's systems."""
        return self.head.fits(self, misfit)

    def scores(self, systems: ScoredSystems) -> dict[str, float]:
        """Return the scores of the bare network on a set of systems."""
        return self.head.scores(self, systems)

    def approximate_inverse(self, A: Entries) -> LinearInverse:
        """Return a linear head's approximations of the inverses of A (B, n, n), float64 or complex128."""
        return self.head.read_inverse(self, A)

    @property
    def token_head(self) -> TokenHead:
        """The head, if it is a token head; `ConfigurationError` if not."""
        if not isinstance(self.head, TokenHead):
            raise unable(self, "only token heads have a scaler")
        return self.head

    @property
    def estimate_head(self) -> EstimateHead:
        """The head, if it is an estimate head; `ConfigurationError` if not."""
        if not isinstance(self.head, EstimateHead):
            raise not_estimating(self)
        return self.head

    @property
    def operator_head(self) -> OperatorHead:
        """The head, if it is an operator head; `ConfigurationError` if not."""
        if not isinstance(self.head, OperatorHead):
            raise unable(self, "only operator heads have a basis")
        return self.head

    def hidden_matrices(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Yield the weight matrices inside the network and how many square-ish matrices each of them stacks.

        Muon orthogonalises these; embedding, positions, norms, biases and read-out belong to AdamW.
        """
        yield from self.body.hidden_matrices()

    def training_flops(self) -> int:
        """Return 6 x parameters x tokens: a multiplication and an addition per weight and token, twice that backward.

        Parameters that see all tokens at once, as the read-out of an operator head, count once.
        """
        once = self.head.parameters_per_system()
        return 6 * ((self.parameter_count() - once) * self.config.n_token + once)

    def attention_flops(self) -> int:
        """Return what `training_flops` leaves out: q k^T and its product with the values, forward and twice backward.

        12 n_layer T^2 n_embd for T tokens, as if a causal mask spared nothing. Where T is much larger than n_embd this
        is most of the work. 0 without attention.
        """
        layers = sum(isinstance(module, Attention | CarrierBlock) for module in self.body.modules())
        return 12 * layers * self.config.n_token**2 * self.config.n_embd

    def parameter_count(self) -> int:
        """Return the number of trained parameters; buffers are not counted."""
        return sum(p.numel() for p in self.parameters())


def from_arrays(config: ModelConfig, arrays: Arrays) -> Algebraformer:
    """Return the network with these parameters and buffers by name, copied: on the CPU, in evaluation mode.

    Raises
    ------
    ConfigurationError
        An array is missing, unknown, or has the wrong shape or dtype, or buffers make no sense together.
    """
    with torch.device("meta"):
        model = Algebraformer(config)
    left, tensors = Tensors(arrays), {}
    for name, tensor in model.state_dict().items():
        array = left.take(name, tuple(tensor.shape), str(tensor.dtype).removeprefix("torch."))
        # Into torch's own memory: MKL promises the same rounding only for arrays aligned to 64 bytes.
        tensors[name] = torch.tensor(array)
    left.check_empty()
    model.load_state_dict(tensors, strict=True, assign=True)
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    model.head.check()
    return model.eval()
