"""Open the explorer in JupyterLab, move a slider, click an image, and see the numbers change.

python tests/browser/explorer.py [--run FOLDER] [--shot FILE.png] [--chromium FILE] [--port N]

Needs jupyterlab, playwright and a Chromium; not part of the ordinary tests. Without --run a toy learner is explored.
"""
import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import nbformat
from playwright.sync_api import sync_playwright

QUIET = "import warnings\nwarnings.filterwarnings('ignore')"
TOY = "from amf_nb.test_utils import toy_learner\nlearn = toy_learner(); learn.fine_tune(6, 1e-2, holdout=0.25)"
RUN = "from amf_nb.use.interpret import AMFInterpretation\nlearn = AMFInterpretation.from_run({!r})"
SHOW = "from amf_nb.use.explore import explore\nexplore(learn, n=8)"


def notebook(folder, run):
    "A notebook in `folder` that opens the explorer."
    cells = [QUIET, TOY if run is None else RUN.format(str(Path(run).resolve())), SHOW]
    nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(c) for c in cells],
                                  metadata=dict(kernelspec=dict(name="python3", display_name="python3", language="python")))
    nbformat.write(nb, folder / "explorer.ipynb")


def lab(folder, port):
    "JupyterLab on `port`, waiting until it answers."
    cmd = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", f"--port={port}", "--ServerApp.port_retries=0",
           "--IdentityProvider.token=", "--ServerApp.password=", f"--notebook-dir={folder}"]
    log = open(folder.parent / "lab.log", "w")
    proc = subprocess.Popen(cmd, stdout=log, stderr=log)
    for _ in range(120):
        if proc.poll() is not None: break
        try:
            urllib.request.urlopen(f"http://localhost:{port}/api", timeout=2)
            return proc
        except OSError: time.sleep(0.5)
    proc.terminate()
    raise SystemExit("JupyterLab did not start:\n" + (folder.parent / "lab.log").read_text()[-2000:])


def accuracy(page):
    return page.locator(".amf-accuracy").first.inner_text()


def wait_for_change(page, read, before, what, seconds=20):
    for _ in range(seconds * 10):
        if (now := read(page)) != before: return now
        page.wait_for_timeout(100)
    raise SystemExit(f"{what} did not change from {before!r}")


def drag(page, handle, dx):
    "Drag a slider's handle by `dx` pixels."
    box = handle.bounding_box()
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(x + dx, y, steps=8)
    page.mouse.up()


def check(page, url):
    "Run the notebook, use the explorer, and say what was seen."
    page.goto(f"{url}/lab/tree/explorer.ipynb?reset", wait_until="domcontentloaded", timeout=120_000)
    page.wait_for_selector(".jp-Notebook .jp-Cell", timeout=120_000)
    page.wait_for_timeout(4000)
    for b in page.locator(".jp-Dialog button").all()[-1:]: b.click()
    page.locator('.lm-MenuBar-itemLabel:text-is("Run")').click()
    page.locator('.lm-Menu-itemLabel:text-is("Run All Cells")').click()
    page.wait_for_selector(".amf-accuracy", timeout=180_000)
    for b in page.locator('.Toastify button:has-text("No")').all(): b.click()  # no news from the network
    page.wait_for_timeout(1000)
    seen = dict(start=accuracy(page))
    handles = page.locator(".jp-OutputArea .noUi-handle")
    for i in range(handles.count() - 1):  # the last one is the threshold
        drag(page, handles.nth(i), -400 if i else 400)
    seen["one branch alone"] = wait_for_change(page, accuracy, seen["start"], "the accuracy")
    detail = lambda p: p.locator(".widget-html-content table").first.inner_text()
    before = detail(page)
    page.locator(".jp-OutputArea .widget-button").nth(3).click()
    wait_for_change(page, detail, before, "the table of the image")
    seen["image"] = page.locator(".widget-html-content b").filter(has_text="image").first.inner_text()
    for i in range(1, handles.count() - 1): drag(page, handles.nth(i), 400)
    page.locator(".widget-dropdown select").first.select_option(label="stop when sure")
    cost = lambda p: p.locator(".amf-accuracy").locator("xpath=../..").inner_text().split("\n")[-1]
    seen["stop when sure"] = cost(page)
    drag(page, handles.last, -60)
    seen["stop earlier"] = wait_for_change(page, cost, seen["stop when sure"], "the cost")
    page.wait_for_timeout(500)
    seen["errors"] = page.locator('.jp-RenderedText[data-mime-type="application/vnd.jupyter.error"]').count()
    return seen


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--run", help="folder of a run of amf_train")
    p.add_argument("--shot", help="where to write a screenshot")
    p.add_argument("--chromium", default=shutil.which("chromium") or shutil.which("chromium-browser"))
    p.add_argument("--port", type=int, default=8897)
    a = p.parse_args()
    folder = Path(tempfile.mkdtemp()) / "notebooks"
    folder.mkdir()
    notebook(folder, a.run)
    server = lab(folder, a.port)
    try:
        with sync_playwright() as play:
            browser = play.chromium.launch(executable_path=a.chromium, args=["--no-sandbox"])
            page = browser.new_page(viewport=dict(width=1400, height=1000))
            seen = check(page, f"http://localhost:{a.port}")
            if a.shot: page.screenshot(path=a.shot)
            browser.close()
    finally:
        server.terminate()
        server.wait(20)
        shutil.rmtree(folder.parent, ignore_errors=True)
    print(json.dumps(seen, indent=1))
    sys.exit(bool(seen["errors"]))


if __name__ == "__main__": main()
