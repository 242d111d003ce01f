"""Names of columns: what a column holds, with which sign, in which unit.

A name is read as a whole, as `-Im(Z)/mOhm` or `freq_kHz`: a sign, a quantity, a unit. Nothing in it is passed over, so
that a column of errors, of a fit or of logarithms is not taken for one of data.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from algebraformer.io.limits import Refused

EXPONENTS = {"": 0, "n": -9, "u": -6, "m": -3, "k": 3, "M": 6, "G": 9}
"""Powers of ten that prefixes of units stand for."""
WORDS = {"nano": "n", "micro": "u", "milli": "m", "kilo": "k", "mega": "M", "giga": "G"}
BASES = {
    "Hz": r"hz|hertz",
    "rad/s": r"rad(?:ians?)?(?:\s*/\s*s(?:ec)?|[\s_]*per[\s_]*s(?:ec(?:ond)?)?|_s|[\s_.·*]*s\s*(?:\^?\(?-1\)?|⁻¹))",
    "ohm": r"ohms?",
    "deg": r"°|º|deg(?:rees?)?",
    "rad": r"rad(?:ians?)?",
    "s": r"s(?:ec(?:onds?)?)?",
}
"""How units without a prefix are written, in letters of either case."""
UNIT = rf"(?:(?i:{'|'.join(WORDS)})|[nNuUmMkKgG])?[\s_-]?(?i:{'|'.join(BASES.values())})"
SPELLINGS = str.maketrans(
    {"µ": "u", "μ": "u", "Ω": "ohm", "\u2126": "ohm", "−": "-", "–": "-", "\xa0": " "}
    | {"′": "'", "’": "'", "´": "'", "″": "''", "”": "''", '"': "''"}
)
ARGUMENTS = r"(?i)[zyftvab]|re(?:al)?|im(?:ag(?:inary)?)?"
"""What is no unit in brackets: Re(Z), V(t), Z (real), and the Z'(a), Z''(b) of ZView."""
DERIVED = r"(?i)(?<![a-z])(?:std|sd|stdev|err|errors?|sigma|res|residuals?|fit|fitted|calc|model|log|lg|ln)(?![a-z])"
"""Words in names of columns that are computed from the data."""


class Heading(NamedTuple):
    """The name of a column, read."""

    place: int
    """Of the column, from 0."""
    name: str
    """As it stands in the file."""
    sign: int
    """-1 if the column holds the negative of its quantity."""
    quantity: str
    """In small letters, with single spaces between words."""
    unit: str
    """As it stands in the name; "" if there is none."""


def headings(names: Sequence[str], vocabulary: Mapping[str, str]) -> dict[str, list[Heading]]:
    """Return the columns that hold each quantity of a vocabulary: patterns for whole names, without sign and unit."""
    found: dict[str, list[Heading]] = {}
    for place, name in enumerate(names):
        heading = parsed(place, name)
        if re.search(DERIVED, name.replace("_", " ")):
            continue
        for quantity, pattern in vocabulary.items():
            if heading.quantity and re.fullmatch(pattern, heading.quantity):
                found.setdefault(quantity, []).append(heading)
    return found


def parsed(place: int, name: str) -> Heading:
    """Return the name of a column as sign, quantity and unit."""
    text = _without_brackets(name.translate(SPELLINGS))
    bare = re.sub(r"^(?:-|(?i:minus|neg|negative)[\s_]+)\s*", "", text)
    sign = 1 if bare == text else -1
    text = _without_brackets(bare)
    bracketed = re.fullmatch(r"(.*?)[\s_/]*[(\[{]\s*([^()\[\]{}]*?)\s*[)\]}]", text)
    if bracketed and not re.fullmatch(ARGUMENTS, bracketed[2]):
        quantity, unit = bracketed.groups()
    elif known := re.fullmatch(rf"(?:(.*?)(?:[\s_/]+|\s+in\s+))??({UNIT})", text):
        unit = known[2]
        quantity = known[1] or (unit_of(unit) or ("", ""))[1]  # "Hz" alone is a name as well
    else:
        quantity, _, unit = text.partition("/")
    return Heading(place, name, sign, re.sub(r"[\s_]+", " ", quantity.lower()).strip(" .:"), unit.strip())


def _without_brackets(text: str) -> str:
    """Return text without the brackets around the whole of it."""
    text = text.strip()
    inside = re.fullmatch(r"\(((?:[^()]|\([^()]*\))*)\)", text)
    return inside[1].strip() if inside else text


def unit_of(text: str) -> tuple[str, str] | None:
    """Return prefix and base of a unit, `("k", "Hz")`; None if it is unknown.

    That includes those in which m cannot be told from M, all letters being small or all capital: mhz, MHZ, MOHM.
    """
    for base, pattern in BASES.items():
        match = re.fullmatch(rf"((?i:{'|'.join(WORDS)})|[nNuUmMkKgG])?[\s_-]?((?i:{pattern}))", text)
        if match:
            prefix = match[1] or ""
            if prefix in ("m", "M") and (text.isupper() or (base == "Hz" and text.islower())):
                return None
            if base in ("deg", "rad") and prefix not in ("", "m"):
                return None  # Grad are degrees, or hundredths of a right angle
            prefix = WORDS.get(prefix.lower(), prefix)
            return {"N": "n", "U": "u", "K": "k", "g": "G"}.get(prefix, prefix), base
    return None


def unit_among(heading: Heading, bases: Sequence[str]) -> tuple[str, str]:
    """Return prefix and base of the unit of a column, `("", "")` if it has none; `Refused` if it is none of these."""
    if not heading.unit:
        return "", ""
    unit = unit_of(heading.unit)
    if unit is None or unit[1] not in bases:
        raise Refused(
            f"expected the unit of column {heading.name} to be {' or '.join(bases)}, with a prefix of "
            f"{', '.join(filter(None, EXPONENTS))} in these letters, or none; received {heading.unit}"
        )
    return unit


def only(found: list[Heading], quantity: str) -> Heading:
    """Return the one column of a quantity; `Refused` if there are several."""
    if len(found) > 1:
        names = ", ".join(heading.name for heading in found)
        raise Refused(f"expected one column with the {quantity}, received {len(found)}: {names}")
    return found[0]
