"""How memory and time of one forward and backward pass grow with n.

Memory is the most bytes that torch's CPU allocator held at once during the pass, beyond what it held before (weights
and input), summed from the allocation events of torch.profiler: the same to the byte in every run, unlike the size of
the process. PyTorch's default attention kernel never stores the matrix of attention scores; its "math" kernel does, and
shows the growth that the paper argues about.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.profiler import ProfilerActivity, profile

from algebraformer.models import Algebraformer, ModelConfig

KERNELS = {
    "default": [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH],
    "math": [SDPBackend.MATH],
}


def one_pass(config: ModelConfig, backends: list[SDPBackend], batch_size: int) -> Callable[[], None]:
    """Return a call that takes a new network of this kind forward and backward through one batch."""
    model = Algebraformer(config)
    A = torch.randn(batch_size, config.n, config.n, dtype=torch.float64)
    b = torch.randn(batch_size, config.n, dtype=torch.float64)

    def call() -> None:
        with sdpa_kernel(backends):
            model(A, b).square().mean().backward()
        model.zero_grad()

    return call


def peak_bytes(config: ModelConfig, backends: list[SDPBackend], batch_size: int = 8) -> int:
    """Return the most bytes that one forward and backward pass held at once beyond weights and input."""
    call = one_pass(config, backends, batch_size)
    os.environ.setdefault("KINETO_LOG_LEVEL", "6")  # else the profiler announces every start and stop on stderr
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    events = profiler.profiler.kineto_results.events()
    sizes = [event.nbytes() for event in events if event.name() == "[memory]"]  # negative where memory is freed
    return int(np.max(np.cumsum(sizes)))


def score_bytes(config: ModelConfig, batch_size: int) -> int:
    """Return the bytes of the attention scores of all layers, float32, which the math kernel keeps for backward."""
    return 4 * batch_size * config.n_layer * config.n_head * config.n_token**2


def exponent(values: Mapping[int, float]) -> float:
    """Return the slope of the logarithm of the values against that of n."""
    return float(np.polyfit(np.log(list(values)), np.log(list(values.values())), 1)[0])
