"""Five seeds of AMF against standard fine-tuning on the shipped sample: accuracy, time, memory.

`make bench` runs it; it takes about half an hour on two cores and goes on where it was interrupted.
Each run is one line of `bench/foundation.jsonl`. Both methods get the same images, size, augmentation, head, epochs and learning rate;
they alternate in one process for the times, and each has a process of its own for peak memory. The 1,000 test images are scored once, after training.
"""
import argparse, json, resource, subprocess, sys, time
from importlib.metadata import version
from pathlib import Path

import torch
from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, sample_dls, standard_learner

RECORDS = Path(__file__).with_suffix('.jsonl')
MAKE = dict(amf=amf_learner, standard=standard_learner)


def train(method, seed, epochs):
    "Train one learner, validating on ten images only so that the time is that of training; returns it and the seconds."
    learn = MAKE[method](sample_dls(seed=seed, n_valid=10), seed=seed).remove_cbs(ProgressCallback)
    start = time.perf_counter()
    with learn.no_logging(): learn.fine_tune(epochs)
    return learn, time.perf_counter() - start


def record(method, seed, epochs):
    "One run as a record: the control panel on all 1,000 test images, looked at once, and the time."
    learn, seconds = train(method, seed, epochs)
    panel = learn.control_panel(learn.dls.test_dl(sample_dls().valid_ds.items, with_labels=True))
    return dict(method=method, seed=seed, epochs=epochs, lr=learn.lr, seconds=round(seconds, 2), panel=panel.round(5).to_dict('index'),
                policy_fit=learn.policy_fit, threads=torch.get_num_threads(), versions={p: version(p) for p in ('amf_nb', 'torch', 'timm', 'fastai')})


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--epochs', type=int, default=10)
    p.add_argument('--seeds', type=int, default=5)
    p.add_argument('--memory', choices=MAKE, help='only train this method for one epoch and print the peak memory of the process in MB')
    a = p.parse_args()
    if a.memory:
        train(a.memory, 0, 1)
        return print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
    done = {(r.get('method'), r.get('seed')) for r in map(json.loads, RECORDS.read_text().splitlines())} if RECORDS.exists() else set()
    with RECORDS.open('a') as out:
        for method in MAKE:
            if (method, None) not in done:
                mb = int(subprocess.run([sys.executable, __file__, '--memory', method], check=True, capture_output=True, text=True).stdout.split()[-1])
                print(json.dumps(dict(method=method, peak_memory_mb=mb)), file=out, flush=True)
        for seed in range(a.seeds):
            for method in list(MAKE)[::-1 if seed % 2 else 1]:
                if (method, seed) in done: continue
                r = record(method, seed, a.epochs)
                print(json.dumps(r), file=out, flush=True)
                print(f'{method} seed {seed}: {100 * r["panel"]["policy"]["accuracy"]:.1f}% in {r["seconds"]:.0f} s', flush=True)


if __name__ == '__main__': main()
