"""Check the site: python docs/check.py [FOLDER]. Exit code 1, and a line for each, if something is wrong.

No page shows a stack trace, loads anything from elsewhere, lacks title or sidebar, shows a directive, has an id twice, has a picture without text
in its place, or links to a page or anchor that is not there. Links to elsewhere are listed with `--external`, not fetched."""
import re
import sys
from pathlib import Path
from urllib.parse import unquote, urlsplit

from bs4 import BeautifulSoup

made_by_sphinx = {'genindex.html', 'search.html'}


def outside(url): return bool(urlsplit(url).scheme or urlsplit(url).netloc)


def loaded(soup):
    "What the page asks the browser to fetch."
    for tag, attr in (('script', 'src'), ('img', 'src'), ('iframe', 'src'), ('source', 'src')): yield from (t[attr] for t in soup.find_all(tag, **{attr: True}))
    for t in soup.find_all('link', href=True):
        if {'stylesheet', 'icon', 'preload', 'modulepreload'} & {*t.get('rel', [])}: yield t['href']


def look(file):
    "What is wrong with the page itself, its ids and its links."
    soup = BeautifulSoup(file.read_text(encoding='utf-8'), 'html.parser')
    main, ids = soup.find('article'), [t['id'] for t in soup.find_all(id=True)]
    wrong = []
    if not (soup.title and soup.title.text.strip() and main and main.find('h1')): wrong.append('no title')
    if not soup.select('#pst-primary-sidebar a[href], .bd-sidebar-primary a[href]'): wrong.append('no sidebar')
    if main and 'Traceback (most recent call last)' in main.text or soup.select('.cell_output .traceback'): wrong.append('a stack trace')
    if main and any(t in main.text for t in ('#| ', '#|export', '{toctree}', '$$')): wrong.append('a directive or markup in the text')
    wrong += [f'id {i!r} twice' for i in sorted({i for i in ids if ids.count(i) > 1})]
    pictures = main.find_all('img') if main else ()
    wordless = [i.get('src') for i in pictures if re.fullmatch(r'|\S+\.\w+', i.get('alt', ''))] # nothing, or the name of a file
    wrong += [f'a picture has no text in its place: {src}' for src in wordless]
    wrong += [f'loads {u} from elsewhere' for u in loaded(soup) if outside(u)]
    links = [a['href'] for a in soup.find_all('a', href=True)] + [u for u in loaded(soup) if not outside(u) and not u.startswith('data:')]
    return wrong, {*ids}, links


def check(site):
    "Sentences on what is wrong, and the links that lead elsewhere with the pages they are on."
    pages = {p: look(p) for p in sorted(site.rglob('*.html')) if '_static' not in p.parts}
    wrong, external = [], {}
    for p, (bad, _, links) in pages.items():
        name = p.relative_to(site)
        wrong += [f'{name}: {b}' for b in bad if not (b == 'no title' and str(name) in made_by_sphinx)]
        for url in dict.fromkeys(links):
            if outside(url): external.setdefault(url, []).append(str(name)); continue
            u = urlsplit(url)
            to = (p.parent / unquote(u.path)).resolve() if u.path else p
            if to.is_dir(): to /= 'index.html'
            if not to.is_file() or site not in to.parents: wrong.append(f'{name}: link to {url}, which is not there')
            elif u.fragment and to in pages and unquote(u.fragment) not in pages[to][1]: wrong.append(f'{name}: link to {url}, where there is no such anchor')
    if not pages: wrong.append(f'{site} holds no page: run docs/build.py first')
    return wrong, external, len(pages), sum(len(p[2]) for p in pages.values())


def main(argv):
    folders = [a for a in argv if not a.startswith('--')]
    site = Path(folders[0] if folders else Path(__file__).parent.parent / '_site').resolve()
    wrong, external, n, links = check(site)
    for w in wrong: print(w)
    if '--external' in argv:
        for url, on in sorted(external.items()): print(f'{url}  ({", ".join(on)})')
    print(f'{n} pages, {links:,} links within the site, {len(external)} addresses elsewhere (not fetched), {len(wrong)} things wrong')
    return int(bool(wrong))


if __name__ == '__main__': sys.exit(main(sys.argv[1:]))
