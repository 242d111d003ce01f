"""The documents: numbers come from results/, links lead somewhere, and the command line is described as it is."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import algebraformer
from algebraformer import cli
from algebraformer.cli import output
from studies.harness import pages, study
from studies.harness.evidence import caption

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
COMMAND_LINE = ROOT / "docs" / "command-line.md"
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MARKDOWN = [*DOCUMENTS, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "LOG.md"))]
TEXTS = [*MARKDOWN, ROOT / "CITATION.cff", ROOT / "docs" / "conf.py"]

FORBIDDEN = {
    "a path of one machine": r"(?<![\w.])/(work|root|home|tmp|Users)\b",
    "how the work is organised": r"\bsessions?\b|\bissues? #?\d|\bissue #|\bthis pull request\b|\bagents?\b",
    "a name to be filled in": r"\bTODO\b|\bFIXME\b|\bXXX\b|lorem ipsum",
    "the host of a package registry": r"pypi\.org|pythonhosted|download\.pytorch\.org|piwheels|anaconda\.org",
}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def prose(text: str) -> str:
    """Return Markdown without fenced code."""
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


# ---------------------------------------------------------------- tables


def stale(text: str, results: Path) -> list[str]:
    """Return the names of the tables in a text that are missing, malformed or differ from their results."""
    blocks = [("/".join(filter(None, match.group(2, 3))), match[0]) for match in pages.BLOCK.finditer(text)]
    found = [name for name, _ in blocks]
    wrong = [name for name in re.findall(r"^<!-- table: *(.*?) *-->", text, re.MULTILINE) if name not in found]
    if any(pages.refreshed(match[0], results) != match[0] for match in pages.SUMMARY.finditer(text)):
        wrong.append("summary")
    for name, block in blocks:
        if not (results / f"{name.partition('/')[0]}.json").exists() or pages.refreshed(block, results) != block:
            wrong.append(name)
    return wrong


@pytest.mark.parametrize("path", DOCUMENTS, ids=name_of)
def test_tables_show_the_results(path: Path) -> None:
    assert stale(path.read_text(), RESULTS) == [], "run the study that writes results/NAME.json, then `make tables`"


README = (ROOT / "README.md").read_text()


def words(text: str) -> list[str]:
    """Return what stands between spaces in a Markdown text without its fenced code."""
    return prose(text).split()


def table_rows(text: str) -> list[list[str]]:
    """Return the cells of all rows of Markdown tables, headings included."""
    lines = re.findall(r"^\| (.*) \|$", text, re.MULTILINE)
    return [line.split(" | ") for line in lines if not set(line) <= set("- |")]


def test_the_readme_is_short() -> None:
    assert len(words(README)) <= 900
    assert len(table_rows(README)) <= 1 + 8


def test_words_and_rows_are_counted() -> None:
    assert words("one *two*\n```python\nthree = 3\n```\n| four |\n") == ["one", "*two*", "|", "four", "|"]
    assert table_rows("| a | b |\n| --- | --- |\n| 1 | 2 |\n") == [["a", "b"], ["1", "2"]]


def test_the_summary_has_the_numbers_of_its_results() -> None:
    """By another way: times and errors from the data of the results, not from their tables."""
    (heading, *rows) = table_rows(pages.SUMMARY.search(README)[0])
    records = json.loads((RESULTS / "scaling.json").read_text())["data"]["records"]
    timed = [record for record in records if record.get("family", "diffusion") == "diffusion"]
    for task, ours, lapack, best, rival in rows[:-1]:
        n, batch = map(int, re.findall(r"\d+", task))
        (seconds,) = (record["seconds"] for record in timed if (record["n"], record["batch"]) == (n, batch))
        rivals = {name: time for name, time in seconds.items() if name != "operator head"}
        assert batch in (1, max(record["batch"] for record in timed if record["n"] == n))
        assert float(ours) == pytest.approx(1e3 * seconds["operator head"], rel=1e-2)
        assert float(best) == pytest.approx(1e3 * min(rivals.values()), rel=1e-2)
        assert rival == min(rivals, key=rivals.__getitem__)
        fastest = min(
            time
            for name, time in seconds.items()
            if name.startswith(("numpy.linalg.solve", "scipy.linalg.solve", "dgesv"))
        )
        assert float(lapack) == pytest.approx(1e3 * fastest, rel=1e-2)
    assert [task.partition(",")[0] for task, *_ in rows] == ["diffusion"] * 6 + ["deblur"]
    assert len(heading) == 5


def test_a_stale_summary_is_noticed() -> None:
    digit = re.search(r"0\.\d", pages.SUMMARY.search(README)[0])[0]
    assert stale(README, RESULTS) == []
    assert stale(README.replace(digit, "0.x"), RESULTS) == ["summary"]


def test_changelog_is_short() -> None:
    """At most a dozen bullets a version."""
    versions = re.split(r"^## ", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)[1:]
    assert versions
    for version in versions:
        assert len(re.findall(r"^- ", version, re.MULTILINE)) <= 12, version.partition("\n")[0]


def test_stale_tables_are_noticed(tmp_path: Path) -> None:
    table = {"columns": ["what", "value"], "rows": [["mse", 0.5]]}
    about = {"commit": 40 * "a", "processor": "P", "threads": 2}
    (tmp_path / "study.json").write_text(json.dumps({"table": table, "provenance": about}))
    empty = "before\n<!-- table: study -->\n<!-- end table -->\nafter\n"
    full = pages.refreshed(empty, tmp_path)
    shown = f"| what | value |\n| --- | --- |\n| mse | 0.5 |\n\n{caption(about)}\n"
    assert full == f"before\n<!-- table: study -->\n{shown}<!-- end table -->\nafter\n"
    assert stale(full, tmp_path) == []
    assert stale(empty, tmp_path) == ["study"]
    assert stale(full.replace("0.5", "0.4"), tmp_path) == ["study"]
    assert stale(full.replace("aaaaaaa", "bbbbbbb"), tmp_path) == ["study"]
    assert stale(full.replace("study", "lost"), tmp_path) == ["lost"]
    assert stale("<!-- table: open -->\n| a |\n", tmp_path) == ["open"]
    assert stale(full.replace("table: study", "table: my study"), tmp_path) == ["my study"]


# ---------------------------------------------------------------- links


def anchors(text: str) -> set[str]:
    """Return the anchors of a document's headings, by GitHub's rule."""
    headings = re.findall(r"^#+ +(.*?) *$", prose(text), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def broken_links(path: Path, text: str) -> list[str]:
    """Return the links of a document to files or headings that do not exist; links into the web are not followed."""
    broken = []
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(text)):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        goal = (path.parent / file).resolve()
        missing = bool(file) and not goal.is_file()
        if missing or (anchor and anchor not in anchors(goal.read_text() if file else text)):
            broken.append(target)
    return broken


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    assert broken_links(path, path.read_text()) == []


def test_broken_links_are_noticed() -> None:
    text = "# A heading: `x`, here\n[a](#a-heading-x-here) [b](lost.md) [c](#lost) [d](https://a.b)\n"
    text += "[e](README.md#licence) [f](README.md#lost)\n"
    assert broken_links(ROOT / "some.md", text) == ["lost.md", "#lost", "README.md#lost"]


def test_every_page_is_in_the_table_of_contents() -> None:
    (contents,) = re.findall(r"^```\{toctree\}\n(.*?)^```$", (ROOT / "docs" / "index.md").read_text(), re.M | re.S)
    listed = [line for line in contents.split() if not line.startswith(":") and not line.isdigit()]
    assert sorted(listed) == sorted(path.stem for path in (ROOT / "docs").glob("*.md") if path.stem != "index")


def test_every_public_name_is_in_the_api() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    documented = set(re.findall(r"^\.\. auto\w+:: (\w+)$", text, re.MULTILINE))
    for module in (algebraformer, algebraformer.problems, algebraformer.models, algebraformer.training):
        public = {name for name in module.__all__ if callable(getattr(module, name))}
        assert public <= documented, module.__name__
    summaries = re.findall(r"^\.\. autosummary::\n\n((?:   \w+\n)+)", text, re.MULTILINE)
    assert {name for summary in summaries for name in summary.split()} <= documented


# ---------------------------------------------------------------- words


def forbidden(text: str) -> list[str]:
    """Return what a text says that no document should."""
    return [match[0] for pattern in FORBIDDEN.values() for match in re.finditer(pattern, text, re.IGNORECASE)]


@pytest.mark.parametrize("path", TEXTS, ids=name_of)
def test_documents_speak_of_the_project_alone(path: Path) -> None:
    assert forbidden(path.read_text()) == []


@pytest.mark.parametrize(
    "text", ["see /work/main", "issue #2", "issue 2", "in this session", "from pypi.org", "TODO: x"]
)
def test_forbidden_words_are_noticed(text: str) -> None:
    assert forbidden(text)


# ---------------------------------------------------------------- the command line


def help_of(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--help"])
    assert stop.value.code == 0
    return capsys.readouterr().out


def commands(capsys: pytest.CaptureFixture[str]) -> set[str]:
    """Return the names of the commands that exist."""
    (names,) = re.findall(r"^usage: algebraformer .*\{([\w,-]+)\}", help_of([], capsys))
    return set(names.split(","))


def described() -> dict[str, str]:
    """Return the sections of command-line.md by command."""
    sections = re.split(r"^## ", COMMAND_LINE.read_text(), flags=re.MULTILINE)[1:]
    parts = {section.partition("\n")[0]: section.partition("\n")[2] for section in sections}
    return {title: body for title, body in parts.items() if title != "Exit codes"}


def test_every_command_is_described_and_exists(capsys: pytest.CaptureFixture[str]) -> None:
    assert set(described()) == commands(capsys)


@pytest.mark.parametrize("command", described())
def test_every_option_is_described_and_exists(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    offered = set(re.findall(r"^[^\w-]{1,3}(--[a-z][\w-]*)", help_of([command], capsys), re.MULTILINE))
    assert set(re.findall(r"^\| `(--[\w-]+)` \|", described()[command], re.MULTILINE)) == offered


def test_every_study_is_described_and_exists() -> None:
    table = described()["study"].partition("| option |")[0]
    assert set(re.findall(r"^\| ([\w-]+) \|", table, re.MULTILINE)) - {"study", "---"} == set(study.names())


@pytest.mark.parametrize("path", MARKDOWN, ids=name_of)
def test_commands_in_examples_exist(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    used = re.findall(
        r"(?:^\$ |`)(?:python -m )?algebraformer ([a-z][\w-]*)(.*?)(?:`|$)", path.read_text(), re.MULTILINE
    )
    assert used or path.name not in ("README.md", "command-line.md", "noisy.md")
    known = commands(capsys)
    for command, rest in used:
        assert command in known
        offered = help_of([command], capsys)
        for option in re.findall(r"(?<!\S)--[a-z][\w-]*", rest):
            assert option in offered, f"{command} {option}"


def test_exit_codes_are_those_of_the_program() -> None:
    section = COMMAND_LINE.read_text().partition("## Exit codes")[2].partition("## ")[0]
    codes = {int(code) for code in re.findall(r"^\| (\d+) \|", section, re.MULTILINE)}
    assert codes == {output.DONE, output.NOT_SOLVED, output.BAD_INPUT, output.FALLBACK, output.INTERRUPTED}
