"""Every claim and open point of the summary of the paper that this project worked from, and what became of it here.

`CLAIMS` lists them in the summary's order, in our own words. What stands beside a claim is read from results/*.json
when `make tables` is run: sentences of a study's verdict (`Sentences`), or numbers of any result (`Numbers`). What can
be said without a measurement is computed on the spot (`Fact`). A source whose file does not exist yet is named as not
measured, so the page fills itself as the results come in.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from algebraformer import problems
from algebraformer.linalg import condition_number
from algebraformer.models import Algebraformer, ModelConfig, TokenConfig
from algebraformer.reporting import TableData
from algebraformer.training.data import TEST_SEED
from studies.spectral import measure as spectral

Found = tuple[str, str]
"""A short verdict, or nothing, and a sentence."""
COLUMNS = ("claim or question", "verdict", "what we found", "shown by")
OPEN, MEASURED = "not measured yet", "measured"
REPRODUCED, SMALLER, NOT = "reproduced", "reproduced at smaller scale", "not reproduced"
HOLDS, PARTLY, FAILS = "holds", "holds in part", "does not hold"


@dataclasses.dataclass(frozen=True)
class Sentences:
    """The sentences of a study's verdict that contain one of the words; all of them if there are no words."""

    study: str
    words: tuple[str, ...] = ()

    @property
    def result(self) -> str:
        return self.study

    def chosen(self, content: dict[str, Any]) -> list[str]:
        """Return the sentences; empty if the words are in none."""
        return [
            s for s in content["verdict"] if not self.words or any(word.lower() in s.lower() for word in self.words)
        ]

    def found(self, content: dict[str, Any]) -> Found:
        """Return the verdicts that the sentences name, and the sentences; all sentences if the words are in none."""
        text = " ".join(self.chosen(content) or content["verdict"])
        return "; ".join(dict.fromkeys(re.findall(f"{NOT}|{SMALLER}|{REPRODUCED}", text.lower()))), text


@dataclasses.dataclass(frozen=True)
class Numbers:
    """What a function says about a result."""

    result: str
    found: Callable[[dict[str, Any]], Found]
    command: str = ""
    """Command that shows it; the one that made the result if empty."""


@dataclasses.dataclass(frozen=True)
class Fact:
    """What needs no measurement."""

    found: Callable[[], Found]
    shown_by: str


@dataclasses.dataclass(frozen=True)
class Claim:
    """One row of a table."""

    section: str
    claim: str
    sources: tuple[Sentences | Numbers | Fact, ...]


def table(section: str, results: Path) -> TableData:
    """Return the table of a section, made from the results folder.

    Raises
    ------
    KeyError
        No claim belongs to that section.
    """
    rows = [row(claim, results) for claim in CLAIMS if claim.section == section]
    if not rows:
        raise KeyError(f"no claim belongs to {section!r}")
    return TableData(COLUMNS, rows)


def row(claim: Claim, results: Path) -> list[str]:
    """Return the cells: the first verdict that a source has, everything that is found, and what shows it."""
    labels, texts, shown, missing = [], [], [], []
    for source in claim.sources:
        if isinstance(source, Fact):
            label, text = source.found()
            shown.append(source.shown_by)
        elif (path := results / f"{source.result}.json").exists():
            content = json.loads(path.read_text())
            label, text = source.found(content)
            command = (source.command if isinstance(source, Numbers) else "") or content["command"]
            shown += [f"`{command.removesuffix(' --json')}`", *figure(path)]
        else:
            missing.append(source.result)
            continue
        labels.append(label)
        texts.append(text)
    verdict = next(filter(None, labels), MEASURED if texts else OPEN)
    if missing:
        texts.append(f"Not measured yet: {', '.join(dict.fromkeys(missing))}.")
    cells = (claim.claim, verdict, " ".join(texts), ", ".join(dict.fromkeys(shown)) or "–")
    return [cell.replace("|", "\\|") for cell in cells]


def figure(path: Path) -> list[str]:
    """Return a link from docs/ to the figure of a result, if it has one."""
    picture = path.with_suffix(".png")
    return [f"[figure](../results/{picture.name})"] if picture.exists() else []


# ---------------------------------------------------------------- what the results and computations say


def accuracy(content: dict[str, Any]) -> Found:
    mse, median = content["network"]["mse"], content["network"]["relative_error_median"]
    text = (
        f"Our small token head (four blocks of width 96): mse {mse:.3g}, median relative error {100 * median:.2g} %, "
    )
    text += (
        f"on {content['systems']} unseen systems. f and the ranges of K differ from the paper's, so the two mse are "
    )
    text += "comparable in order of magnitude alone."
    return SMALLER if mse <= spectral.PAPER_MSE[spectral.TOKEN] else NOT, text


def direct(content: dict[str, Any]) -> Found:
    """What a direct mapping is good for: digits of the bare answer, and whether it can be certified."""
    median, lapack = content["network"]["relative_error_median"], content["solve"]["lapack"]
    text = (
        f"The token head's direct answers have a median relative error of {100 * median:.2g} %; {100 * lapack:.3g} % "
    )
    text += "of the systems needed LAPACK for a certified answer."
    return HOLDS if lapack == 0 else PARTLY if median < 0.5 else FAILS, text


def operator_answers(content: dict[str, Any]) -> Found:
    solve = content["solve"]
    by_network = solve["learned"] + solve["learned+refined"]
    text = f"Our operator head on the same family: {100 * by_network:.3g} % of {content['systems']} systems certified "
    text += f"without LAPACK, after {solve['refinements_median']:g} refinements in the median."
    return HOLDS if by_network >= 0.99 else PARTLY, text


def smoothness(content: dict[str, Any]) -> Found:
    """How well a linear basis of a family's inverses can do: a smooth mapping has a short one."""
    parts = [
        f"{record['methods']['projection']['contraction_median']:.2g} ({record['family']}, {record['rank']} operators)"
        for record in content["data"]["records"]
    ]
    worst = max(record["methods"]["projection"]["contraction_median"] for record in content["data"]["records"])
    text = "The inverses of a family lie near few operators; what the best combination of them leaves of an error: "
    return HOLDS if worst < 0.1 else PARTLY, text + ", ".join(parts) + "."


def memory(content: dict[str, Any]) -> Found:
    fits = {(entry["encoding"], entry["kernel"]): entry["exponents"][-1]["exponent"] for entry in content["memory"]}
    column, entry = fits["column", "math"], fits["entry", "math"]
    text = f"Peak memory grows as n^{column:.2g} for column tokens and n^{entry:.2g} for entry tokens where attention "
    text += f"scores are stored; as n^{fits['column', 'default']:.2g} and n^{fits['entry', 'default']:.2g} with "
    text += "PyTorch's default kernel, which does not store them."
    return REPRODUCED if column <= 2.2 and entry >= 3.4 else NOT, text


def speed(content: dict[str, Any]) -> Found:
    seconds, parts, ratios = content["seconds_per_system"], [], []
    for batch in (1, 64):
        ours, lapack = seconds[f"predict, paper, batch {batch}"], seconds[f"numpy.linalg.solve, batch {batch}"]
        ratios.append(ours / lapack)
        parts.append(f"{1e3 * ours:.3g} ms a system against {1e3 * lapack:.2g} ms of LAPACK at batch {batch}")
    return HOLDS if max(ratios) <= 2 else FAILS, "A network of the paper's size at n = 64: " + ", ".join(parts) + "."


def large(content: dict[str, Any]) -> Found:
    record = max(content["data"]["records"], key=lambda record: (record["n"], record["batch"]))
    n, share, count = record["n"], 100 * record["by_network"], record["batch"]
    text = f"Nothing is known of the paper's token head there. Our operator head at n = {n}: {share:.3g} % of {count} "
    return "", text + f"systems certified without LAPACK, {record['refinements_median']:g} refinements in the median."


def unstructured(content: dict[str, Any]) -> Found:
    groups = {group["group"]: group["lapack"] for group in content["data"]["groups"]}
    rows, normal = groups["rows permuted"], groups["standard normal matrices"]
    text = (
        "No family of unstructured sparse matrices is here. Nearest to it is what has no structure that was learned: "
    )
    text += (
        f"{100 * rows:.3g} % of matrices with permuted rows and {100 * normal:.3g} % of standard normal ones are left "
    )
    return OPEN, text + "to LAPACK."


def parameters() -> Found:
    with torch.device("meta"):  # shapes alone
        count = Algebraformer(ModelConfig()).parameter_count()
    text = f"Twelve blocks of width 256 with eight heads at n = 64 have exactly {count:,} parameters here."
    return HOLDS if 9.45e6 <= count < 9.55e6 else FAILS, text


def tokens() -> Found:
    column, entry = (ModelConfig(head=TokenConfig(encoding=encoding)).n_token for encoding in ("column", "entry"))
    return HOLDS if (column, entry) == (
        64,
        64**2,
    ) else FAILS, f"At n = 64 it is {column:,} tokens instead of {entry:,}."


def conditioning() -> Found:
    """The extreme case of a diagonal matrix: b along the largest singular vector, its error along the smallest."""
    kappa, error = 1e5, 1e-8
    A = np.diag([1.0, 1 / kappa])
    x, changed = np.linalg.solve(A, [1.0, 0.0]), np.linalg.solve(A, [1.0, error])
    worst = float(np.linalg.norm(changed - x) / np.linalg.norm(x))
    text = (
        f"The condition number times the error of b: {worst:.1g}. It is reached where b lies along the largest and its "
    )
    return HOLDS if np.isclose(worst, kappa * error) else FAILS, text + "error along the smallest singular vector."


def difficulty() -> Found:
    kappa = condition_number(problems.get("diffusion", n=64).sample(200, TEST_SEED).A)
    low, middle, high = (f"{value:.1e}" for value in np.quantile(kappa, (0, 0.5, 1)))
    return "", f"The condition numbers of our diffusion matrices are {low} to {high}, {middle} in the median."


def density() -> Found:
    A = problems.get("diffusion", n=64).sample(1, TEST_SEED).A[0]
    share, banded = np.count_nonzero(A) / A.size, (3 * 64 - 2) / A.size
    text = "The basis functions reach over the whole interval, so every unknown meets every other: "
    text += f"{100 * share:.3g} % of the entries of a diffusion matrix at n = 64 are not zero, against "
    return HOLDS if share > 0.99 else FAILS, text + f"{100 * banded:.2g} % with three-point differences."


def pipeline() -> Found:
    count, width = ModelConfig().n_token, ModelConfig().token_width
    text = (
        f"Here these are {count} tokens of {width} numbers at n = 64, in that order; our default loss alone differs: "
    )
    return HOLDS if (count, width) == (64, 65) else FAILS, text + "the squared error of systems scaled to size one."


def none_called_out() -> Found:
    return "–", "What the summary leaves open, and what we decided there, is listed with the departures."


MODELS, DEPARTURES = "[models](models.md)", "[departures](departures.md)"
TOKEN, OPERATOR = "algebraformer evaluate diffusion-64-token", "algebraformer evaluate diffusion-64"
SPECTRAL = Sentences("spectral", ("target of", "the paper's recipe"))
BASELINES = Sentences("spectral", ("of that of LSTM", "of that of GRU", "not in the paper"))
ENCODING = Sentences("encoding", ("information",))
MEMORY = Sentences("encoding", ("memory",))
CAUSAL = Sentences("attention", ("causal",))
HEADS = Sentences("attention", ("heads",))
TRANSFER = Sentences("transfer")
NEWTON = Sentences("newton", ("the paper's",))
AROUND = Sentences("condition", ("around 1e5",))
BEYOND = Sentences("condition", ("far above 1e5",))
LOST = Sentences("condition", ("Less accurate",))
WHERE = Sentences("condition", ("It works",))
RANDOM = Sentences("condition", ("Haar-random",))
PERTURBED = Sentences("noise", ("rule kappa eps",))
BENCH = Numbers("bench", memory)

CLAIMS = (
    Claim(
        "key-results",
        "Mean squared error of 0.00024131 on diffusion.",
        (SPECTRAL, Numbers("diffusion-64-token", accuracy, TOKEN)),
    ),
    Claim("key-results", "More accurate than an LSTM (0.00048211) and a GRU (0.00031371).", (BASELINES,)),
    Claim(
        "key-results",
        "A network fine-tuned from diffusion needs 100 epochs where one from scratch needs 1,000.",
        (TRANSFER,),
    ),
    Claim("key-results", "Newton's method for ℓₚ regression converges about four times faster.", (NEWTON,)),
    Claim(
        "key-results",
        "It copes with condition numbers around 10⁵.",
        (
            AROUND,
            Fact(difficulty, "[families](families.md)"),
            Numbers("diffusion-64-token", direct, TOKEN),
            Numbers("diffusion-64", operator_answers, OPERATOR),
        ),
    ),
    Claim("mechanisms", "One token per column instead of one per entry of A.", (Fact(tokens, MODELS),)),
    Claim("mechanisms", "Memory grows as n² instead of n⁴.", (MEMORY, BENCH)),
    Claim("mechanisms", "Columns as tokens keep enough information to learn the inverse mapping.", (ENCODING,)),
    Claim(
        "mechanisms",
        "A Transformer maps (A, b) to x directly, without an iteration.",
        (Numbers("diffusion-64-token", direct, TOKEN),),
    ),
    Claim(
        "mechanisms",
        "The mapping is smooth enough for a network to approximate the inverse operator.",
        (Numbers("operator", smoothness),),
    ),
    Claim(
        "mechanisms",
        "Pre-training on diffusion gives structure that harder equations reuse, so that they need less data.",
        (TRANSFER,),
    ),
    Claim(
        "questions",
        "Condition number 10⁵ and a relative error of 10⁻⁸ in the input: how large can the error of x get? About 10⁻³.",
        (Fact(conditioning, "[the certificate](certificate.md)"), PERTURBED, Sentences("outside", ("Never wrong",))),
    ),
    Claim(
        "questions",
        "Why are the matrices of spectral methods dense and those of finite differences sparse?",
        (Fact(density, "[families](families.md)"),),
    ),
    Claim("questions", "What does each attention head correlate?", (HEADS,)),
    Claim(
        "design",
        "Tokens of columns, a linear embedding, blocks with attention, one entry of x from each token, squared error.",
        (Fact(pipeline, DEPARTURES),),
    ),
    Claim(
        "design", "Column tokens allow larger matrices and lose attention between single entries.", (ENCODING, MEMORY)
    ),
    Claim(
        "design",
        "About 9.5 million parameters are few enough to compete with numerical solvers in speed.",
        (Numbers("bench", speed), Sentences("scaling", ("One system at a time", "n = 1024"))),
    ),
    Claim("design", "So few parameters may limit accuracy on systems of many unknowns.", (Numbers("scaling", large),)),
    Claim(
        "design",
        "Decoder-only is simpler than an encoder and a decoder, and may use context in both directions less well.",
        (CAUSAL,),
    ),
    Claim("failures", "Less accurate where the condition number is far above that of the training.", (LOST,)),
    Claim(
        "failures", "From scratch a new equation may take more than 1,000 epochs, fine-tuned about 100.", (TRANSFER,)
    ),
    Claim(
        "failures",
        "The first forward pass is delayed by about one second.",
        (Sentences("latency", ("first forward pass", "First prediction", "whole command")),),
    ),
    Claim(
        "experiments",
        "Train on 50,000 diffusion systems for 400 epochs and find an mse near 0.00024.",
        (SPECTRAL, Sentences("efficiency", ("paper's recipe",))),
    ),
    Claim("experiments", "Compare column tokens with flattening the matrix at n = 16.", (ENCODING,)),
    Claim(
        "experiments",
        "Train on condition numbers from 10³ to 10⁴, test from 10⁵ to 10⁶, and measure what is lost.",
        (LOST, RANDOM),
    ),
    Claim("limitations", "The paper names no open questions.", (Fact(none_called_out, DEPARTURES),)),
    Claim(
        "limitations",
        "The encoding may not capture unstructured sparse matrices.",
        (Numbers("outside", unstructured),),
    ),
    Claim("limitations", "Condition numbers far above 10⁵ are untested and may go wrong.", (BEYOND,)),
    Claim("limitations", "Far more than 64 unknowns are unproven.", (Numbers("scaling", large),)),
    Claim("confidence", "High: column tokens need less memory than flattening.", (MEMORY, BENCH)),
    Claim("confidence", "High: the network has about 9.5 million parameters.", (Fact(parameters, MODELS),)),
    Claim("confidence", "High: it outperforms LSTM and GRU on spectral interpolation.", (BASELINES,)),
    Claim(
        "confidence",
        "Medium: diffusion transfers to reaction-diffusion and advection-diffusion by fine-tuning.",
        (TRANSFER,),
    ),
    Claim("confidence", "Medium: Newton's method becomes about four times faster.", (NEWTON,)),
    Claim("confidence", "Low: systems with condition numbers far above 10⁵ can be solved.", (BEYOND,)),
    Claim(
        "checks",
        "Reproduce the diffusion result with AdamW, a cosine schedule and 400 epochs, K = 1 + α cos(2πωx).",
        (SPECTRAL, Numbers("diffusion-64-token", accuracy, TOKEN)),
    ),
    Claim(
        "checks",
        "From scratch on 250 reaction-diffusion and 1,500 advection-diffusion systems against fine-tuning: the epoch "
        "at which fine-tuning is as good.",
        (TRANSFER,),
    ),
    Claim(
        "checks",
        "Condition numbers from 10³ to 10⁶, inside and outside the training, against the error.",
        (WHERE, LOST),
    ),
)
