"""The book: lessons with their committed outputs, docs, figures, the reference. Built by ``make book``."""

import inspect
import sys
from pathlib import Path

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.util.logging import getLogger

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tools"), str(ROOT / "book")]

from api import write_api_pages  # noqa: E402 - the folders have to be on the path first

import agr_utils  # noqa: E402
from notebooks import read_repository  # noqa: E402

REPOSITORY, BRANCH = read_repository()
ADDRESS = f"https://github.com/{REPOSITORY}"

project = "Age, gender and race from one image"
author = copyright = "The authors of the course"
release = agr_utils.__version__
language = "en"

# The source folder is the repository itself, so that a relative link means the same here, on GitHub and in JupyterLab.
root_doc = "book/index"
include_patterns = [
    "book/*.md",
    "book/api/*.md",
    "notebooks/*.ipynb",
    "notebooks/solutions/*.ipynb",
    "docs/*.md",
    "figures/README.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "CODE_OF_CONDUCT.md",
    "SECURITY.md",
]
exclude_patterns = [".*", "**/.ipynb_checkpoints", "build", "dist", "runs", "results", "tests", "*.egg-info"]

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.linkcode",
]
nb_execution_mode = "off"  # the outputs are those of the committed run
myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 4
add_module_names = False
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
napoleon_use_ivar = True
nitpicky = False
# Cells with `!` and `%` are IPython's; some outputs are of kinds that only JupyterLab shows.
nb_ipywidgets_js = {}
suppress_warnings = ["mystnb.unknown_mime_type"]

html_theme = "sphinx_book_theme"
html_title = project
html_static_path = ["_static"]
html_css_files = ["book.css"]
html_extra_path = ["../build/paper/paper.pdf"]  # make paper
html_copy_source = False
html_show_sourcelink = False
html_additional_pages = {"index": "to_the_book.html"}
templates_path = ["_templates"]
html_theme_options = {
    "repository_url": ADDRESS,
    "repository_branch": BRANCH,
    "use_repository_button": True,
    "use_issues_button": True,
    "use_download_button": False,
    "navbar_persistent": [],  # the side bar has the search
    "show_toc_level": 2,
    "max_navbar_depth": 1,  # deeper, and each page takes half as long again to build
}


def linkcode_resolve(domain: str, info: dict[str, str]) -> str | None:
    """Address of the lines that define what the reference describes."""
    value = sys.modules.get(info["module"])
    for name in info["fullname"].split("."):
        value = getattr(value, name, None)
    try:
        lines, first = inspect.getsourcelines(inspect.unwrap(value))
    except (OSError, TypeError):  # a constant or an attribute
        return None
    path = info["module"].replace(".", "/")
    return f"{ADDRESS}/blob/{BRANCH}/{path}.py#L{first}-L{first + len(lines) - 1}"


def link_to_sources(app: Sphinx, doctree: nodes.document) -> None:
    """Let links to files that are not pages of the book (sources, tables, folders) go to the repository.

    A link to something that does not exist is left alone, so that Sphinx warns of it.
    """

    def is_link(node: nodes.Node) -> bool:
        return isinstance(node, addnodes.download_reference | addnodes.pending_xref)

    folder = Path(app.env.doc2path(app.env.docname)).parent
    for node in list(doctree.findall(is_link)):
        target, _, anchor = str(node.get("reftarget", "")).partition("#")
        if node.get("refdomain") not in {None, "", "doc"} or not target or "://" in target:
            continue
        path = (folder / target).resolve()
        if not path.exists():  # MyST takes the suffix off a page's name and may count from the source folder
            candidates = [folder / f"{target}.md", ROOT / target.lstrip("/"), ROOT / f"{target.lstrip('/')}.md"]
            path = next((path.resolve() for path in candidates if path.exists()), path)
        if not path.exists() or not path.is_relative_to(ROOT) or app.env.path2doc(path) in app.env.found_docs:
            continue
        kind = "tree" if path.is_dir() else "blob"
        address = f"{ADDRESS}/{kind}/{BRANCH}/{path.relative_to(ROOT).as_posix()}" + (f"#{anchor}" if anchor else "")
        link = nodes.reference("", "", *node.children, refuri=address, internal=False)
        node.replace_self(link)


def require_alternative_texts(app: Sphinx, doctree: nodes.document) -> None:
    """Warn of a picture without a text for those who cannot see it."""
    for image in doctree.findall(nodes.image):
        if not image.get("alt"):
            getLogger(__name__).warning("picture without an alternative text: %s", image["uri"], location=image)


def setup(app: Sphinx) -> None:
    """Sphinx calls this."""
    app.connect("builder-inited", lambda app: write_api_pages(ROOT / "book" / "api"))
    app.connect("doctree-read", link_to_sources)
    app.connect("doctree-read", require_alternative_texts)
