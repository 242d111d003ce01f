"""The whole network: scaler, tokens, Transformer or recurrent layers, head."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from algebraformer.models.config import ModelConfig
from algebraformer.models.encoding import FamilyScaler, Tokens
from algebraformer.models.heads import TokenHead
from algebraformer.models.recurrent import Recurrent
from algebraformer.models.transformer import Attention, Block, Transformer

FloatArray = NDArray[np.float64]


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
        self.scaler = FamilyScaler(config.n)
        self.tokens = Tokens(config)
        self.body = Transformer(config) if config.architecture == "transformer" else Recurrent(config)
        self.head = TokenHead(config, self.body.width)
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
            elif isinstance(module, Block):
                nn.init.zeros_(module.get_parameter("mlp.2.weight"))
        nn.init.zeros_(self.head.linear.weight)

    def forward(self, A: Tensor, b: Tensor) -> Tensor:
        """Return x (B, n), float64, from A (B, n, n) and b (B, n), float64."""
        y, size = self.standardized(A, b)
        return self.scaler.answer(y, size)

    def standardized(self, A: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
        """Return the network's own output y (B, n), float32, and the factors (B,) that `scaler.answer` needs."""
        A_z, b_z, size = self.scaler(A, b)
        return self.head(self.body(self.tokens(A_z.float(), b_z.float()))), size

    def loss(self, A: Tensor, b: Tensor, x: Tensor) -> Tensor:
        """Return the mean squared error of x for systems scaled to A and b of size one, relative to that of x = 0.

        Departs from the paper, whose loss is the mean squared error of x itself: there a few systems with a large b
        make most of the gradient. With the scaled loss the error of x itself came out lower as well (LOG.md).
        """
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
            elif isinstance(module, Block):
                yield module.get_parameter("mlp.0.weight"), 1
                yield module.get_parameter("mlp.2.weight"), 1
            elif isinstance(module, nn.RNNBase):
                gates = 4 if isinstance(module, nn.LSTM) else 3
                for name, parameter in module.named_parameters():
                    if name.startswith("weight"):
                        yield parameter, gates

    def parameter_count(self) -> int:
        """Return the number of trained parameters; the scaler's buffers are not counted."""
        return sum(p.numel() for p in self.parameters())


@torch.inference_mode()
def predict(
    model: Algebraformer,
    A: FloatArray,
    b: FloatArray,
    owner: NDArray[np.integer] | None = None,
    batch_size: int = 128,
) -> FloatArray:
    """Return the network's bare answers, `batch_size` at a time so that memory stays flat.

    Parameters
    ----------
    model : Algebraformer
        In evaluation mode.
    A : ndarray, shape (B, n, n), float64
    b : ndarray, shape (P, n), float64
    owner : ndarray of int, shape (P,), optional
        Which matrix each right-hand side belongs to; 0 ... B - 1 if None.
    batch_size : int
        Systems per forward pass.

    Returns
    -------
    ndarray, float64
        Shape (P, n) if the network does its job.
    """
    device = model.scaler.A_mean.device
    owner = np.arange(len(A)) if owner is None else owner
    parts = [np.empty((0, model.config.n))]
    for start in range(0, len(b), batch_size):
        chunk = slice(start, start + batch_size)
        x = model(torch.from_numpy(A[owner[chunk]]).to(device), torch.from_numpy(b[chunk].copy()).to(device))
        parts.append(x.double().cpu().numpy())
    return np.concatenate(parts[1:] or parts)
