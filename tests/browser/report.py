"""report.html in a real browser, without a network: python tests/browser/report.py runs/sample/report.html [--shots FOLDER] [--chromium FILE]

At desktop and phone width it asks for nothing, does not scroll sideways, shows every picture and every section, and it prints."""
import argparse
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

WIDTHS = dict(desktop=1100, phone=390)


def look(browser, file, width, shot):
    "What is wrong with the page at `width`."
    page, asked = browser.new_context(viewport=dict(width=width, height=900), offline=True).new_page(), []
    page.on('request', lambda r: asked.append(r.url))
    page.goto(file.resolve().as_uri())
    wrong = [f'asks for {u[:80]}' for u in asked if not u.startswith(('file:', 'data:'))]
    if (w := page.evaluate('document.documentElement.scrollWidth')) > width: wrong.append(f'{w} pixels wide')
    blank = page.evaluate("[...document.images].filter(i => !i.naturalWidth || !i.alt).length")
    if blank: wrong.append(f'{blank} pictures that do not show or have no text in their place')
    if page.locator('h2').count() < 5 or not page.locator('img').count(): wrong.append('sections or pictures are missing')
    page.screenshot(path=shot, full_page=True)
    return [f'{width} px: {w}' for w in wrong]


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('file', type=Path)
    p.add_argument('--shots', type=Path, default=None)
    p.add_argument('--chromium', default='/usr/bin/chromium')
    a = p.parse_args()
    shots = a.shots or Path(tempfile.mkdtemp())
    shots.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as pw:
        browser = pw.chromium.launch(executable_path=a.chromium, args=['--no-sandbox'])
        wrong = [w for name, width in WIDTHS.items() for w in look(browser, a.file, width, shots / f'{name}.png')]
        page = browser.new_page()
        page.goto(a.file.resolve().as_uri())
        page.pdf(path=shots / 'report.pdf')
    if (mb := a.file.stat().st_size / 1e6) > 3: wrong.append(f'{mb:.1f} MB')
    print('\n'.join(wrong) or f'{a.file.name}: {mb:.2f} MB, nothing wrong; pictures of it in {shots}')
    return bool(wrong)


if __name__ == '__main__': sys.exit(main())
