"""Files of a release agree with each other and with what they describe."""

import json
import re
import sys
from pathlib import Path

import pytest
import yaml

import agr_utils

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tools"))
import croissant  # noqa: E402 - tools/ is no package


def test_one_version_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    zenodo = json.loads((ROOT / ".zenodo.json").read_text(encoding="utf-8"))
    assert citation["version"] == zenodo["version"] == croissant.describe(ROOT)["version"] == agr_utils.__version__


def test_citation_names_the_repository():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["cff-version"] == "1.2.0" and citation["authors"] and citation["title"]
    assert citation["repository-code"] == croissant.describe(ROOT)["url"]


def test_croissant_is_up_to_date():
    committed = json.loads((ROOT / "croissant.json").read_text(encoding="utf-8"))
    assert committed == croissant.describe(ROOT), "Run: python tools/croissant.py"


@pytest.mark.filterwarnings("ignore")
def test_croissant_is_valid_and_says_what_the_standard_asks_for():
    mlcroissant = pytest.importorskip("mlcroissant")
    metadata = mlcroissant.Dataset(jsonld=json.loads((ROOT / "croissant.json").read_text(encoding="utf-8"))).metadata
    assert not metadata.issues.errors
    assert metadata.data_biases and metadata.personal_sensitive_information and metadata.data_limitations


def test_croissant_describes_every_column():
    import pandas as pd

    (shipped,) = (ROOT / "results" / "shipped").glob("*/predictions.parquet")
    assert list(pd.read_parquet(shipped).columns) == list(croissant.PREDICTIONS)
    assert list(pd.read_csv(ROOT / croissant.SPLIT, nrows=1).columns) == list(croissant.SPLIT_COLUMNS)


@pytest.mark.parametrize("card", ["docs/MODEL_CARD.md", "docs/DATA_CARD.md"])
def test_cards_have_a_header_that_a_hub_reads(card: str):
    header = yaml.safe_load((ROOT / card).read_text(encoding="utf-8").split("---")[1])
    assert header["license"] == "other" and header["license_name"] and header["tags"]


def test_changelog_keeps_the_form():
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    sections = re.findall(r"^## \[(.+?)\]", text, re.MULTILINE)
    assert sections[0] == "Unreleased" and all(re.fullmatch(r"\d+\.\d+\.\d+", one) for one in sections[1:])
    kinds = set(re.findall(r"^### (.+)$", text, re.MULTILINE))
    assert kinds <= {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.mark.parametrize("path", sorted((ROOT / ".github").rglob("*.yml")), ids=lambda path: path.name)
def test_forms_and_workflows_can_be_read(path: Path):
    read = yaml.safe_load(path.read_text(encoding="utf-8"))
    if path.parent.name == "workflows":
        commands = [step.get("run", "") for job in read["jobs"].values() for step in job["steps"]]
        makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
        for target in [name for command in commands if command.startswith("make ") for name in command.split()[1:]]:
            assert re.search(rf"^{target}:", makefile, re.MULTILINE), f"{path.name} runs make {target}"
    elif path.name != "config.yml":
        assert {"name", "description", "body"} <= read.keys()
