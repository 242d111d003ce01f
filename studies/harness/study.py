"""How a study is found, run and written.

A study is a module or a package of `studies` with five names:

    PRESETS                     a dictionary of plans (frozen dataclasses)
    run(plan, folder, bar)      returns a `Report`; `folder` keeps what a stopped run resumes from, `bar` is a rich
                                progress bar
    outcomes(data)              what follows from `Report.data`, from nothing else: `Outcome` by id
    SENTENCES                   the sentence of every kind of outcome
    figure(data)                draws a matplotlib figure from `Report.data`

The same code serves every preset: quick in under two minutes (tests use it), cpu for the committed results, paper for
full scale on a GPU.
"""

from __future__ import annotations

import importlib
import math
import pkgutil
import warnings
from collections.abc import Iterable, Mapping
from operator import itemgetter
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from rich.progress import Progress

import studies
from algebraformer.errors import ConfigurationError, FallbackWarning, UnknownNameError
from algebraformer.plotting import save
from algebraformer.provenance import commit
from algebraformer.reporting import Report, write_report

Row = TypeVar("Row", bound=Mapping[str, Any])
NOT_STUDIES = ("__main__", "baselines", "claims", "harness", "latency_probe")
"""Modules of the package that are no studies."""
REQUIRED = ("PRESETS", "run", "figure", "outcomes", "SENTENCES")
"""Names that a study has."""


MAX_LEARNED_MSE = 0.5
"""A network has learned its family if its normalized_mse is below this; 1 is answering zero."""
FULL_SIZE = 9_000_000
"""Networks of at least so many parameters count as the paper's, which has 9.5 million."""


def names() -> list[str]:
    """Return the names of the studies."""
    found = (module.name for module in pkgutil.iter_modules(studies.__path__))
    return sorted(name for name in found if name not in NOT_STUDIES)


def load_study(name: str) -> ModuleType:
    """Return the study of that name; `UnknownNameError` if there is none."""
    if name not in names():
        raise UnknownNameError("study", name, names())
    study = importlib.import_module(f"studies.{name}")
    if missing := [attribute for attribute in REQUIRED if not hasattr(study, attribute)]:
        raise ConfigurationError(f"studies.{name} has no {', '.join(missing)}: see studies.harness.study")
    return study


def run_study(study: ModuleType, preset: str, folder: Path, bar: Progress) -> Report:
    """Run a study.

    Raises
    ------
    UnknownNameError
        It has no preset of that name.
    """
    if preset not in study.PRESETS:
        raise UnknownNameError(f"preset of {study.__name__.rpartition('.')[2]}", preset, list(study.PRESETS))
    commit()  # now, not when a run of hours has ended
    folder.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FallbackWarning)  # studies count what LAPACK answers
        result: Report = study.run(study.PRESETS[preset], folder, bar)
    return result


def save_study(study: ModuleType, report: Report, path: Path, command: str, **about: Any) -> None:
    """Write NAME.json, with the further entries `about`, NAME.md and NAME.png; path is that of NAME.json."""
    write_report(report, path, command, **about)
    save(study.figure(report.data), path.with_suffix(".png"))


def where(rows: Iterable[Row], **wanted: Any) -> list[Row]:
    """Return the rows that have all these values.

    Examples
    --------
    >>> where([{"n": 8, "p": 4}, {"n": 8, "p": 6}, {"n": 16, "p": 4}], n=8, p=4)
    [{'n': 8, 'p': 4}]
    """
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def distinct(rows: Iterable[Mapping[str, Any]], *keys: str) -> list[Any]:
    """Return the different values of a key, or tuples of values of several keys, in the order of the rows.

    Examples
    --------
    >>> rows = [{"n": 8, "p": 4}, {"n": 8, "p": 6}, {"n": 8, "p": 4}]
    >>> distinct(rows, "n"), distinct(rows, "n", "p")
    ([8], [(8, 4), (8, 6)])
    """
    return list(dict.fromkeys(map(itemgetter(*keys), rows)))


def number(value: float | None) -> float:
    """Return a score; infinity for None, which replaces scores that are not finite."""
    return math.inf if value is None else float(value)
