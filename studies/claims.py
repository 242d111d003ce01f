"""Every claim and open point of the summary of the paper that this project worked from, and what we found.

`CLAIMS` lists them in the summary's order, in our own words. `make tables` fills in verdict and numbers from the
outcomes of results/*.json, each named by result and id. `EVALUATED` makes outcomes from the numbers of evaluations and
benchmarks, and what needs no measurement is computed on the spot (`FACTS`). A missing file, id or number is an error.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algebraformer import problems
from algebraformer.linalg import condition_number
from algebraformer.models import Algebraformer, ModelConfig
from algebraformer.reporting import Outcome, TableData, Verdict, outcome
from algebraformer.training.data import TEST_SEED
from studies.harness.results import read_outcomes
from studies.spectral.report import PAPER_MSE, TOKEN

COLUMNS = ("claim or question", "verdict", "what we found", "shown by")


@dataclasses.dataclass(frozen=True)
class Shown:
    """One outcome of a result."""

    result: str
    """results/NAME.json."""
    id: str
    text: str = ""
    """What the page says of it: a template of its numbers; nothing if empty."""
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
    """One row of a table."""

    section: str
    claim: str
    sources: tuple[Shown | Fact, ...]
    undecided: Verdict = Verdict.MEASURED
    """Verdict if no source decides."""


def table(section: str, results: Path) -> TableData:
    """Return the table of a section, made from the results folder.

    Raises
    ------
    KeyError
        No claim belongs to that section, or a result lacks an outcome or a number.
    FileNotFoundError
        A result is missing.
    """
    rows = [row(claim, results) for claim in CLAIMS if claim.section == section]
    if not rows:
        raise KeyError(f"no claim belongs to {section!r}")
    return TableData(COLUMNS, rows)


def row(claim: Claim, results: Path) -> list[str]:
    """Return the cells: claim, verdict, numbers, and what shows them."""
    verdicts, texts, shown = [], [], []
    for source in claim.sources:
        found = FACTS[source.id]() if isinstance(source, Fact) else shown_outcome(source, results)
        verdicts += [found.verdict] if source.decides else []
        texts += [source.text.format(**found.numbers)] if source.text else []
        shown += [source.shown_by] if isinstance(source, Fact) else shown_by(results / f"{source.result}.json")
    verdict = together(verdicts) if verdicts else claim.undecided
    cells = (claim.claim, str(verdict), f"{'; '.join(texts)}.", ", ".join(dict.fromkeys(shown)))
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


def shown_by(path: Path) -> list[str]:
    """Return the command of a result, its page and a link from docs/ to its figure, if it has them."""
    command = json.loads(path.read_text())["command"].partition(" --json")[0].partition(" --output")[0]
    page, picture = path.with_suffix(".md"), path.with_suffix(".png")
    return [
        f"`{EVALUATION.get(path.stem, command)}`",
        *([f"`results/{page.name}`"] if page.exists() else []),
        *([f"[figure](../results/{picture.name})"] if picture.exists() else []),
    ]


# ---------------------------------------------------------------- evaluations and benchmarks


def token_head(content: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether our small token head reaches the paper's mse, and what its direct answers are good for."""
    mse, median = content["network"]["mse"], content["network"]["relative_error_median"]
    lapack, paper = content["solve"]["lapack"], PAPER_MSE[TOKEN]
    reached = Verdict.SMALLER_SCALE if mse <= paper else Verdict.NOT_REPRODUCED
    direct = Verdict.HOLDS if lapack == 0 else Verdict.PARTLY if median < MAX_DIRECT_ERROR else Verdict.FAILS
    return {
        "token-head.mse": outcome(reached, mse=mse, paper=paper),
        "token-head.direct": outcome(direct, relative_error=median, lapack=lapack),
    }


def operator_head(content: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return how many systems our operator head certifies."""
    solve = content["solve"]
    by_network = solve["learned"] + solve["learned+refined"]
    verdict = Verdict.HOLDS if by_network >= MIN_BY_NETWORK else Verdict.PARTLY
    refinements = solve["refinements_median"]
    return {"operator-head.certified": outcome(verdict, by_network=by_network, refinements=refinements)}


def bench(content: Mapping[str, Any]) -> dict[str, Outcome]:
    """Return whether a network of the paper's size is as fast as LAPACK, within a factor of two."""
    seconds, ratios = content["seconds_per_system"], []
    numbers: dict[str, float] = {}
    for batch in (1, 64):
        ours, lapack = seconds[f"predict, paper, batch {batch}"], seconds[f"numpy.linalg.solve, batch {batch}"]
        numbers |= {f"ms_{batch}": 1e3 * ours, f"lapack_ms_{batch}": 1e3 * lapack}
        ratios.append(ours / lapack)
    return {"bench.speed": outcome(Verdict.HOLDS if max(ratios) <= 2 else Verdict.FAILS, **numbers)}


MAX_DIRECT_ERROR = 0.5
"""A median relative error below this is an answer in part."""
MIN_BY_NETWORK = 0.99
"""Share of systems that a network has to solve without LAPACK."""
EVALUATED: dict[str, Callable[[Mapping[str, Any]], dict[str, Outcome]]] = {
    "diffusion-64-token": token_head,
    "diffusion-64": operator_head,
    "bench": bench,
}
EVALUATION = {name: f"algebraformer evaluate {name}" for name in ("diffusion-64-token", "diffusion-64")}
"""Commands that show an evaluation again."""

# ---------------------------------------------------------------- facts


def parameters() -> Outcome:
    """Count the parameters of twelve blocks of width 256 with eight heads at n = 64."""
    with torch.device("meta"):  # shapes alone
        count = Algebraformer(ModelConfig()).parameter_count()
    return outcome(Verdict.HOLDS if 9.45e6 <= count < 9.55e6 else Verdict.FAILS, parameters=count)


def tokens() -> Outcome:
    """Count the tokens at n = 64."""
    column, entry = (ModelConfig(encoding=encoding).n_token for encoding in ("column", "entry"))
    return outcome(Verdict.HOLDS if (column, entry) == (64, 64**2) else Verdict.FAILS, column=column, entry=entry)


def conditioning() -> Outcome:
    """Solve the extreme case of a diagonal matrix: b along the largest singular vector, its error along the "
    "smallest."""
    kappa, error = 1e5, 1e-8
    A = np.diag([1.0, 1 / kappa])
    x, changed = np.linalg.solve(A, [1.0, 0.0]), np.linalg.solve(A, [1.0, error])
    worst = float(np.linalg.norm(changed - x) / np.linalg.norm(x))
    return outcome(Verdict.HOLDS if np.isclose(worst, kappa * error) else Verdict.FAILS, change=worst)


def difficulty() -> Outcome:
    """Return the condition numbers of our diffusion matrices."""
    kappa = condition_number(problems.get("diffusion", n=64).sample(200, TEST_SEED).A)
    low, middle, high = (float(value) for value in np.quantile(kappa, (0, 0.5, 1)))
    return outcome(Verdict.MEASURED, low=low, median=middle, high=high)


def density() -> Outcome:
    """Return the share of entries that are not zero, of a diffusion matrix and with three-point differences."""
    A = problems.get("diffusion", n=64).sample(1, TEST_SEED).A[0]
    share, banded = np.count_nonzero(A) / A.size, (3 * 64 - 2) / A.size
    return outcome(Verdict.HOLDS if share > 0.99 else Verdict.FAILS, spectral=share, differences=banded)


def pipeline() -> Outcome:
    """Return number and width of the tokens at n = 64."""
    count, width = ModelConfig().n_token, ModelConfig().token_width
    return outcome(Verdict.HOLDS if (count, width) == (64, 65) else Verdict.FAILS, tokens=count, width=width)


def nothing() -> Outcome:
    """Return an outcome without numbers."""
    return outcome(Verdict.MEASURED)


FACTS = {
    "parameters": parameters,
    "tokens": tokens,
    "conditioning": conditioning,
    "difficulty": difficulty,
    "density": density,
    "pipeline": pipeline,
    "nothing": nothing,
}

# ---------------------------------------------------------------- the claims

MODELS, DEPARTURES, FAMILIES = "[models](models.md)", "[departures](departures.md)", "[families](families.md)"
MSE = Shown("diffusion-64-token", "token-head.mse", "small token head {mse:.2g}, paper {paper:.2g}, on other data")
DIRECT = Shown(
    "diffusion-64-token",
    "token-head.direct",
    "median relative error {relative_error:.2g}; {lapack:.0%} needed LAPACK for a certified answer",
)
RECIPE = Shown(
    "spectral",
    "spectral.paper-recipe",
    "{steps} steps of the paper's recipe: normalized_mse {normalized_mse:.2g}; extrapolated to all: {extrapolated:.2g}",
    decides=False,
)
LSTM = Shown("spectral", "spectral.beats/diffusion, LSTM", "mse {ratio:.2g} of LSTM's")
GRU = Shown("spectral", "spectral.beats/diffusion, GRU", "{ratio:.2g} of GRU's")
BIDIRECTIONAL = Shown(
    "spectral", "spectral.beats-bidirectional/diffusion", "{ratio:.2g} times that of {network}", decides=False
)
FINE_TUNING = Shown(
    "transfer",
    "transfer.fewer-epochs/token head",
    "{reaction-diffusion:,.0f} times fewer epochs on reaction-diffusion, {advection-diffusion:.3g} on "
    "advection-diffusion",
)
FOUR_TIMES = Shown(
    "newton", "newton.four-times", "learned start: {times:.3g} times fewer iterations than with step 1/(p−1)"
)
DIRECTION = Shown(
    "newton",
    "newton.learned-direction/filter, n = 32",
    "the paper's way: a learned step was taken in {accepted:.0%} of the problems",
)
AROUND = Shown(
    "condition",
    "condition.around-1e5",
    "{learned} of {networks} networks learned; without LAPACK: token head {solved_min:.0%}",
)
SHIPPED = Shown("diffusion-64", "operator-head.certified", "shipped operator head {by_network:.1%}", decides=False)
KAPPA = Fact("difficulty", "median kappa {median:.1e}", FAMILIES, decides=False)
STORED = Shown("encoding", "encoding.memory/math", "attention scores stored: n^{column:.2g} against n^{entry:.2g}")
NOT_STORED = Shown("encoding", "encoding.memory/default", "not stored: n^{column:.2g} against n^{entry:.2g}")
COLUMNS_SUFFICE = Shown(
    "encoding",
    "encoding.columns-suffice",
    "normalized_mse {mean:.2g} with column tokens, {other_mean:.2g} with entry tokens, at equal compute",
)
FAR_ABOVE = Shown(
    "condition",
    "condition.far-above-training",
    "normalized_mse {ratio_min:.2g} to {ratio_max:.2g} times as high at kappa 1e5 to 1e6",
)
BEYOND = Shown(
    "condition",
    "condition.beyond-1e5",
    "solved in {works} of {groups} groups; largest share without LAPACK {solved:.0%}",
)
LARGE = Shown(
    "scaling",
    "scaling.speed-up/n = 1024",
    "operator head at n = {n}: {by_network:.0%} certified without LAPACK; no token head there",
    decides=False,
)


def of(source: Shown, **changes: Any) -> Shown:
    """Return a source with another text, or one that does not decide."""
    return dataclasses.replace(source, **changes)


def epochs(family: str) -> Shown:
    """Return the epochs from scratch and by fine-tuning of the token head on a family."""
    text = f"{family}: {{scratch:g}} from scratch, {{fine:g}} fine-tuned"
    return Shown("transfer", f"transfer.epochs/token head, {family}", text, decides=False)


EPOCHS = (of(FINE_TUNING, text=""), epochs("reaction-diffusion"), epochs("advection-diffusion"))

CLAIMS = (
    Claim("key-results", "Mean squared error of 0.00024131 on diffusion.", (MSE,)),
    Claim("key-results", "More accurate than an LSTM (0.00048211) and a GRU (0.00031371).", (LSTM, GRU, BIDIRECTIONAL)),
    Claim(
        "key-results",
        "A network fine-tuned from diffusion needs 100 epochs where one from scratch needs 1,000.",
        (FINE_TUNING,),
    ),
    Claim(
        "key-results", "Newton's method for ℓₚ regression converges about four times faster.", (FOUR_TIMES, DIRECTION)
    ),
    Claim("key-results", "It copes with condition numbers around 10⁵.", (AROUND, SHIPPED, KAPPA)),
    Claim(
        "mechanisms",
        "One token per column instead of one per entry of A.",
        (Fact("tokens", "{column:,} tokens instead of {entry:,} at n = 64", MODELS),),
    ),
    Claim("mechanisms", "Memory grows as n² instead of n⁴.", (STORED, NOT_STORED)),
    Claim("mechanisms", "Columns as tokens keep enough information to learn the inverse mapping.", (COLUMNS_SUFFICE,)),
    Claim("mechanisms", "A Transformer maps (A, b) to x directly, without an iteration.", (DIRECT,)),
    Claim(
        "mechanisms",
        "The mapping is smooth enough for a network to approximate the inverse operator.",
        (
            Shown(
                "operator",
                "operator.smooth/diffusion",
                "the best combination of {rank} operators leaves {contraction:.2g} of an error on diffusion",
            ),
            Shown("operator", "operator.smooth/reaction-diffusion"),
            Shown("operator", "operator.smooth/advection-diffusion"),
            Shown("operator", "operator.smooth/random-diffusion", "of {rank} {contraction:.2g} on random-diffusion"),
        ),
    ),
    Claim(
        "mechanisms",
        "Pre-training on diffusion gives structure that harder equations reuse, so that they need less data.",
        (
            of(FINE_TUNING, text=""),
            Shown(
                "transfer",
                "transfer.lowest-error/token head, reaction-diffusion",
                "best normalized_mse on 250 systems of reaction-diffusion: {fine:.2g} fine-tuned, {scratch:.2g} from "
                "scratch",
                decides=False,
            ),
        ),
    ),
    Claim(
        "questions",
        "Condition number 10⁵ and a relative error of 10⁻⁸ in the input: how large can the error of x get? About 10⁻³.",
        (
            Fact("conditioning", "{change:.1g} for a diagonal matrix", "[the certificate](certificate.md)"),
            Shown(
                "noise",
                "noise.kappa-eps/randsvd, kappa = 1e+05",
                "random matrices: {A_worst:.2g} in the worst direction, {A_random:.2g} in a random one",
            ),
        ),
    ),
    Claim(
        "questions",
        "Why are the matrices of spectral methods dense and those of finite differences sparse?",
        (
            Fact(
                "density",
                "every basis function reaches everywhere: {spectral:.0%} of the entries are nonzero, with three-point "
                "differences {differences:.2g}",
                FAMILIES,
            ),
        ),
    ),
    Claim(
        "questions",
        "What does each attention head correlate?",
        (
            Shown(
                "attention",
                "attention.preferred-place",
                "{parity} of {heads} heads look at columns of one parity, {parity_before} before training",
                decides=False,
            ),
            Shown("attention", "attention.learned-correlation/to b", "{heads} follow b", decides=False),
        ),
    ),
    Claim(
        "design",
        "Tokens of columns, a linear embedding, blocks with attention, one entry of x from each token, squared error.",
        (Fact("pipeline", "{tokens} tokens of {width} numbers at n = 64; our loss is scaled", DEPARTURES),),
    ),
    Claim(
        "design",
        "Column tokens allow larger matrices and lose attention between single entries.",
        (
            of(COLUMNS_SUFFICE, text="normalized_mse {times:.2g} times lower than with entry tokens at equal compute"),
            of(STORED, text="at n = {n} entry tokens take {ratio:.0f} times the memory"),
        ),
    ),
    Claim(
        "design",
        "About 9.5 million parameters are few enough to compete with numerical solvers in speed.",
        (
            Shown("bench", "bench.speed", "{ms_64:.3g} ms per system at n = 64, LAPACK {lapack_ms_64:.2g} ms"),
            Shown("scaling", "scaling.one-at-a-time", "operator head, one at a time: fastest at {wins} of {sizes} n"),
        ),
    ),
    Claim("design", "So few parameters may limit accuracy on systems of many unknowns.", (LARGE,)),
    Claim(
        "design",
        "Decoder-only is simpler than an encoder and a decoder, and may use context in both directions less well.",
        (
            Shown(
                "attention",
                "attention.bidirectional-better",
                "normalized_mse {mean:.2g} with a causal mask, {other_mean:.2g} in both directions",
            ),
        ),
    ),
    Claim("failures", "Less accurate where the condition number is far above that of the training.", (FAR_ABOVE,)),
    Claim("failures", "From scratch a new equation may take more than 1,000 epochs, fine-tuned about 100.", EPOCHS),
    Claim(
        "failures",
        "The first forward pass is delayed by about one second.",
        (
            Shown(
                "latency",
                "latency.paper-delay",
                "first call at most {extra_ms:.2g} ms longer than later ones; import of torch {torch_seconds:.2g} s",
            ),
        ),
    ),
    Claim("experiments", "Train on 50,000 diffusion systems for 400 epochs and find an mse near 0.00024.", (RECIPE,)),
    Claim("experiments", "Compare column tokens with flattening the matrix at n = 16.", (COLUMNS_SUFFICE,)),
    Claim(
        "experiments",
        "Train on condition numbers from 10³ to 10⁴, test from 10⁵ to 10⁶, and measure what is lost.",
        (
            of(FAR_ABOVE, text=""),
            Shown(
                "condition",
                "condition.lost/randsvd, spread 0.001 (operator head)",
                "near one matrix: normalized_mse {near:.2g}, then {far:.2g}",
                decides=False,
            ),
            Shown(
                "condition",
                "condition.haar/token head",
                "Haar-random matrices are not learned: {normalized_mse:.2g}",
                decides=False,
            ),
        ),
    ),
    Claim(
        "limitations",
        "The paper names no open questions.",
        (Fact("nothing", "what the summary leaves open is listed with the departures", DEPARTURES, decides=False),),
        undecided=Verdict.INCONCLUSIVE,
    ),
    Claim(
        "limitations",
        "The encoding may not capture unstructured sparse matrices.",
        (
            Shown(
                "outside",
                "outside.fallback",
                "no such family here; LAPACK solves {rows permuted:.0%} with permuted rows, "
                "{standard normal matrices:.0%} of random matrices",
                decides=False,
            ),
        ),
        undecided=Verdict.INCONCLUSIVE,
    ),
    Claim(
        "limitations", "Condition numbers far above 10⁵ are untested and may go wrong.", (of(BEYOND, decides=False),)
    ),
    Claim("limitations", "Far more than 64 unknowns are unproven.", (LARGE,)),
    Claim("confidence", "High: column tokens need less memory than flattening.", (STORED, NOT_STORED)),
    Claim(
        "confidence",
        "High: the network has about 9.5 million parameters.",
        (Fact("parameters", "exactly {parameters:,} parameters at n = 64", MODELS),),
    ),
    Claim(
        "confidence",
        "High: it outperforms LSTM and GRU on spectral interpolation.",
        (
            of(LSTM, text="mse {ratio:.2g} of LSTM's on diffusion"),
            of(GRU, text=""),
            Shown("spectral", "spectral.beats/reaction-diffusion, LSTM"),
            Shown("spectral", "spectral.beats/reaction-diffusion, GRU", "{ratio:.2g} of GRU's on reaction-diffusion"),
            Shown("spectral", "spectral.beats/advection-diffusion, LSTM"),
            Shown("spectral", "spectral.beats/advection-diffusion, GRU"),
        ),
    ),
    Claim(
        "confidence",
        "Medium: diffusion transfers to reaction-diffusion and advection-diffusion by fine-tuning.",
        (FINE_TUNING,),
    ),
    Claim("confidence", "Medium: Newton's method becomes about four times faster.", (FOUR_TIMES, DIRECTION)),
    Claim("confidence", "Low: systems with condition numbers far above 10⁵ can be solved.", (BEYOND,)),
    Claim(
        "checks",
        "Reproduce the diffusion result with AdamW, a cosine schedule and 400 epochs, K = 1 + α cos(2πωx).",
        (MSE, of(RECIPE, text="")),
    ),
    Claim(
        "checks",
        "From scratch on 250 reaction-diffusion and 1,500 advection-diffusion systems against fine-tuning: the epoch "
        "at which fine-tuning is as good.",
        EPOCHS,
    ),
    Claim(
        "checks", "Condition numbers from 10³ to 10⁶, inside and outside the training, against the error.", (FAR_ABOVE,)
    ),
)
