"""What training gains when the process keeps freed memory: time, page faults and peak memory, each in a process of its own.

python bench/memory.py [--rounds 3] [--out bench/memory.jsonl]

The usual way and the kept one take turns. The table is in the chapter on memory."""
import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd

CASES = [('standard', 64, 500), ('default', 64, 500), ('standard', 224, 100), ('default', 224, 100)]

PROGRAM = """
import json, resource, sys, time, warnings
warnings.simplefilter('ignore')
import amf_nb
from amf_nb.core import amf_learner
from amf_nb.data.clipart import clipart_dls
from amf_nb.train import side_by_side
kept, strategies, size, n = json.loads(sys.argv[1])
if not kept: side_by_side.keep_freed_memory = lambda: None
dls = clipart_dls(size=size, n_train=n, n_valid=50, seed=0)
learn = amf_learner(dls, strategies=None if strategies == 'default' else [strategies], seed=0)
usage = lambda: resource.getrusage(resource.RUSAGE_SELF)
before, start = usage(), time.perf_counter()
with learn.no_bar(), learn.no_logging(): learn.fine_tune(2)
seconds, after = time.perf_counter() - start, usage()
print(json.dumps(dict(seconds=seconds, system_seconds=after.ru_stime - before.ru_stime,
                      faults=after.ru_minflt - before.ru_minflt, peak_gb=after.ru_maxrss / 2**20)))
"""


def measured(kept, *case):
    "What `PROGRAM` says of one fit in a fresh process."
    command = [sys.executable, '-c', PROGRAM, json.dumps([kept, *case])]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=tempfile.gettempdir())
    said = json.loads(done.stdout.splitlines()[-1])
    return dict(kept=kept, **dict(zip(('strategies', 'size', 'images'), case))) | said


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--out', type=Path, default=Path(__file__).with_suffix('.jsonl'))
    a = p.parse_args()
    records = [measured(kept, *case) for _ in range(a.rounds) for case in CASES for kept in (False, True)]
    threads = os.environ.get('OMP_NUM_THREADS', os.cpu_count())
    a.out.write_text(''.join(json.dumps(dict(r, threads=int(threads))) + '\n' for r in records))
    print(pd.DataFrame(records).groupby(['strategies', 'size', 'kept']).median().to_string())


if __name__ == '__main__': main()
