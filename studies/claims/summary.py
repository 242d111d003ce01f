"""The claims, questions and open points of the summary, in its order and in our words."""

from __future__ import annotations

import dataclasses
from typing import Any

from algebraformer.reporting import Verdict
from studies.claims.sources import Claim, Fact, Shown

MODELS, DEPARTURES, FAMILIES = "[models](models.md)", "[departures](departures.md)", "[families](families.md)"
MSE = Shown("diffusion-64-token", "token-head.mse", "{mse:.2g}, paper {paper:.2g}, on other data")
DIRECT = Shown(
    "diffusion-64-token",
    "token-head.direct",
    "median error {relative_error:.2g}; {lapack:.0%} needed LAPACK",
)
CARRIER_MSE = Shown("diffusion-64-carrier", "carrier.mse", "carrier {mse:.2g}", decides=False)
CARRIER_DIRECT = Shown(
    "diffusion-64-carrier", "carrier.direct", "carrier {relative_error:.2g}; refined, {lapack:.0%}", decides=False
)
RECIPE = Shown(
    "spectral",
    "spectral.paper-recipe",
    "{steps} steps: normalized_mse {normalized_mse:.2g}; all, extrapolated: {extrapolated:.2g}",
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
    "{reaction-diffusion:,.0f} and {advection-diffusion:.3g} times fewer epochs",
)
FOUR_TIMES = Shown("newton", "newton.four-times", "learned start: {times:.3g} times fewer iterations")
DIRECTION = Shown(
    "newton",
    "newton.learned-direction/filter, n = 32",
    "learned steps: taken in {accepted:.0%}",
)
ONE_DESIGN = Shown("hessians", "hessians.steps/filter, n = 32, p = 4", "for one design {share:.0%}", decides=False)
AROUND = Shown(
    "condition",
    "condition.around-1e5",
    "solved without LAPACK: token head {solved_min:.0%}",
)
SHIPPED = Shown("diffusion-64", "operator-head.certified", "operator head {by_network:.1%}", decides=False)
KAPPA = Fact("difficulty", "median kappa {median:.1e}", FAMILIES, decides=False)
STORED = Shown("encoding", "encoding.memory/math", "scores stored: n^{column:.2g}, entries n^{entry:.2g}")
NOT_STORED = Shown("encoding", "encoding.memory/default", "not stored: n^{column:.2g}, n^{entry:.2g}")
COLUMNS_SUFFICE = Shown(
    "encoding",
    "encoding.columns-suffice",
    "normalized_mse {mean:.2g}; with entry tokens {other_mean:.2g}",
)
FAR_ABOVE = Shown(
    "condition",
    "condition.far-above-training",
    "error {ratio_min:.2g} to {ratio_max:.2g} times as high at 1e5 to 1e6",
)
BEYOND = Shown(
    "condition",
    "condition.beyond-1e5",
    "solved in {works} of {groups} groups; best share {solved:.0%}",
)
LARGE = Shown(
    "scaling",
    "scaling.speed-up/n = 1024",
    "operator head, n = {n}: {by_network:.0%} without LAPACK",
    decides=False,
)


def of(source: Shown, **changes: Any) -> Shown:
    """Return a source with another text, or one that does not decide."""
    return dataclasses.replace(source, **changes)


def epochs(family: str) -> Shown:
    """Return the epochs from scratch and by fine-tuning of the token head on a family."""
    text = f"{family}: {{scratch:g}} epochs, fine-tuned {{fine:g}}"
    return Shown("transfer", f"transfer.epochs/token head, {family}", text, decides=False)


EPOCHS = (of(FINE_TUNING, text=""), epochs("reaction-diffusion"), epochs("advection-diffusion"))

CLAIMS = (
    Claim("result", "Mean squared error of 2.4e-4 on diffusion.", (MSE, CARRIER_MSE)),
    Claim("result", "More accurate than LSTM (4.8e-4) and GRU (3.1e-4).", (LSTM, GRU, BIDIRECTIONAL)),
    Claim(
        "result",
        "Fine-tuned from diffusion: 100 epochs instead of 1,000.",
        (FINE_TUNING,),
    ),
    Claim("result", "Newton's method for ℓₚ regression is four times faster.", (FOUR_TIMES, DIRECTION, ONE_DESIGN)),
    Claim("result", "It copes with condition numbers around 10⁵.", (AROUND, SHIPPED, KAPPA)),
    Claim(
        "mechanism",
        "One token per column instead of one per entry of A.",
        (Fact("tokens", "{column:,} tokens instead of {entry:,}", MODELS),),
    ),
    Claim("mechanism", "Memory grows as n² instead of n⁴.", (STORED, NOT_STORED)),
    Claim("mechanism", "Column tokens hold enough to learn the inverse.", (COLUMNS_SUFFICE,)),
    Claim("mechanism", "A Transformer maps (A, b) to x without an iteration.", (DIRECT, CARRIER_DIRECT)),
    Claim(
        "mechanism",
        "The inverse is smooth enough to be approximated.",
        (
            Shown(
                "operator",
                "operator.smooth/diffusion",
                "{rank} operators leave {contraction:.2g} of an error",
            ),
            Shown("operator", "operator.smooth/reaction-diffusion"),
            Shown("operator", "operator.smooth/advection-diffusion"),
            Shown("operator", "operator.smooth/random-diffusion", "{rank} leave {contraction:.2g} on random-diffusion"),
        ),
    ),
    Claim(
        "mechanism",
        "Pre-training on diffusion saves data on harder equations.",
        (
            of(FINE_TUNING, text=""),
            Shown(
                "transfer",
                "transfer.lowest-error/token head, reaction-diffusion",
                "250 systems: normalized_mse {fine:.2g}, from scratch {scratch:.2g}",
                decides=False,
            ),
        ),
    ),
    Claim(
        "question",
        "κ = 10⁵ makes an error of 10⁻⁸ one of 10⁻³.",
        (
            Fact("conditioning", "{change:.1g} for a diagonal matrix", "[the certificate](certificate.md)"),
            Shown(
                "perturbation",
                "perturbation.kappa-eps/randsvd, kappa = 1e+05",
                "worst direction {A_worst:.2g}, random {A_random:.2g}",
            ),
        ),
    ),
    Claim(
        "question",
        "Spectral matrices are dense, those of finite differences sparse.",
        (
            Fact(
                "density",
                "nonzero: {spectral:.0%}, with three-point differences {differences:.1%}",
                FAMILIES,
            ),
        ),
    ),
    Claim(
        "question",
        "What does each attention head correlate?",
        (
            Shown(
                "attention",
                "attention.preferred-place",
                "{parity} of {heads} heads: columns of one parity (untrained {parity_before})",
                decides=False,
            ),
            Shown("attention", "attention.learned-correlation/to b", "{heads} follow b", decides=False),
        ),
    ),
    Claim(
        "design",
        "Column tokens, embedding, blocks, one x per token.",
        (Fact("pipeline", "{tokens} tokens of {width} numbers; our loss is scaled", DEPARTURES),),
    ),
    Claim(
        "design",
        "Column tokens allow larger matrices, at a price.",
        (
            of(COLUMNS_SUFFICE, text="error {times:.2g} times lower than with entries"),
            of(STORED, text="memory {ratio:.0f} times less at n = {n}"),
        ),
    ),
    Claim(
        "design",
        "9.5 million parameters are as fast as numerical solvers.",
        (
            Shown("bench", "bench.speed", "{ms_64:.3g} ms, LAPACK {lapack_ms_64:.2g} ms"),
            Shown("scaling", "scaling.one-at-a-time", "operator head: fastest at {wins} of {sizes} n"),
        ),
    ),
    Claim("design", "So few parameters may limit large systems.", (LARGE,)),
    Claim(
        "design",
        "Decoder-only may use context in both directions less well.",
        (
            Shown(
                "attention",
                "attention.bidirectional-better",
                "normalized_mse {mean:.2g} with a mask, {other_mean:.2g} without",
            ),
        ),
    ),
    Claim("failure", "Less accurate where κ is far above the training's.", (FAR_ABOVE,)),
    Claim("failure", "From scratch 1,000 epochs and more, fine-tuned 100.", EPOCHS),
    Claim(
        "failure",
        "The first forward pass takes a second longer.",
        (
            Shown(
                "latency",
                "latency.paper-delay",
                "at most {extra_ms:.2g} ms longer; import of torch {torch_seconds:.2g} s",
            ),
        ),
    ),
    Claim("experiment", "50,000 systems and 400 epochs give 2.4e-4.", (RECIPE,)),
    Claim("experiment", "Column tokens against flattening at n = 16.", (COLUMNS_SUFFICE,)),
    Claim(
        "experiment",
        "Train on κ of 10³ to 10⁴, test on 10⁵ to 10⁶.",
        (
            of(FAR_ABOVE, text=""),
            Shown(
                "condition",
                "condition.lost/randsvd, spread 0.001 (operator head)",
                "near one matrix {near:.2g}, then {far:.2g}",
                decides=False,
            ),
            Shown(
                "condition",
                "condition.haar/token head",
                "Haar-random {normalized_mse:.2g}",
                decides=False,
            ),
        ),
    ),
    Claim(
        "limit",
        "The paper names no open questions.",
        (Fact("nothing", "what it leaves open is listed", DEPARTURES, decides=False),),
        undecided=Verdict.INCONCLUSIVE,
    ),
    Claim(
        "limit",
        "Column tokens may not capture unstructured sparse matrices.",
        (
            Shown(
                "outside",
                "outside.fallback",
                "by LAPACK: {rows permuted:.0%} of permuted, {standard normal matrices:.0%} of random matrices",
                decides=False,
            ),
        ),
        undecided=Verdict.INCONCLUSIVE,
    ),
    Claim("limit", "κ far above 10⁵ is untested.", (of(BEYOND, decides=False),)),
    Claim("limit", "Far more than 64 unknowns are unproven.", (LARGE,)),
    Claim("confidence", "High: less memory than flattening.", (STORED, NOT_STORED)),
    Claim(
        "confidence",
        "High: about 9.5 million parameters.",
        (Fact("parameters", "{parameters:,} at n = 64", MODELS),),
    ),
    Claim(
        "confidence",
        "High: it outperforms LSTM and GRU.",
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
        "Medium: diffusion transfers to the other equations.",
        (FINE_TUNING,),
    ),
    Claim("confidence", "Medium: Newton's method becomes four times faster.", (FOUR_TIMES, DIRECTION, ONE_DESIGN)),
    Claim("confidence", "Low: systems with κ far above 10⁵ can be solved.", (BEYOND,)),
    Claim(
        "check",
        "Reproduce the diffusion result, K = 1 + α cos(2πωx).",
        (MSE, of(RECIPE, text="")),
    ),
    Claim(
        "check",
        "The epoch at which fine-tuning is as good as from scratch.",
        EPOCHS,
    ),
    Claim("check", "κ from 10³ to 10⁶ against the error.", (FAR_ABOVE,)),
    Claim(
        "left out",
        "Noise: trained with it, more accurate than LU?",
        (Shown("noise", "noise.lu/token head", "noise on A: at {from_A:.1g} to {to_A:.1g}; on b: nowhere"),),
    ),
    Claim(
        "left out",
        "Noise: more accurate than the best classical method?",
        (
            Shown("noise", "noise.classical/A", "error {ratio_min:.2g} to {ratio_max:.2g} times (A)"),
            Shown("noise", "noise.classical/b", "{ratio_min:.2g} to {ratio_max:.2g} times (b)"),
        ),
    ),
    Claim(
        "left out",
        "Noise: more accurate than LSTM and GRU?",
        (
            Shown("noise", "noise.recurrent/A", "error {one_direction:.2g} times theirs (A)"),
            Shown("noise", "noise.recurrent/b", "{one_direction:.2g} (b)"),
        ),
    ),
)
