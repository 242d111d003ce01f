"""How a run is carried out, and how it ended."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from algebraformer.errors import ConfigurationError


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunOptions:
    """How a run is carried out; nothing here changes what is learned, but for autocast."""

    device: str = "cpu"
    """Device of torch, for instance cuda."""
    autocast: bool = False
    """Compute the network in bfloat16 where that is safe; CUDA only."""
    compile: bool = False
    """Compile the network with torch.compile."""
    workers: int = 1
    """Processes that make training systems in the background; 0 makes them in between the steps."""
    checkpoint_seconds: float = 120.0
    """Time between checkpoints."""
    log_every: int = 50
    """Steps between lines of the log."""
    validate_every: int = 500
    """Steps between validations on the frozen validation set."""
    progress: bool = True
    """Show a progress bar."""

    def __post_init__(self) -> None:
        if self.autocast and not self.device.startswith("cuda"):
            raise ConfigurationError(f"autocast is for CUDA devices, received device {self.device!r}")
        for name, low in (("workers", 0), ("log_every", 1), ("validate_every", 1), ("checkpoint_seconds", 0)):
            if not getattr(self, name) >= low:
                raise ConfigurationError(f"{name} must be at least {low}, received {getattr(self, name)!r}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    folder: Path
    """Folder of the run; `LearnedSolver.from_pretrained` takes it."""
    step: int
    """Steps done."""
    finished: bool
    """False if a signal (SIGINT, that is Ctrl-C, or SIGTERM) stopped the run; the same call resumes it."""
    scores: dict[str, float]
    """Scores on the frozen test set; empty unless finished."""
