"""The recurrent baselines of the paper, LSTM and GRU, on the same tokens and with the same read-out.

References
----------
.. [1] S. Hochreiter and J. Schmidhuber, "Long short-term memory", Neural Computation 9 (1997).
.. [2] K. Cho et al., "Learning phrase representations using RNN encoder-decoder", EMNLP 2014.
"""

from __future__ import annotations

from torch import Tensor, nn

from algebraformer.models.config import ModelConfig


class Recurrent(nn.Module):
    """Stacked LSTM or GRU layers: tokens (B, T, n_embd) to states (B, T, width)."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        kind = {"lstm": nn.LSTM, "gru": nn.GRU}[config.architecture]
        self.layers = kind(
            config.n_embd, config.n_embd, config.n_layer, batch_first=True, bidirectional=config.bidirectional
        )
        self.width = config.n_embd * (2 if config.bidirectional else 1)

    def forward(self, h: Tensor) -> Tensor:
        return self.layers(h)[0]
