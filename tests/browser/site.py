"""The site in a real browser: python tests/browser/site.py [SITE] [--shots FOLDER]; needs `playwright` and Chromium, and docs/build.py first.

At desktop and phone width every page fits, loads nothing from elsewhere and logs no error; sidebar, cross references, equations and search work;
and docs/check.py finds what is broken on purpose in a copy."""
import argparse
import shutil
import sys
import tempfile
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

from playwright.sync_api import sync_playwright

root = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(root / 'docs'))
import check

widths = {'desktop': (1280, 900), 'phone': (390, 844)}


faults = dict(gone='<a href="nowhere.html">x</a>', anchor='<a href="train/learner.html#nothing">x</a>',
              trace='<pre>Traceback (most recent call last)</pre>', cdn='<img src="https://example.org/x.png">',
              twice='<p id="two"></p><p id="two"></p>', directive='<pre>#| hide</pre>', bare='',
              wordless='<img src="_static/logo.png" alt="logo.png">')


def breaks(site):
    "What the checker says of a copy of the site in which each kind of fault is on a page of its own."
    assert check.check(site)[0] == []
    with tempfile.TemporaryDirectory() as tmp:
        bad = Path(tmp).resolve() / 'site'
        shutil.copytree(site, bad)
        pages = dict(zip(faults, sorted(p for p in bad.glob('*.html') if p.name not in check.made_by_sphinx)))
        assert pages.keys() == faults.keys(), 'too few pages on top of the site for a fault each'
        for kind, p in pages.items():
            text = p.read_text().replace('</article>', f'{faults[kind]}</article>', 1)
            if kind == 'bare':
                for there in ('bd-sidebar-primary', 'pst-primary-sidebar', '<h1>', '</h1>'): text = text.replace(there, 'x')
            p.write_text(text)
        wrong = check.check(bad)[0]
        return {kind: [w.split(': ', 1)[1] for w in wrong if w.startswith(f'{p.name}:')] for kind, p in pages.items()}


class Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *args): pass


def serve(site):
    "A server of the site on a free port of this machine; its address."
    server = ThreadingHTTPServer(('127.0.0.1', 0), partial(Quiet, directory=site))
    Thread(target=server.serve_forever, daemon=True).start()
    return f'http://127.0.0.1:{server.server_port}'


class Visit:
    "A page at one width that notes errors and what is fetched from elsewhere."
    def __init__(self, browser, base, size):
        self.page, self.base, self.wrong = browser.new_page(viewport=dict(width=size[0], height=size[1])), base, []
        self.page.on('request', lambda r: self.wrong.append(f'asks for {r.url}') if not r.url.startswith((base, 'data:', 'blob:')) else None)
        self.page.on('response', lambda r: self.wrong.append(f'{r.status} for {r.url}') if r.status >= 400 and 'favicon' not in r.url else None)
        self.page.on('pageerror', lambda e: self.wrong.append(f'error {e}'))

    def go(self, name):
        self.page.goto(f'{self.base}/{name}')
        assert not self.wrong, f'{name}: {self.wrong}'

    def over(self): return self.page.evaluate('document.documentElement.scrollWidth - innerWidth')

    def inside(self, where): return self.page.evaluate(f'(r => r.bottom > 0 && r.top < innerHeight)(document.querySelector({where!r}).getBoundingClientRect())')


def every_page(v, site):
    for p in sorted(site.rglob('*.html')):
        if '_static' in p.parts: continue
        v.go(p.relative_to(site))
        assert v.over() <= 0, f'{p.name} is {v.over()} pixels wider than the window'


def moves(v, phone):
    "From the front page to a chapter by the sidebar, and to a definition by a name in the text."
    v.go('index.html')
    if phone:
        assert not v.page.locator('.bd-sidebar-primary a:text-is("Strategies")').first.is_visible()
        v.page.locator('button.primary-toggle:visible, label.primary-toggle:visible').first.click()
    v.page.locator('.bd-sidebar-primary a:visible:text-is("Strategies"), dialog a:visible:text-is("Strategies")').first.click()
    v.page.wait_for_url('**/method/strategies.html')
    v.go('index.html')
    v.page.locator('article a:has(code:text-is("amf_learner"))').first.click()
    v.page.wait_for_url('**/train/making.html#amf_learner')
    v.page.wait_for_timeout(500)
    assert v.inside('#amf_learner'), 'the link to a definition does not show it'
    assert 'def amf_learner' in v.page.locator('article').inner_text()


def equations(v):
    v.go('method/policy.html')
    sizes = v.page.evaluate('[...document.querySelectorAll("math")].map(m => m.getBoundingClientRect()).map(r => [r.width, r.height])')
    assert len(sizes) > 10 and all(w > 3 and h > 5 for w, h in sizes), sizes
    assert '$' not in v.page.locator('article p').all_inner_texts()[0]


def finds(v):
    v.go('search.html?q=entropy')
    v.page.wait_for_selector('#search-results li a')
    assert any('method/fusion.html' in a for a in v.page.eval_on_selector_all('#search-results li a', 'els => els.map(e => e.href)'))


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('site', nargs='?', default=root / '_site', type=Path)
    p.add_argument('--shots', type=Path, help='folder for pictures of the front page and two chapters')
    a = p.parse_args()
    site = a.site.resolve()
    said, base = breaks(site), serve(site)
    assert said.keys() == faults.keys() and all(said.values()), said
    assert {'no title', 'no sidebar'} <= {*said['bare']}, said
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=shutil.which('chromium') or shutil.which('google-chrome'), args=['--no-sandbox'])
        for name, size in widths.items():
            v = Visit(browser, base, size)
            every_page(v, site); moves(v, name == 'phone'); equations(v); finds(v)
            for page in ('index', 'method/policy', 'study/speed') if a.shots else ():
                a.shots.mkdir(parents=True, exist_ok=True)
                v.go(f'{page}.html')
                v.page.screenshot(path=a.shots / f'{page.rpartition("/")[2]}-{name}.png')
            print(f'{name}, {size[0]} pixels: every page fits, nothing is loaded from elsewhere; sidebar, cross references, equations and search work')


if __name__ == '__main__': main()
