"What docs/build.py makes of the notebooks before Sphinx sees them: every link leads to a page and a definition that are there. Builds nothing."
import ast
import importlib.util
import json
import os
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
spec = importlib.util.spec_from_file_location("docs_build", ROOT / "docs/build.py")
build = importlib.util.module_from_spec(spec)
spec.loader.exec_module(build)


@pytest.fixture(scope="module")
def notebooks(): return build.read_notebooks()


@pytest.fixture(scope="module")
def order(notebooks): return build.chapters(notebooks, json.dumps(notebooks[Path("index.ipynb")]))


@pytest.fixture(scope="module")
def anchors(notebooks):
    "By page, the ids of its definitions."
    cells = {rel: [t for c in nb["cells"] if c["cell_type"] == "code" and {"export", "exporti"} & build.directives(t := "".join(c["source"]))]
             for rel, nb in notebooks.items()}
    return {build.page(rel).as_posix(): [i for t in texts for i in build.anchors(ast.parse(t))] for rel, texts in cells.items()}


def markdown(nb): return ["".join(c["source"]) for c in nb["cells"] if c["cell_type"] == "markdown"]


def pages_of(notebooks): return {build.page(rel).as_posix() for rel in notebooks} | {"names.html", "contributing.html"}


def sources_of(notebooks): return {build.source(rel).as_posix() for rel in notebooks} | {"contributing.md"}


def test_a_patch_of_several_classes_is_defined_in_each():
    text = "@patch\ndef parts(self:{}, x): pass"
    names = lambda of: [n for n, _ in build.defined(ast.parse(text.format(of)))]
    assert names("Cascade") == names("'Cascade'") == ["Cascade.parts"]
    assert names("(ByWeight, Cascade)") == names("ByWeight|Cascade") == ["ByWeight.parts", "Cascade.parts"]
    assert [n for n, _ in build.defined(ast.parse("@patch_to(Cascade)\ndef parts(self): pass\ndef alone(): pass"))] == ["Cascade.parts", "alone"]


def test_no_two_pages_or_anchors_are_the_same(notebooks, anchors):
    assert len(pages_of(notebooks)) == len(notebooks) + 2
    for page, names in anchors.items(): assert len(names) == len({*names}), page


def test_links_between_notebooks_lead_to_pages(notebooks):
    links, found = build.Links(build.read_index()), 0
    texts = [(rel, text) for rel, nb in notebooks.items() for text in markdown(nb)]
    texts = [(rel, links(text, rel)) for rel, text in texts] + [(Path("contributing.md"), build.contributing(links))]
    for rel, text in texts:
        for to in re.findall(r"\]\(([^)\s:#]+\.(?:ipynb|md))", text):
            target = os.path.normpath(rel.parent / to).replace(os.sep, "/")
            assert target in sources_of(notebooks), f"{rel}: {to}"
            found += 1
    assert found > 2 * len(notebooks) # CONTRIBUTING.md alone lists every chapter


def test_methods_of_a_learner_lead_to_their_definition(anchors):
    links = build.Links(build.read_index())
    methods = links.methods
    assert methods["plan"] == "train/cost.html#amflearner.plan" and methods["fine_tune"].startswith("train/learner.html#")
    text = links("`learn.plan(x_1, 'a')` and `learn.unknown()`", Path("use/10_evidence.ipynb"))
    assert 'href="../train/cost.html#amflearner.plan"' in text and "learn.plan(x&#95;1, 'a')" in text and "`learn.unknown()`" in text


def test_what_nbdev_links_is_there(anchors):
    links = {link for syms in build.read_index()["syms"].values() for name, (link, _) in syms.items() if "(" not in name} # nobody writes a tuple of classes
    assert len(links) > 300
    assert [link for link in links if link.partition("#")[2] not in anchors[link.partition("#")[0]]] == []


def test_the_table_of_names_leads_to_definitions(notebooks, order, anchors):
    text = build.summary(notebooks, order)
    links = re.findall(r'href="([^"#]+)#([^"]+)"', text)
    assert len(links) > 300 and all(name in anchors[page] for page, name in links)
    assert "| ✓ |" in text and "byweight.parts" in text and "cascade.parts" in text


def test_the_sidebar_lists_every_page_in_reading_order(notebooks, order):
    listed = [nb for found in order.values() for nb in found]
    assert len(listed) == len({*listed}) == len(notebooks) - 1 and all(order.values())
    told = re.findall(r"\]\(nbs/([^)]+\.ipynb)\)", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    assert [nb.as_posix() for nb in listed if nb.parts[0] != "tutorials"] == told
    table = re.findall(r"^\| \[[^]]+\]\((tutorials/\w+\.ipynb)\)", "\n".join(markdown(notebooks[Path("index.ipynb")])), re.M)
    assert [nb.as_posix() for nb in order["Tutorials"]] == table
    titles = [build.title(notebooks[nb]) for nb in listed]
    assert len(titles) == len({*titles}) and not any(set("`[_") & {*title} for title in titles)
    entries = [f"{name}.html" for tree in build.sidebar(order) for name in re.findall(r"^[\w/]+$", tree, re.M)]
    assert {*entries, "index.html"} == pages_of(notebooks) and len(entries) == len(notebooks) + 1
