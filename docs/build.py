"""Render the notebooks to a static site: python docs/build.py [FOLDER], by default _site.

nbdev takes out hidden cells and links names in backticks; here every public definition gets an anchor and a heading, and Sphinx does the rest.
Nothing is executed: pages show the outputs that the notebooks hold."""
import ast
import hashlib
import json
import os
import re
import shutil
import sys
import tempfile
from pathlib import Path

from docutils.nodes import make_id

root = Path(__file__).resolve().parent.parent
skipped = 'FrontmatterProc,add_show_docs,exec_show_docs,insert_warning,rm_export' # exported code stays, so there is no signature to show beside it


def prepare(tmp):
    "nbdev's processing of a copy of the notebooks, without Quarto; the folder with the result."
    shutil.copytree(root / 'nbs', tmp / 'nbs', ignore=shutil.ignore_patterns('.*', '_*'))
    text = (root / 'settings.ini').read_text(encoding='utf-8')
    (tmp / 'settings.ini').write_text(f'{text.rstrip()}\nskip_procs = {skipped}\n', encoding='utf-8')
    os.chdir(tmp)
    from nbdev.serve import proc_nbs # what `nbdev_proc_nbs` calls; the command itself would first try to install Quarto
    return proc_nbs(n_workers=0, force=True)


def page(nb): return f'{re.sub(r"^[0-9]+[a-z]?_", "", nb.stem)}.html'


def directives(source): return set(re.findall(r'^#\s*\|\s*(\w+)', source, re.M))


def definitions(tree):
    "Functions and classes of a cell; the setter of a property counts as part of it."
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        said = {k.arg for d in node.decorator_list for k in getattr(d, 'keywords', ())}
        if 'set_prop' not in said: yield node


def defined(tree):
    "Names of definitions: `name`, or `Class.name` for a patch."
    for node in definitions(tree):
        marks = {getattr(d, 'func', d).id for d in node.decorator_list if isinstance(getattr(d, 'func', d), ast.Name)}
        yield f'{node.args.args[0].annotation.id}.{node.name}' if marks & {'patch', 'patch_to'} else node.name


class Links:
    "Rewrites links between notebooks and to the documentation's address into links between pages."
    def __init__(self, host, index):
        self.host = host
        self.methods = {n.split('.')[-1]: link for syms in index['syms'].values() for full, (link, _) in syms.items()
                        if (n := full.split('.', 2)[-1]).startswith('AMFLearner.')}

    def __call__(self, text, nb):
        "`text` of the notebook `nb`, outside of fenced code."
        parts = re.split(r'(^```.*?^```)', text, flags=re.M | re.S)
        return ''.join(p if i % 2 else self._links(p, nb) for i, p in enumerate(parts))

    def _links(self, text, nb):
        up = '../' * (len(nb.parts) - 1)
        text = re.sub(r'(?<!\[)`learn\.(\w+)(\([^`]*\))?`',
                      lambda m: f'[{m[0]}]({self.host}/{self.methods[m[1]]})' if m[1] in self.methods else m[0], text)
        text = re.sub(r'\[(`[^`\n]+`)\]\(' + re.escape(self.host) + r'/([^)\s]+)\)', lambda m: f'<a href="{up}{m[2]}">{code(m[1])}</a>', text)
        return re.sub(r'\]\(([^)\s:]+\.ipynb)\)', lambda m: f']({self._file(m[1], nb)})', text)

    def _file(self, to, nb):
        target = Path(os.path.normpath(nb.parent / to))
        return os.path.relpath(target.with_name(page(target)).with_suffix('.ipynb'), nb.parent)


def public(tree): return [n for n in defined(tree) if not n.split('.')[-1].startswith('_')]


def code(text): return f'<code class="docutils literal">{text.strip("`").replace("&", "&amp;").replace("<", "&lt;")}</code>'


def md(source): return dict(cell_type='markdown', id=hashlib.sha256(source.encode()).hexdigest()[:8], metadata={}, source=source)


def output(o):
    "A stored output, with headings in Markdown as bold lines: the page's own headings are the notebook's."
    if 'text/markdown' in o.get('data', {}):
        o['data'].pop('text/html', None)
        o['data']['text/markdown'] = re.sub(r'^#+ (.*)$', r'**\1**', ''.join(o['data']['text/markdown']), flags=re.M)
    return o


def cells(nb, original, links, rel):
    "The cells of a page."
    kinds, level = {c['id']: directives(''.join(c['source'])) for c in original['cells']}, 1
    for c in nb['cells']:
        source, kind = ''.join(c['source']), kinds.get(c.get('id'), set())
        if 'default_exp' in kind: continue
        if c['cell_type'] == 'markdown':
            heads = re.findall(r'^(#+) ', re.sub(r'^```.*?^```', '', source, flags=re.M | re.S), re.M)
            level = len(heads[-1]) if heads else level
            c['source'] = links(source, rel)
        elif kind & {'export', 'exporti'}:
            tree = ast.parse(source)
            names = ', '.join(f'`{n}`' for n in public(tree)) if 'export' in kind else ''
            spots = [f'<span class="spot" id="{n.lower()}"></span>' for n in defined(tree) if make_id(names) != n.lower()] # Sphinx gives a heading its id
            if spots or names: yield md(f'{"".join(spots)}\n\n{"#" * (level + 1) + " " if names else ""}{names}')
            if all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in tree.body): c['metadata']['tags'] = ['hide-input']
        if c['cell_type'] == 'code': c['outputs'] = [output(o) for o in c['outputs']]
        yield c


def summary(notebooks):
    "A page with every public name: where it is explained, and its first line."
    lines = ['# Every name\n', 'What the library defines, chapter by chapter; `from amf_nb.core import *` gives those with a tick.\n']
    front = set(ast.literal_eval(re.search(r'__all__ = (\[.*?\])', (root / 'amf_nb/core.py').read_text(), re.S)[1]))
    for rel, nb in notebooks:
        rows = []
        for c in nb['cells']:
            source = ''.join(c['source'])
            if c['cell_type'] != 'code' or 'export' not in directives(source): continue
            tree = ast.parse(source)
            docs = {n.name: (ast.get_docstring(n) or '').split('\n')[0] for n in definitions(tree)}
            for n in public(tree):
                link = f'<a href="{page(rel)}#{n.lower()}">{code(n)}</a>'
                rows.append(f'| {link} | {"✓" if n in front else ""} | {docs[n.split(".")[-1]].replace("|", chr(92) + "|")} |')
        if rows: lines += [f'\n## {title(nb)}\n', '| name | `core` | |', '|---|---|---|', *rows]
    return '\n'.join(lines)


def title(nb): return next(m[1] for c in nb['cells'] if (m := re.search(r'^# (.+)', ''.join(c['source']), re.M)))


def toctree(caption, names): return '```{toctree}\n:hidden:\n:caption: ' + caption + '\n' + '\n'.join(names) + '\n```'


def write_sources(proc, src):
    "Notebooks for Sphinx in the folder `src`."
    sys.path.insert(0, str(root))
    from amf_nb._modidx import d
    done = sorted(p.relative_to(proc) for p in proc.rglob('*.ipynb'))
    links = Links(d['settings']['doc_host'] + d['settings']['doc_baseurl'], d)
    notebooks = [(rel, json.loads((root / 'nbs' / rel).read_text())) for rel in done]
    for rel, original in notebooks:
        nb = json.loads((proc / rel).read_text())
        nb['cells'] = [*cells(nb, original, links, rel)]
        if rel.name == 'index.ipynb':
            names = [str(r.with_name(page(r)).with_suffix('')) for r in done if r.name != 'index.ipynb']
            chapters = [n for n in names if '/' not in n]
            trees = toctree('Chapters', chapters), toctree('Tutorials', [n for n in names if '/' in n]), toctree('Reference', ['names'])
            nb['cells'] += [md(t) for t in trees]
        to = src / rel.with_name(page(rel)).with_suffix('.ipynb')
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(nb))
    (src / 'names.md').write_text(summary(notebooks))
    shutil.copytree(root / 'nbs/images', src / 'images')


def main(out=root / '_site'):
    out = Path(out).resolve()
    from sphinx.cmd.build import build_main
    with tempfile.TemporaryDirectory() as tmp:
        src, html = Path(tmp) / 'src', Path(tmp) / 'html'
        write_sources(prepare(Path(tmp)), src)
        res = build_main(['-b', 'html', '-q', '-c', str(root / 'docs'), '-d', f'{tmp}/doctrees', '-W', '--keep-going', str(src), str(html)])
        os.chdir(root)
        shutil.rmtree(out, ignore_errors=True)
        shutil.move(html, out)
    return res


if __name__ == '__main__': sys.exit(main(*sys.argv[1:2]))
