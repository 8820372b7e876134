"""README.md from nbs/index.ipynb: `make readme`. Cells that start with `#| hide` are left out, and of cells that start
with `#| echo: false` only what they show stays."""
import re
from pathlib import Path

import nbformat
from nbconvert import MarkdownExporter

ROOT = Path(__file__).parent.parent


def shown(cell):
    "The Markdown that `cell` shows, as a cell."
    return nbformat.v4.new_markdown_cell('\n\n'.join(o['data']['text/markdown'] for o in cell.outputs))


def readme():
    "The text of README.md."
    nb = nbformat.read(ROOT / 'nbs/index.ipynb', as_version=4)
    nb.cells = [c for c in nb.cells if not c.source.startswith('#| hide')]
    nb.cells = [shown(c) if c.source.startswith('#| echo: false') else c for c in nb.cells]
    nb.metadata['language_info'] = dict(name='python')
    exporter = MarkdownExporter()
    for cell in nb.cells:
        for o in cell.get('outputs', []): o.get('data', {}).pop('text/html', None)
    text = exporter.from_notebook_node(nb)[0].strip() + '\n'
    text = re.sub(r'\n{3,}', '\n\n', text.replace('](../', ']('))
    return re.sub(r'\]\(((?:\w+/)?\w+\.ipynb|images/\w+\.png)\)', r'](nbs/\1)', text)


if __name__ == '__main__': (ROOT / 'README.md').write_text(readme())
