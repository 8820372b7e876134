"""The test suite under this interpreter and these versions, as a record: python tests/versions.py [--out bench/soak/versions.jsonl] [--table]

Runs pytest, and adds a line with Python, the versions of what the library stands on, and how many tests passed; the same versions again replace it.
`--table` runs nothing and prints the records as Markdown."""
import argparse
import json
import platform
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from importlib.metadata import version
from pathlib import Path

packages = ['fastai', 'fastcore', 'torch', 'torchvision', 'timm', 'numpy', 'pandas']


def run(args):
    "A record of one run of pytest with `args`."
    with tempfile.TemporaryDirectory() as tmp:
        code = subprocess.run([sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', f'--junitxml={tmp}/r.xml', *args]).returncode
        suite = next(ET.parse(f'{tmp}/r.xml').iter('testsuite')).attrib
    n = {k: int(suite[k]) for k in ('tests', 'failures', 'errors', 'skipped')}
    passed = n['tests'] - n['failures'] - n['errors'] - n['skipped']
    return dict(python=platform.python_version(), **{p: version(p) for p in packages}, tests=' '.join(args) or 'all', passed=passed,
                failed=n['failures'] + n['errors'], skipped=n['skipped'], minutes=round(float(suite['time']) / 60, 1)), code


def table(records):
    cols = ['python', *packages, 'passed', 'failed', 'skipped']
    lines = [cols, ['---'] * len(cols), *([str(r[c]) for c in cols] for r in records)]
    return '\n'.join(f'| {" | ".join(l)} |' for l in lines)


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--out', default='bench/soak/versions.jsonl', type=Path)
    p.add_argument('--table', action='store_true')
    a, rest = p.parse_known_args() # the rest is for pytest
    records = [json.loads(l) for l in a.out.read_text().splitlines()] if a.out.exists() else []
    if a.table:
        print(table(records))
        return 0
    new, code = run(rest)
    others = [r for r in records if any(r[k] != new[k] for k in ('python', 'tests', *packages))]
    records = sorted([*others, new], key=lambda r: [[int(i) for i in r[k].split('.')] for k in ('python', 'fastai')])
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(''.join(json.dumps(r) + '\n' for r in records))
    print(table([new]))
    return code


if __name__ == '__main__': sys.exit(main())
