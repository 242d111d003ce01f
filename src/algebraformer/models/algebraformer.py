"""The whole network: scaler, tokens, Transformer or recurrent layers, head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.errors import ConfigurationError
from algebraformer.models.config import Head, ModelConfig
from algebraformer.models.encoding import FamilyScaler, Tokens
from algebraformer.models.estimate import Answer, EstimateHead, Scaled, reading, scaled
from algebraformer.models.heads import OperatorHead, TokenHead, distance_of
from algebraformer.models.perceptron import Perceptron, PerceptronBlock
from algebraformer.models.recurrent import Recurrent
from algebraformer.models.transformer import Attention, Block, Feedback, FirstAnswer, Transformer
from algebraformer.numerics.entry_sampler import Entries
from algebraformer.numerics.preconditioner import ApproximateInverse
from algebraformer.numerics.sine_tiles import TiledInverse

HEADS: dict[Head, type[TokenHead] | type[OperatorHead] | type[EstimateHead]] = {
    "token": TokenHead,
    "operator": OperatorHead,
    "estimate": EstimateHead,
}
FloatArray = NDArray[np.float64]
BATCH_SIZE = 128
"""Systems per forward pass."""


class Algebraformer(nn.Module):
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
        if config.head == "token":
            self.scaler = FamilyScaler(config.n)
        self.tokens = Tokens(config)
        self.body = make_body(config)
        self.head = HEADS[config.head](config, self.body.width)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Initialise every parameter, in one place, from torch's global generator.

        Linear maps are normal with variance 1 / fan-in; what is added to the residual stream and the read-out start
        at zero, so that the network starts as x = 0. Departs from the paper, which does not say.
        """
        if self.head.linear.weight.is_meta:
            return  # shapes alone are wanted; random numbers on the meta device would import a second of torch
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=module.in_features**-0.5)
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
        for module in self.modules():
            if isinstance(module, Attention):
                nn.init.zeros_(module.out.weight)
            elif isinstance(module, Block | PerceptronBlock):
                nn.init.zeros_(module.get_parameter("mlp.2.weight"))
            elif isinstance(module, FirstAnswer):
                nn.init.zeros_(module.write.weight)
        nn.init.zeros_(self.head.linear.weight)
        if isinstance(self.head, EstimateHead):
            nn.init.zeros_(self.head.noise.weight)

    def forward(self, A: Tensor, b: Tensor) -> Tensor:
        """Return x (B, n), float64, from A (B, m, n) and b (B, m), float64; m is n but for estimate heads.

        With a token head, gradients flow through x to A, b and the parameters. The other heads read A and b in NumPy,
        and their x carries no gradients to these.

        Raises
        ------
        ConfigurationError
            A or b requires gradients, and the head carries none.
        """
        if self.config.head != "token" and torch.is_grad_enabled() and (A.requires_grad or b.requires_grad):
            raise ConfigurationError(
                f"{self.config.head} heads carry no gradients to A and b yet: detach them, call the model inside "
                "torch.no_grad(), or use a model with a token head"
            )
        if isinstance(self.head, EstimateHead):
            systems = scaled(A.numpy(force=True), b.numpy(force=True))
            return torch.from_numpy(systems.size).to(A.device)[:, None] * self.answer(systems).mean.double()
        if isinstance(self.head, OperatorHead):
            x = self.approximate_inverse(A.numpy(force=True))(b.numpy(force=True)[:, :, None])
            return torch.from_numpy(x[:, :, 0]).to(A.device)
        y, size = self.standardized(A, b)
        return self.scaler.answer(y, size)

    def standardized(self, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return a token head's own output y (B, n), float32, and the factors (B,) that `scaler.answer` needs."""
        A_z, b_z, size = self.scaler(A, b)
        return self.head(self.body(self.tokens(A_z.float(), b_z.float()))), size

    def features(self, z: Tensor) -> Tensor:
        """Return what the operator head reads (B, T, width) from z-scored entries (B, q, m), float32."""
        return self.body(self.tokens.embed(z.flatten(1)[:, None] if self.config.n_token == 1 else z))

    def approximate_inverse(self, A: Entries) -> ApproximateInverse | TiledInverse:
        """Return the operator head's approximations of the inverses of A (B, n, n), float64."""
        return self.read_inverse(A)[0]

    @torch.inference_mode()
    def read_inverse(self, A: Entries) -> tuple[ApproximateInverse | TiledInverse, FloatArray]:
        """Return what `approximate_inverse` returns, and how far (B,) each matrix is from the family's mean."""
        head = self.operator_head
        z, s = head.basis.sampler(A)
        device = self.tokens.embedding.weight.device
        parts = [
            head(self.features(torch.from_numpy(z[i : i + BATCH_SIZE].astype(np.float32)).to(device))).cpu()
            for i in range(0, len(A), BATCH_SIZE)
        ]
        coefficients = torch.cat(parts).numpy() if parts else np.empty((0, head.basis.rank))
        return head.inverse_of(coefficients, s), distance_of(z)

    def answer(self, systems: Scaled) -> Answer:
        """Return what an estimate head says of scaled systems."""
        device = self.tokens.embedding.weight.device
        return self.answer_to(*(part.to(device) for part in reading(self.config, systems)))

    def answer_to(self, tokens: Tensor, A: Tensor, b: Tensor) -> Answer:
        """Return what an estimate head says of a `Reading`."""
        h = self.tokens.embed(tokens)
        return self.estimate_head(self.body(h, A, b) if isinstance(self.body, Feedback) else self.body(h), tokens)

    @property
    def estimate_head(self) -> EstimateHead:
        """The head, if it is an estimate head; `ConfigurationError` if not."""
        if not isinstance(self.head, EstimateHead):
            raise ConfigurationError(f"this model has {self.config.head} as its head: only estimate heads take noisy b")
        return self.head

    @property
    def operator_head(self) -> OperatorHead:
        """The head, if it is an operator head; `ConfigurationError` if not."""
        if not isinstance(self.head, OperatorHead):
            article = "a" if self.config.head == "token" else "an"
            raise ConfigurationError(
                f"this model has {article} {self.config.head} head: only operator heads approximate the inverse itself"
            )
        return self.head

    def loss(self, *batch: Tensor) -> Tensor:
        """Return the loss relative to that of answering zero.

        A token head takes A, b and x and is measured by the mean squared error of x for systems scaled to A and b of
        size one. Departs from the paper, whose loss is the mean squared error of x itself: there a few systems with a
        large b make most of the gradient. With the scaled loss the error of x itself came out lower as well (LOG.md).

        An operator head takes z (B, q, m), c (B, R) and weights (B,), all float32, from `OperatorBasis.coefficients`,
        and is measured by the weighed mean squared error of c, which is that of M Abar in the Frobenius norm.

        An estimate head takes what `models.estimate.examples` returns; its loss is `EstimateHead.loss`.
        """
        if isinstance(self.head, EstimateHead):
            tokens, A, b, y, log_noise = batch
            return self.head.loss(self.answer_to(tokens, A, b), y, log_noise)
        if isinstance(self.head, OperatorHead):
            z, c, weight = batch
            return self.head.loss(self.head(self.features(z)), c, weight)
        A, b, x = batch
        y, size = self.standardized(A, b)
        error = self.scaler.x_rms * y - x / torch.where(size != 0, size, 1.0)[:, None]
        return error.square().mean() / self.scaler.x_rms.square().mean()

    def hidden_matrices(self) -> Iterator[tuple[nn.Parameter, int]]:
        """Yield the weight matrices inside the network and how many square-ish matrices each of them stacks.

        Muon orthogonalises these; embedding, positions, norms, biases and read-out belong to AdamW.
        """
        for module in self.body.modules():
            if isinstance(module, Attention):
                yield module.get_parameter("qkv.weight"), 3
                yield module.get_parameter("out.weight"), 1
            elif isinstance(module, Block | PerceptronBlock):
                yield module.get_parameter("mlp.0.weight"), 1
                yield module.get_parameter("mlp.2.weight"), 1
            elif isinstance(module, nn.RNNBase):
                gates = 4 if isinstance(module, nn.LSTM) else 3
                for name, parameter in module.named_parameters():
                    if name.startswith("weight"):
                        yield parameter, gates

    def training_flops(self) -> int:
        """Return 6 x parameters x tokens: a multiplication and an addition per weight and token, twice that backward.

        The read-out of an operator head sees all tokens at once, so its weights count once.
        """
        once = sum(p.numel() for p in self.head.parameters()) if isinstance(self.head, OperatorHead) else 0
        return 6 * ((self.parameter_count() - once) * self.config.n_token + once)

    def attention_flops(self) -> int:
        """Return what `training_flops` leaves out: q k^T and its product with the values, forward and twice backward.

        12 n_layer T^2 n_embd for T tokens, as if a causal mask spared nothing. Where T is much larger than n_embd this
        is most of the work. 0 without attention.
        """
        layers = sum(isinstance(module, Attention) for module in self.body.modules())
        return 12 * layers * self.config.n_token**2 * self.config.n_embd

    def parameter_count(self) -> int:
        """Return the number of trained parameters; the scaler's buffers are not counted."""
        return sum(p.numel() for p in self.parameters())


def make_body(config: ModelConfig) -> Transformer | Feedback | Recurrent | Perceptron:
    """Return the layers between tokens and head."""
    match config.architecture:
        case "transformer":
            return Transformer(config)
        case "feedback":
            return Feedback(config)
        case "mlp":
            return Perceptron(config)
        case _:
            return Recurrent(config)


@torch.inference_mode()
def predict(model: Algebraformer, A: FloatArray, b: FloatArray) -> FloatArray:
    """Return the network's bare answers, a limited number of systems at a time so that memory stays flat.

    A token head and an estimate head read every right-hand side as a system of its own; an operator head reads every
    matrix once.

    Parameters
    ----------
    model : Algebraformer
        In evaluation mode.
    A : ndarray, shape (B, m, n), float64
        m = n but for estimate heads.
    b : ndarray, shape (B, m, k), float64

    Returns
    -------
    ndarray, float64
        Shape (B, n, k) if the network does its job.
    """
    B, m, k = b.shape
    n = A.shape[2]
    if model.config.head == "operator":
        step = systems_at_once(n)
        with np.errstate(over="ignore", invalid="ignore"):  # of answers beyond float64
            found = [model.approximate_inverse(A[i : i + step])(b[i : i + step]) for i in range(0, B, step)]
        return np.concatenate(found) if found else np.empty(b.shape)
    device = next(model.buffers()).device
    flat, owner = np.ascontiguousarray(b.transpose(0, 2, 1)).reshape(B * k, m), np.arange(B).repeat(k)
    parts = [np.empty((0, n))]
    for start in range(0, B * k, BATCH_SIZE):
        chunk = slice(start, start + BATCH_SIZE)
        x = model(torch.from_numpy(A[owner[chunk]]).to(device), torch.from_numpy(flat[chunk].copy()).to(device))
        parts.append(x.double().cpu().numpy())
    x = np.concatenate(parts[1:] or parts)
    return x.reshape(B, k, n).transpose(0, 2, 1) if x.shape == (B * k, n) else x


class Estimates(NamedTuple):
    """What `estimates` returns."""

    mean: FloatArray
    """(B, n)"""
    std: FloatArray
    """Calibrated standard deviations (B, n)."""
    noise: FloatArray
    """Relative noise levels (B,)."""
    familiar: NDArray[np.bool_]
    """Which systems (B,) look like the family."""


@torch.inference_mode()
def estimates(model: Algebraformer, A: FloatArray, b: FloatArray) -> Estimates:
    """Return everything an estimate head says of A (B, m, n) and b (B, m), a limited number of systems at a time."""
    head = model.estimate_head
    parts = [Estimates(np.empty((0, model.config.n)), np.empty((0, model.config.n)), np.empty(0), np.empty(0, bool))]
    for start in range(0, len(b), BATCH_SIZE):
        systems = scaled(A[start : start + BATCH_SIZE], b[start : start + BATCH_SIZE])
        mean, std, noise = head.estimate(systems, model.answer(systems))
        size = systems.size[:, None]
        parts.append(Estimates(size * mean, np.abs(size) * std, noise, head.is_familiar(systems)))
    return Estimates(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def systems_at_once(n: int) -> int:
    """Return how many approximate inverses of size n are kept in memory: 256 MB of them."""
    return max(1, min(1024, 2**26 // n**2))
