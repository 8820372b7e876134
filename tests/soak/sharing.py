"""Solving a probe with one process and with two, each with one thread: time, and how far apart what they find is.

    python tests/soak/sharing.py --rounds 3 --out bench/soak/sharing.json

The images are the shipped drawings, and the time is that of `fine_tune(0)`: the pass over them and the solution. Keep
the machine idle. Runs with one process and with two take turns."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ENV = dict(os.environ, OMP_NUM_THREADS='1')
SCRIPT = '''
import sys, time, torch
from fastai.callback.progress import ProgressCallback
from fastai.distributed import *
from amf_nb.core import branch_learner, clipart_dls
from amf_nb.train.devices import whole_group
from amf_nb.train.solving import Solved
with whole_group():
    learn = branch_learner(clipart_dls(seed=0), strategy='probe', seed=0).remove_cbs(ProgressCallback)
    with learn.distrib_ctx():
        start = time.perf_counter()
        reading = learn.read()
        read = time.perf_counter()
        learn.solve(reading)
        end = time.perf_counter()
torch.save(dict(read=read - start, whole=end - start, images=len(reading.targets_N), honest=learn.honest[0].softmax(1)), sys.argv[1])
'''


def solve(n, tmp):
    "What `n` processes found and how long they took."
    file = Path(tmp) / 'run.py'
    file.write_text(SCRIPT)
    launch = ['-m', 'torch.distributed.run', '--nproc_per_node', str(n)]
    subprocess.run([sys.executable, '-W', 'ignore', *launch, str(file), f'{tmp}/{n}.pt'], env=ENV, check=True, stdout=subprocess.DEVNULL)
    return torch.load(f'{tmp}/{n}.pt', weights_only=True)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--rounds', type=int, default=3)
    p.add_argument('--out', type=Path)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp: rounds = [(solve(1, tmp), solve(2, tmp)) for _ in range(a.rounds)]
    ratio = lambda name: round(statistics.median(two[name] / one[name] for one, two in rounds), 3)
    apart = max((one['honest'] - two['honest']).abs().max().item() for one, two in rounds)
    res = dict(command=f'python tests/soak/sharing.py --rounds {a.rounds}', images=rounds[0][0]['images'],
               pass_two_over_one=ratio('read'), whole_two_over_one=ratio('whole'), largest_difference=float(f'{apart:.1e}'),
               seconds=[[round(run['whole'], 2) for run in pair] for pair in rounds])
    print(json.dumps(res, indent=1))
    if a.out: a.out.write_text(json.dumps(res, indent=1) + '\n')


if __name__ == '__main__': main()
