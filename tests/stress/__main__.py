"""`python -m tests.stress reliability --preset cpu`: the stress checks at full length (`make stress`)."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Literal

import tyro

from studies.harness.command import run


def main(
    name: tyro.conf.Positional[Literal["reliability", "soak"]],
    preset: str = "quick",
    output: Path = Path("results"),
    work: Path = Path("runs/studies"),
) -> None:
    """Run stress checks and write their results.

    Parameters
    ----------
    name : str
        reliability: what must hold for any output of a network; soak: memory and time over many calls.
    preset : str
        quick, cpu or paper.
    output : Path
        Folder for NAME.json, NAME.md and NAME.png.
    work : Path
        Folder for what a stopped run resumes from.
    """
    study = importlib.import_module(f"tests.stress.{name}")
    run(study, preset, output, work, json=False, program="python -m tests.stress")


if __name__ == "__main__":
    tyro.cli(main)
