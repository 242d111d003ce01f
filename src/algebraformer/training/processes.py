"""Training on several processes, which torchrun starts: each takes its share of every batch.

    torchrun --nproc-per-node 4 -m algebraformer train ...

After each backward pass the processes average their gradients [1]_, over gloo between CPUs and over NCCL between GPUs.
Everything else is the business of the first process alone: it owns the folder of the run, fits what has to be known of
the family before the first step and after the last one, and scores. The others begin with the bytes of a checkpoint
that it sends them, whether the run is new or resumes. So nothing depends on how other machines round, and none but the
first needs the folder. A fixed training set is made by every process for itself: seed and index name its systems, and
to make them takes no longer than to wait for them.

The gradients travel as one message. torch's DistributedDataParallel sends them in parts while the backward pass goes
on, which gains little at the sizes of these networks; and after another process had been killed it hung in two of eight
trials (torch 2.13): its reducer waits for a thread that waits for Python's lock.

A single process goes through the same code and touches nothing of `torch.distributed`. torch is imported where it is
needed, since the command line asks this module who may print.

References
----------
.. [1] S. Li et al., "PyTorch distributed: experiences on accelerating data parallel training", PVLDB 13 (2020).
"""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

from algebraformer.errors import AlgebraformerError, ConfigurationError, TrainingError

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Parameter

Made = TypeVar("Made")

PATIENCE = datetime.timedelta(days=1)
"""How long a process waits for the others. The first one may compute a basis or scores for hours; one that has died is
noticed at once, because its connections are closed."""


def launched() -> tuple[int, int]:
    """Return the number of this process among those that torchrun has started, and how many these are; (0, 1) else."""
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        return 0, 1
    return int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])


@dataclasses.dataclass(frozen=True)
class Processes:
    """The processes of a run, seen from one of them.

    Attributes
    ----------
    device : str
        The device of torch that this process computes on.
    rank, count : int
        Number of this process, and how many there are.

    Examples
    --------
    >>> Processes("cpu", rank=1, count=3).share(64)
    slice(21, 42, None)
    """

    device: str = "cpu"
    rank: int = 0
    count: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes, prints and decides."""
        return self.rank == 0

    def share(self, batch_size: int) -> slice:
        """Return which systems of a batch this process takes."""
        return slice(self.rank * batch_size // self.count, (self.rank + 1) * batch_size // self.count)

    def backward(self, loss: Tensor, parameters: Iterable[Parameter], batch_size: int) -> Tensor:
        """Compute the gradient of the loss of a whole batch, and return this loss.

        Parameters
        ----------
        loss : Tensor
            That of this process's share of the batch, a mean over its systems.
        parameters : iterable of Parameter
        batch_size : int
            Systems in the whole batch.
        """
        if self.count == 1:
            loss.backward()
            return loss.detach()
        import torch
        from torch import distributed

        part = self.share(batch_size)
        loss = loss * ((part.stop - part.start) / batch_size)
        loss.backward()
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        last = loss.detach()[None].to(gradients[0].dtype)  # a float64 among them would double the message
        total = torch.cat([*(gradient.flatten() for gradient in gradients), last])
        with reported():
            distributed.all_reduce(total)
        *sums, mean = total.split([*(gradient.numel() for gradient in gradients), 1])
        for gradient, whole in zip(gradients, sums, strict=True):
            gradient.copy_(whole.view_as(gradient))
        return mean[0]

    def any(self, flag: bool) -> bool:
        """Return whether it is true in any process: in all of them the same."""
        if self.count == 1:
            return flag
        import torch
        from torch import distributed

        flags = torch.tensor([flag], dtype=torch.int32)
        with reported():
            distributed.all_reduce(flags, distributed.ReduceOp.MAX)
        return bool(flags)

    def from_first(self, make: Callable[[], Made]) -> Made:
        """Return what `make` returns in the first process, or raise what it raises; the others wait for it."""
        if self.count == 1:
            return make()
        import torch
        from torch import distributed

        outcome: list[Any] = [None, None]
        if self.first:
            try:
                outcome[0] = make()
            except (AlgebraformerError, KeyboardInterrupt) as error:
                outcome[1] = error
        with reported():
            distributed.broadcast_object_list(outcome, src=0, device=torch.device("cpu"))
        if outcome[1] is not None:
            raise outcome[1]
        made: Made = outcome[0]
        return made


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """Join the processes that torchrun has started with this one; without torchrun there is this one alone.

    It may be entered again inside itself, and a process group that the caller has made is used as it is.

    Parameters
    ----------
    device : str
        Device of torch; `cuda` stands for one GPU per process.

    Raises
    ------
    ConfigurationError
        torch cannot use the device, there are fewer GPUs than processes, or the device names one of them.
    """
    rank, count = launched()
    own = own_device(device) if count > 1 else device
    check_device(own)
    if count == 1:
        yield Processes(device)
        return
    from torch import distributed

    if distributed.is_initialized():
        yield Processes(own, distributed.get_rank(), distributed.get_world_size())
        return
    distributed.init_process_group("cpu:gloo,cuda:nccl" if own.startswith("cuda") else "gloo", timeout=PATIENCE)
    try:
        yield Processes(own, rank, count)
    finally:
        distributed.destroy_process_group()  # frees those that wait for this one


def own_device(device: str) -> str:
    """Return the device of this process among several; `ConfigurationError` if they cannot have one each."""
    import torch

    if not device.startswith("cuda"):
        return device
    if device != "cuda":
        raise ConfigurationError(f"several processes need one GPU each: expected device cuda, received {device!r}")
    here, found = int(os.environ["LOCAL_WORLD_SIZE"]), torch.cuda.device_count()
    if here > found:
        raise ConfigurationError(f"{here} processes on this machine need as many GPUs, found {found}")
    own = f"cuda:{os.environ['LOCAL_RANK']}"
    torch.cuda.set_device(own)
    return own


def check_device(device: str) -> None:
    """Raise `ConfigurationError` if torch cannot use the device."""
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigurationError(f"device {device!r} cannot be used: {error}") from error


@contextmanager
def reported() -> Iterator[None]:
    """Say what it means where a message does not get through: another process is no longer there."""
    from torch import distributed

    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, distributed.DistError) and "gloo" not in str(error):
            raise
        raise TrainingError(
            "another process of this training has ended: the same command resumes from the newest checkpoint"
        ) from error
