"Sphinx for the site: myst-nb shows the stored outputs, equations become MathML, nothing is loaded from elsewhere."
import re
from configparser import ConfigParser
from pathlib import Path

from latex2mathml.converter import convert

cfg = ConfigParser(delimiters=['='])
cfg.read(Path(__file__).parent.parent / 'settings.ini', encoding='utf-8')
cfg = cfg['DEFAULT']

project, author, copyright, release = cfg['title'], cfg['author'], cfg['copyright'], cfg['version']
extensions = ['myst_nb']
nb_execution_mode = 'off'
nb_code_prompt_show = 'Imports' # only cells with imports are folded
nb_code_prompt_hide = 'Imports'
nb_render_markdown_format = 'gfm'
myst_enable_extensions = ['dollarmath']
smartquotes = False # quotes in code that is a link would be made typographic, too
suppress_warnings = ['myst.header']
html_theme = 'sphinx_book_theme'
html_title = project
html_static_path = ['_static']
html_css_files = ['site.css']
html_math_renderer = 'mathml'
html_copy_source = html_show_sphinx = False
html_theme_options = dict(use_download_button=False, use_fullscreen_button=False, show_toc_level=2, show_navbar_depth=1, home_page_in_toc=True,
                          navbar_start=[], navbar_center=[], navbar_end=[], navbar_persistent=[],
                          pygments_light_style='a11y-high-contrast-light', pygments_dark_style='a11y-high-contrast-dark')


def math(self, node):
    "An equation as MathML, which browsers draw without help."
    from docutils.nodes import SkipNode
    block = node.tagname == 'math_block'
    tex = re.sub(r'\\(log|exp|max|min)\s+(?=\w)', r'\\\1\\,', node.astext()) # the converter leaves no space after the name of a function
    mathml = convert(tex, display='block' if block else 'inline')
    self.body.append(f'<div class="math">{mathml}</div>' if block else mathml)
    raise SkipNode


def setup(app): app.add_html_math_renderer('mathml', (math, None), (math, None))
