"""The rows of the page: verdict and numbers of every claim, from the results folder."""

from __future__ import annotations

import json
from pathlib import Path

from algebraformer.reporting import Outcome, TableData, Verdict
from studies.claims.facts import EVALUATED, FACTS
from studies.claims.sources import Claim, Fact, Shown
from studies.claims.summary import CLAIMS
from studies.harness.results import read_outcomes

COLUMNS = ("part", "the summary says or asks", "verdict", "measured", "shown by")


def table(results: Path) -> TableData:
    """Return the table of all claims, made from the results folder.

    Raises
    ------
    KeyError
        A result lacks an outcome or a number.
    FileNotFoundError
        A result is missing.
    """
    return TableData(COLUMNS, [row(claim, results) for claim in CLAIMS])


def row(claim: Claim, results: Path) -> list[str]:
    """Return the cells: part, claim, verdict, numbers, and what shows them."""
    verdicts, texts, shown = [], [], []
    for source in claim.sources:
        found = FACTS[source.id]() if isinstance(source, Fact) else shown_outcome(source, results)
        verdicts += [found.verdict] if source.decides else []
        texts += [source.text.format(**found.numbers)] if source.text else []
        shown.append(source.shown_by if isinstance(source, Fact) else shown_by(results / f"{source.result}.json"))
    verdict = together(verdicts) if verdicts else claim.undecided
    cells = (claim.part, claim.claim, str(verdict), "; ".join(texts), ", ".join(dict.fromkeys(shown)))
    return [cell.replace("|", "\\|") for cell in cells]


def shown_outcome(source: Shown, results: Path) -> Outcome:
    """Return an outcome of a result."""
    content = json.loads((results / f"{source.result}.json").read_text())
    of_result = EVALUATED.get(source.result)
    outcomes = of_result(content) if of_result else read_outcomes(source.result, content)
    if source.id not in outcomes:
        raise KeyError(f"results/{source.result}.json has no outcome {source.id!r}; it has {', '.join(outcomes)}")
    return outcomes[source.id]


def together(verdicts: list[Verdict]) -> Verdict:
    """Return what several verdicts come to: themselves if they agree, the weaker one if both reproduce, or in part.

    Examples
    --------
    >>> print(together([Verdict.REPRODUCED, Verdict.SMALLER_SCALE]), together([Verdict.HOLDS, Verdict.FAILS]), sep="; ")
    reproduced at smaller scale; holds in part
    """
    different = set(verdicts)
    if len(different) == 1:
        return verdicts[0]
    if different == {Verdict.REPRODUCED, Verdict.SMALLER_SCALE}:
        return Verdict.SMALLER_SCALE
    return Verdict.PARTLY if different <= {Verdict.HOLDS, Verdict.PARTLY, Verdict.FAILS} else Verdict.PARTLY_REPRODUCED


def shown_by(path: Path) -> str:
    """Return the name of a result, with a link from docs/ to its figure if it has one."""
    picture = path.with_suffix(".png")
    return f"[{path.stem}](../results/{picture.name})" if picture.exists() else f"`{path.stem}`"
