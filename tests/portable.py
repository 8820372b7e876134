"""Every notebook and test under settings that make one processor calculate like others, as records.

python tests/portable.py [SETTING ...] [--out bench/soak/portable.jsonl]
a SETTING is NAME=VALUE, or several with blanks between; none: those below

The kernels that torch and oneDNN choose differ from processor to processor, and so do the last digits of what they
compute. `PYTHONPATH=tests/rounding` changes those digits itself, by a relative 3e-7 in every layer.
Adds a line for each setting with how many notebooks and tests passed; the same setting again replaces its line."""
import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ET
from pathlib import Path

import torch

ROOT = Path(__file__).parent.parent
SETTINGS = ['ATEN_CPU_CAPABILITY=default', 'ONEDNN_MAX_CPU_ISA=AVX2', 'OMP_NUM_THREADS=1', 'OMP_NUM_THREADS=2',
            'PYTHONPATH=tests/rounding']


def notebooks(env):
    "(notebooks that passed, names of those that failed)"
    done = subprocess.run(['nbdev_test', '--n_workers', '2', '--timing'], cwd=ROOT, env=env, capture_output=True, text=True)
    said = done.stdout + done.stderr
    failed = re.findall(r'^\s*(\S+\.ipynb)\s*$', said.partition('Failed On The Following')[2], re.M)
    if done.returncode and not failed: failed = [said[-300:]]
    total = sum(not p.name.startswith(('.', '_')) for p in (ROOT / 'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
    return total - len(failed), failed


def tests(env):
    "(tests that passed, names of those that failed)"
    with tempfile.TemporaryDirectory() as tmp:
        workers = ['-n', '2', '--dist', 'worksteal']
        command = [sys.executable, '-m', 'pytest', '-q', *workers, '-p', 'no:cacheprovider', f'--junitxml={tmp}/r.xml', 'tests']
        subprocess.run(command, cwd=ROOT, env=env, capture_output=True)
        cases = [*ET.parse(f'{tmp}/r.xml').iter('testcase')]
    kind = {c: {o.tag for o in c} for c in cases}
    failed = [f'{c.get("classname")}.{c.get("name")}' for c, tags in kind.items() if tags & {'failure', 'error'}]
    return sum(not tags & {'failure', 'error', 'skipped'} for tags in kind.values()), failed


def environment(setting):
    "The variables of a process that runs under `setting`; folders of modules are looked for in the repository."
    own = dict(s.split('=', 1) for s in setting.split())
    if 'PYTHONPATH' in own: own['PYTHONPATH'] = str(ROOT / own['PYTHONPATH'])
    return os.environ | {'OMP_NUM_THREADS': '1'} | own


def record(setting):
    "What passed under `setting`."
    env, start = environment(setting), time.time()
    (nbs_ok, nbs_bad), (tests_ok, tests_bad) = notebooks(env), tests(env)
    return dict(setting=setting, machine=f'{platform.machine()}, {torch.backends.cpu.get_cpu_capability()}', notebooks=nbs_ok, tests=tests_ok,
                failed=nbs_bad + tests_bad, minutes=round((time.time() - start) / 60, 1))


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('settings', nargs='*', default=SETTINGS, metavar='NAME=VALUE')
    p.add_argument('--out', default=ROOT / 'bench/soak/portable.jsonl', type=Path)
    a, bad = p.parse_args(), 0
    for setting in a.settings:
        new = record(setting)
        bad += len(new['failed'])
        old = [json.loads(l) for l in a.out.read_text().splitlines()] if a.out.exists() else []
        lines = [*(r for r in old if r['setting'] != setting), new]
        a.out.write_text(''.join(json.dumps(r) + '\n' for r in lines))
        print(json.dumps(new), flush=True)
    return int(bad > 0)


if __name__ == '__main__': sys.exit(main())
