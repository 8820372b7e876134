"""Render the notebooks to a static site: python docs/build.py [FOLDER], by default _site.

nbdev takes out hidden cells and links names in backticks. Here every public definition gets an anchor and a heading, links between notebooks
become links between pages, and the sidebar lists the pages by wing. Sphinx does the rest. Nothing is executed: pages show the outputs that the
notebooks hold. `prepare` needs nbdev, `cells` docutils and `main` Sphinx; the rest is plain Python, so that a test can call it."""
import ast
import hashlib
import json
import os
import re
import runpy
import shutil
import sys
import tempfile
from pathlib import Path

root = Path(__file__).resolve().parent.parent
skipped = 'FrontmatterProc,add_show_docs,exec_show_docs,insert_warning,rm_export' # exported code stays, so there is no signature to show beside it
numbers = re.compile(r'^[0-9]+[a-z]?_')
sections = { # captions in the sidebar: folders of nbs/, and the chapters on top of it by their first digit
    'tutorials': 'Tutorials', '0': 'Foundations', 'method': 'Method', 'data': 'Data', 'train': 'Training', 'use': 'Using a model',
    'study': 'Comparing methods', '9': 'Commands and test helpers'}


def prepare(tmp):
    "nbdev's processing of a copy of the notebooks, without Quarto; the folder with the result."
    shutil.copytree(root / 'nbs', tmp / 'nbs', ignore=shutil.ignore_patterns('.*', '_*'))
    text = (root / 'settings.ini').read_text(encoding='utf-8')
    (tmp / 'settings.ini').write_text(f'{text.rstrip()}\nskip_procs = {skipped}\n', encoding='utf-8')
    os.chdir(tmp)
    from nbdev.serve import proc_nbs # what `nbdev_proc_nbs` calls; the command itself would first try to install Quarto
    return proc_nbs(n_workers=0, force=True)


def page(nb): return nb.with_name(f'{numbers.sub("", nb.stem)}.html')


def source(nb): return page(nb).with_suffix('.ipynb')


def chapters(names, front):
    """By caption, the notebooks `names` (relative to nbs/) in reading order; the front page is in none of them.

    Numbers give the order inside a folder. Tutorials have none: they come in the order in which the table at the end of the front
    page, whose text is `front`, links them."""
    by_caption = {caption: [] for caption in sections.values()}
    for nb in names:
        if nb.name != 'index.ipynb': by_caption[sections[nb.parts[0] if len(nb.parts) > 1 else nb.name[0]]].append(nb)
    return {caption: sorted(found, key=lambda nb: (front.rfind(f'({nb.as_posix()})') if not numbers.match(nb.name) else 0, nb.name))
            for caption, found in by_caption.items()}


def directives(source): return set(re.findall(r'^#\s*\|\s*(\w+)', source, re.M))


def definitions(tree):
    "Functions and classes of a cell; the setter of a property counts as part of it."
    for node in tree.body:
        if not isinstance(node, (ast.FunctionDef, ast.ClassDef)): continue
        said = {k.arg for d in node.decorator_list for k in getattr(d, 'keywords', ())}
        if 'set_prop' not in said: yield node


def classes(node):
    "Names of the classes that the function or class `node` is patched into: one, or several as in `self:(ByWeight, Cascade)`."
    marks = {f.id: d for d in node.decorator_list if isinstance(f := getattr(d, 'func', d), ast.Name)}
    if 'patch' in marks: cls = node.args.args[0].annotation
    elif 'patch_to' in marks: cls = marks['patch_to'].args[0]
    else: return []
    return re.findall(r'[\w.]+', ast.unparse(cls))


def defined(tree):
    "Pairs of a name and its definition: `name`, or `Class.name` for each class of a patch."
    for node in definitions(tree):
        for name in [f'{cls}.{node.name}' for cls in classes(node)] or [node.name]: yield name, node


def anchors(tree):
    "Ids that the definitions of a cell have on a page, methods in the body of a class included; nbdev links to them."
    names = [(name, node) for name, node in defined(tree)]
    names += [(f'{name}.{m.name}', m) for name, node in names if isinstance(node, ast.ClassDef) for m in node.body if isinstance(m, ast.FunctionDef)]
    return list(dict.fromkeys(name.lower() for name, _ in names))


class Links:
    "Rewrites links between notebooks and to the documentation's address into links between pages."
    def __init__(self, index):
        self.host = index['settings']['doc_host'] + index['settings']['doc_baseurl']
        names = {name.removeprefix(f'{module}.'): link for module, syms in index['syms'].items() for name, (link, _) in syms.items()}
        self.methods = {name.split('.')[1]: link for name, link in names.items() if name.startswith(('SideBySideLearner.', 'AMFLearner.'))}

    def __call__(self, text, nb):
        "`text` of the notebook `nb`, outside of fenced code."
        parts = re.split(r'(^```.*?^```)', text, flags=re.M | re.S)
        return ''.join(p if i % 2 else self._links(p, nb) for i, p in enumerate(parts))

    def _links(self, text, nb):
        up = '../' * (len(nb.parts) - 1)
        text = re.sub(r'(?<!\[)`learn\.(\w+)(\([^`]*\))?`',
                      lambda m: f'[{m[0]}]({self.host}/{self.methods[m[1]]})' if m[1] in self.methods else m[0], text)
        text = re.sub(r'\[(`[^`\n]+`)\]\(' + re.escape(self.host) + r'/([^)\s]+)\)', lambda m: f'<a href="{up}{m[2]}">{code(m[1])}</a>', text)
        return re.sub(r'\]\(([^)\s:#]+\.(?:ipynb|md))', lambda m: f']({self._file(m[1], nb)}', text)

    def _file(self, to, nb):
        "The file that Sphinx reads for `to`; what stands beside nbs/ is on top of the site."
        target = Path(os.path.normpath(nb.parent / to).removeprefix('../'))
        target = source(target) if target.suffix == '.ipynb' else target.with_name(target.name.lower())
        return Path(os.path.relpath(target, nb.parent)).as_posix()


def public(tree): return [(n, node) for n, node in defined(tree) if not n.split('.')[-1].startswith('_')]


def code(text):
    "`text` as HTML of code, in which nothing is Markdown."
    return f'<code class="docutils literal">{re.sub("[&<*_]", lambda m: f"&#{ord(m[0])};", text.strip("`"))}</code>'


def md(source): return dict(cell_type='markdown', id=hashlib.sha256(source.encode()).hexdigest()[:8], metadata={}, source=source)


def output(o):
    "A stored output, with headings in Markdown as bold lines: the page's own headings are the notebook's."
    if 'text/markdown' in o.get('data', {}):
        o['data'].pop('text/html', None)
        o['data']['text/markdown'] = re.sub(r'^#+ (.*)$', r'**\1**', ''.join(o['data']['text/markdown']), flags=re.M)
    return o


def cells(nb, original, links, rel):
    "The cells of a page."
    from docutils.nodes import make_id
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
            names = ', '.join(f'`{n}`' for n, _ in public(tree)) if 'export' in kind else ''
            own = make_id(names) # the id that Sphinx gives the heading
            spots = [f'<span class="spot" id="{i}"></span>' for i in anchors(tree) if i != own]
            if spots or names: yield md(f'{"".join(spots)}\n\n{"#" * (level + 1) + " " if names else ""}{names}')
            if all(isinstance(n, (ast.Import, ast.ImportFrom)) for n in tree.body): c['metadata']['tags'] = ['hide-input']
        elif re.search(r'^#\s*\|\s*echo:\s*false', source, re.M): c['metadata']['tags'] = ['remove-input']
        if c['cell_type'] == 'code':
            c['outputs'] = [output(o) for o in c['outputs']]
            c['metadata']['mystnb'] = dict(image=dict(alt='What the code above draws')) # else the name of a file
        yield c


def rows(rel, nb, front):
    "Rows of a table of the public names of the notebook `rel`, with a tick for those in `front`."
    for c in nb['cells']:
        text = ''.join(c['source'])
        if c['cell_type'] != 'code' or 'export' not in directives(text): continue
        for name, node in public(ast.parse(text)):
            first = ' '.join((ast.get_docstring(node) or '').split('\n\n')[0].split()).replace('|', '\\|')
            yield f'| <a href="{page(rel).as_posix()}#{name.lower()}">{code(name)}</a> | {"✓" if name in front else ""} | {first} |'


def summary(notebooks, order):
    "A page with every public name, section by section: where it is explained, and how its docstring begins."
    lines = ['# Every name\n', 'What the library defines, chapter by chapter; `from amf_nb.core import *` gives those with a tick.\n']
    front = set(ast.literal_eval(re.search(r'__all__ = (\[.*?\])', (root / 'amf_nb/core.py').read_text(encoding='utf-8'), re.S)[1]))
    for caption, chapter in order.items():
        tables = {title(notebooks[rel]): table for rel in chapter if (table := [*rows(rel, notebooks[rel], front)])}
        if tables: lines.append(f'\n## {caption}\n')
        for name, table in tables.items(): lines += [f'\n### {name}\n', '| name | `core` | what it is or does |', '|---|---|---|', *table]
    return '\n'.join(lines)


def title(nb): return next(m[1] for c in nb['cells'] if (m := re.search(r'^# (.+)', ''.join(c['source']), re.M)) and c['cell_type'] == 'markdown')


def toctree(caption, names): return '```{toctree}\n:hidden:\n:caption: ' + caption + '\n' + '\n'.join(names) + '\n```'


def sidebar(order):
    "Lists of pages for the sidebar, as Markdown."
    trees = [toctree(caption, [source(nb).with_suffix('').as_posix() for nb in found]) for caption, found in order.items()]
    return [*trees, toctree('Reference', ['names', 'contributing'])]


def read_index():
    "nbdev's index of definitions, read without importing the library."
    return runpy.run_path(str(root / 'amf_nb/_modidx.py'))['d']


def read_notebooks():
    "The notebooks by their path in nbs/."
    files = [f for f in sorted((root / 'nbs').rglob('*.ipynb')) if not any(part.startswith(('.', '_')) for part in f.relative_to(root / 'nbs').parts)]
    return {f.relative_to(root / 'nbs'): json.loads(f.read_text(encoding='utf-8')) for f in files}


def write_sources(proc, src):
    "Notebooks for Sphinx in the folder `src`, from those that nbdev has processed in `proc`."
    notebooks, links = read_notebooks(), Links(read_index())
    order = chapters(notebooks, json.dumps(notebooks[Path('index.ipynb')]))
    for rel, original in notebooks.items():
        nb = json.loads((proc / rel).read_text(encoding='utf-8'))
        nb['cells'] = [*cells(nb, original, links, rel)]
        if rel.name == 'index.ipynb': nb['cells'] += map(md, sidebar(order))
        to = src / source(rel)
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(json.dumps(nb), encoding='utf-8')
    (src / 'names.md').write_text(summary(notebooks, order), encoding='utf-8')
    (src / 'contributing.md').write_text(contributing(links), encoding='utf-8')
    shutil.copytree(root / 'nbs/images', src / 'images')


def contributing(links):
    "CONTRIBUTING.md as a page."
    return links((root / 'CONTRIBUTING.md').read_text(encoding='utf-8').replace('](nbs/', ']('), Path('contributing.md'))


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
