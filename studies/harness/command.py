"""The command that runs a study and writes its results."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

from algebraformer.reporting import Report, print_table, progress_bar
from studies.harness.study import run_study, save_study


def run(study: ModuleType, preset: str, output: Path, work: Path, json: bool, program: str) -> Report:
    """Run a study, write NAME.json, NAME.md and NAME.png into the folder `output`, and print what was found.

    Parameters
    ----------
    study : module
        See `studies.harness.study`.
    preset : str
    output : path
        Folder for the results.
    work : path
        Folder for what a stopped study resumes from.
    json : bool
        Print nothing; no progress bar.
    program : str
        Words in front of NAME of the command that makes the results. It is recorded without the folders, which differ
        from machine to machine.
    """
    name = study.__name__.rpartition(".")[2]
    with progress_bar(disable=json) as bar:
        report = run_study(study, preset, work / f"{name}-{preset}", bar)
    save_study(study, report, output / f"{name}.json", f"{program} {name} --preset {preset}", preset=preset)
    if not json:
        for table in report.tables:
            print_table(table)
        print("\n".join(report.conclusions))
    return report
