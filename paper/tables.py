"""What the paper reads: the tables of the pages as CSV and as LaTeX, and the facts that a sentence needs.

The one place where the paper meets the results: ``make figures`` fills in the pages from ``results/``.
"""

import csv
import json
import re
import textwrap
import tomllib
from pathlib import Path

from agr_utils.files import atomic_path
from agr_utils.measure.comparisons import MATTERS, SIGNIFICANT

ROOT = Path(__file__).resolve().parent.parent
PAGES = tuple(
    f"docs/{name}.md" for name in ("results", "evidence", "looking_inside", "deployment", "MODEL_CARD", "scaling")
)
TABLE = re.compile(r"<!-- table:(\S+) -->\n(.*?)<!-- /table -->", re.DOTALL)
# Tables that go into somebody's own paper, with their captions.
LATEX = {
    "real-faces": "Test split of UTKFace, five architectures at equal computing time, 95\\,\\% intervals",
    "multitask": "What multi-task learning changes, by architecture and comparison",
    "every-metric": "Further measures of the five architectures",
    "groups": "Errors of the shipped model by labelled group",
    "tests-hirescam": "Four tests of HiResCAM maps",
}
SPECIAL = str.maketrans({"%": "\\%", "&": "\\&", "_": "\\_", "#": "\\#", "×": "$\\times$", "±": "$\\pm$", "–": "--"})


def read_tables() -> dict[str, list[list[str]]]:
    """Every marked table of the pages by its name: rows of text, the header first; none without a run."""
    tables = {}
    for page in PAGES:
        for name, text in TABLE.findall((ROOT / page).read_text(encoding="utf-8")):
            lines = [line for line in text.splitlines() if line.startswith("|") and not line.startswith("|---")]
            rows = [[plain(cell) for cell in line.strip("|").split("|")] for line in lines]
            tables[name] = [row for row in rows if len(row) == len(rows[0])]
    return tables


def plain(cell: str) -> str:
    """A cell without Markdown's marks: links keep their text."""
    return re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", cell).replace("**", "").replace("`", "").replace("*", "").strip()


def read_facts() -> dict:
    """Numbers of the set-up, each from the file that decides it."""
    with (ROOT / "agr_utils" / "data" / "utkface_split.csv").open(encoding="utf-8") as lines:
        splits = [row["split"] for row in csv.DictReader(lines)]
    config = json.loads((ROOT / "results" / "utkface-mobilenet_v3-64px-s0" / "config.json").read_text(encoding="utf-8"))
    (shipped,) = (ROOT / "results" / "shipped").glob("*/config.json")
    return {
        "splits": {name: splits.count(name) for name in ("train", "validation", "test")},
        "matters": MATTERS,
        "significant": SIGNIFICANT,
        "config": config["config"],
        "hardware": config["hardware"],
        "shipped": json.loads(shipped.read_text(encoding="utf-8")),
        "seeds": 3,  # of docs/protocol_2.md
    }


def write_latex(name: str, rows: list[list[str]], target: Path) -> None:
    """A booktabs table with caption and label, no wider than the text: long titles are broken, intervals are small."""
    titles = [r"\\".join(textwrap.wrap(cell, 14)) for cell in rows[0]]
    titles = [rf"\shortstack{{{title.translate(SPECIAL)}}}" for title in titles]
    body = [[_write_cell(cell) for cell in row] for row in rows[1:]]
    header, *body = [" & ".join(row) + r" \\" for row in (titles, *body)]
    lines = [
        r"% \usepackage{booktabs,graphicx}",
        r"\begin{table}",
        rf"\caption{{{LATEX[name]}.}}\label{{tab:{name}}}",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{\tabcolsep=3pt%",
        rf"\begin{{tabular}}{{l{'r' * (len(rows[0]) - 1)}}}",
        r"\toprule",
        header,
        r"\midrule",
        *body,
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    _write(target / f"{name}.tex", "\n".join(lines) + "\n")


def _write_cell(cell: str) -> str:
    minus = re.sub(r"(?<!\d)-(?=\d)", "$-$", cell.translate(SPECIAL))
    return re.sub(r" (\[[^]]*\])", r" {\\scriptsize \1}", minus)


def write_latex_figures(target: Path) -> None:
    """Every figure of the gallery, ready to paste, and an entry to cite them by."""
    gallery = (ROOT / "figures" / "README.md").read_text(encoding="utf-8")
    lines = [r"% \usepackage{graphicx,url}", ""]
    for caption, name in re.findall(r"!\[([^\]]*)\]\((\w+)\.png\)", gallery):
        lines += [
            r"\begin{figure}",
            rf"\includegraphics[width=\linewidth,height=0.85\textheight,keepaspectratio]{{figures/{name}.pdf}}",
            rf"\caption{{{caption.translate(SPECIAL)} \cite{{agr}}.}}\label{{fig:{name}}}",
            r"\end{figure}",
            "",
        ]
    _write(target / "figures.tex", "\n".join(lines))
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    entry = [
        "@misc{agr,",
        f"  title = {{{settings['project']['description']}}},",
        "  author = {{The authors of the course}},",
        f"  howpublished = {{\\url{{https://{settings['tool']['agr']['repository']}}}}},",
        "}",
    ]
    _write(target / "figures.bib", "\n".join(entry) + "\n")


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8")


def main() -> None:
    """Write ``build/paper/*.csv``, ``build/paper/facts.json`` and ``paper/latex/*.tex``."""
    target = ROOT / "build" / "paper"
    tables = read_tables()
    for name, rows in tables.items():
        target.mkdir(parents=True, exist_ok=True)
        with atomic_path(target / f"{name}.csv") as partial, partial.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
        if name in LATEX and rows:
            write_latex(name, rows, ROOT / "paper" / "latex")
    write_latex_figures(ROOT / "paper" / "latex")
    _write(target / "facts.json", json.dumps(read_facts(), indent=1))


if __name__ == "__main__":
    main()
