"""The paper builds from the committed files, says nothing that they do not, and has the length of a paper."""

import csv
import json
import re
import sys
from pathlib import Path

import pytest

typst = pytest.importorskip("typst")
ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "paper"))
import tables  # noqa: E402 - paper/ is no package

# Names and definitions; results are never among them.
NAMES = r"\bC[1-4]\b|MobileNetV[23]|EfficientNet-(?:B[13]|Lite0)|CS\\?@5"
ALLOWED = re.compile(NAMES + r"|\b90 % (?:age interval|of the ages)|hold 95 %")


def prose(source: str) -> list[str]:
    """What a reader sees: text outside code, and strings within it that are sentences."""
    source = re.sub(r"//.*", "", source)
    lines = [line for line in source.splitlines() if not re.match(r"\s*#(import|set|show|let)\b", line)]
    text, depth, quoted, shown, sentence, sentences = "\n".join(lines), 0, False, "", "", []
    in_code = False
    for place, letter in enumerate(text):
        if quoted:
            quoted, sentence = letter != '"', sentence + letter
            if not quoted and " " in sentence:
                sentences.append(sentence)
        elif in_code:
            if letter == '"':
                quoted, sentence = True, ""
            depth += (letter == "(") - (letter == ")")
            following = text[place + 1 : place + 2]
            in_code = depth > 0 or following in {"(", "."} or following.isalnum() or following in {"-", "_"}
        elif letter == "#":
            in_code, depth = True, 0
        else:
            shown += letter
    return [re.sub(r"@[\w-]+|<[\w-]+>", "", shown), *sentences]


def typed_numbers(source: str) -> list[str]:
    return [found for text in prose(source) for found in re.findall(r"\S*\d\S*", ALLOWED.sub("", text))]


def test_no_number_is_typed():
    assert typed_numbers((ROOT / "paper" / "main.typ").read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "sentence", ["The error is 4.70 years.", '#drawing("x", "The error is 4.70 years.")', "For 92 %"]
)
def test_a_typed_number_is_noticed(sentence: str):
    assert typed_numbers(sentence)


@pytest.fixture(scope="module")
def pages() -> list[bytes]:
    tables.main()
    return typst.compile(ROOT / "paper" / "main.typ", root=ROOT, format="png", ppi=20)


def test_it_has_eight_to_twelve_pages(pages: list[bytes]):
    assert 8 <= len(pages) <= 12


def test_what_it_reads_is_what_the_pages_say(pages: list[bytes]):
    page = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    rows = tables.read_tables()["real-faces"]
    assert len(rows) == 6
    for row in rows[1:]:
        assert "| " + " | ".join(row) + " |" in page
    facts = json.loads((ROOT / "build" / "paper" / "facts.json").read_text(encoding="utf-8"))
    assert sum(facts["splits"].values()) == 14_903 + 2_129 + 4_256


def test_verdicts_are_those_of_the_committed_table():
    with (ROOT / "figures" / "claims.csv").open(encoding="utf-8", newline="") as lines:
        verdicts = [row["verdict"] for row in csv.DictReader(lines)]
    assert [row[2] for row in tables.read_tables()["claims"][1:]] == verdicts


def test_every_citation_has_an_entry_and_every_entry_is_cited():
    source = (ROOT / "paper" / "main.typ").read_text(encoding="utf-8")
    entries = set(re.findall(r"@\w+\{(\w+),", (ROOT / "paper" / "references.bib").read_text(encoding="utf-8")))
    assert entries == set(re.findall(r"@(\w+\d{4})\b", source))


def test_latex_tables_are_up_to_date(tmp_path: Path):
    read = tables.read_tables()
    for name in tables.LATEX:
        tables.write_latex(name, read[name], tmp_path)
        committed = ROOT / "paper" / "latex" / f"{name}.tex"
        assert (tmp_path / f"{name}.tex").read_text("utf-8") == committed.read_text("utf-8"), "Run: make paper"
