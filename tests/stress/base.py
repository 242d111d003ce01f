"""The result of a stress check: what must hold, how often it was tried, and where it did not hold."""

from __future__ import annotations

import dataclasses
from typing import Any


@dataclasses.dataclass(frozen=True)
class Check:
    """The result of one check.

    Attributes
    ----------
    name : str
    claim : str
        What must hold.
    cases : int
        How often it was tried.
    failures : list of str
        Where it did not hold, in words.
    counts : dict
        What happened in between, by name: numbers for the table.
    data : dict
        More, as plain JSON values.
    """

    name: str
    claim: str
    cases: int
    failures: list[str]
    counts: dict[str, int]
    data: dict[str, Any] = dataclasses.field(default_factory=dict)

    def record(self) -> dict[str, Any]:
        """Return plain JSON values; of many failures the first ones in full."""
        return {
            "name": self.name,
            "claim": self.claim,
            "cases": self.cases,
            "failed": len(self.failures),
            "failures": self.failures[:20],
            "counts": self.counts,
            **self.data,
        }
