"""Where the verdict and the numbers of a claim come from."""

from __future__ import annotations

import dataclasses

from algebraformer.reporting import Verdict


@dataclasses.dataclass(frozen=True)
class Shown:
    """One outcome of a result."""

    result: str
    """results/NAME.json."""
    id: str
    text: str = ""
    """Text on the page, a template of its numbers; nothing if empty."""
    decides: bool = True
    """Whether its verdict is one on the claim."""


@dataclasses.dataclass(frozen=True)
class Fact:
    """What needs no measurement: one of `FACTS`."""

    id: str
    text: str
    shown_by: str
    decides: bool = True


@dataclasses.dataclass(frozen=True)
class Claim:
    """One row of the table."""

    part: str
    """Of the summary."""
    claim: str
    sources: tuple[Shown | Fact, ...]
    undecided: Verdict = Verdict.MEASURED
    """Verdict if no source decides."""
