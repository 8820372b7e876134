"""What AMF costs: training time and peak memory against standard fine-tuning, on the shipped sample.

`python bench/cost.py` rewrites `bench/cost.json` (about five minutes on two cores that do nothing else). Times alternate in one process and count
training alone; each method has a process of its own for its peak memory. Epochs in which images are lent to the policy are part of it.
"""
import argparse, json, resource, statistics, subprocess, sys, time
from pathlib import Path

import torch
from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, sample_dls, standard_learner

RECORD, MAKE = Path(__file__).with_suffix('.json'), dict(amf=amf_learner, standard=standard_learner)


def train(method, seed, epochs=2):
    "Seconds that training takes, validating on ten images only."
    learn = MAKE[method](sample_dls(seed=seed, n_valid=10), seed=seed).remove_cbs(ProgressCallback)
    start = time.perf_counter()
    with learn.no_logging(): learn.fine_tune(epochs)
    return time.perf_counter() - start


def memory(method):
    "Peak memory in MB of a process that trains `method` for an epoch."
    return int(subprocess.run([sys.executable, __file__, '--memory', method], check=True, capture_output=True, text=True).stdout.split()[-1])


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--pairs', type=int, default=7)
    p.add_argument('--memory', choices=MAKE, help='only train this method for an epoch and print the peak memory of the process in MB')
    a = p.parse_args()
    if a.memory:
        train(a.memory, 0, 1)
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    else:
        mb = {m: memory(m) for m in MAKE}
        seconds = [{m: round(train(m, s), 2) for m in list(MAKE)[::1 if s % 2 else -1]} for s in range(a.pairs)]
        ratios = [s['amf'] / s['standard'] for s in seconds]
        res = dict(time_ratio=round(statistics.median(ratios), 3), lowest=round(min(ratios), 3), highest=round(max(ratios), 3), epochs=2, seconds=seconds,
                   memory_mb=mb, memory_ratio=round(mb['amf'] / mb['standard'], 3), threads=torch.get_num_threads(), torch=torch.__version__)
        RECORD.write_text(json.dumps(res, indent=1) + '\n')
        print(f"time {res['time_ratio']} ({res['lowest']} to {res['highest']}), memory {res['memory_ratio']}")
