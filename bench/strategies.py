"""Which three strategies? Every built-in one trained side by side, then every set of them fused, on images that the shipped sample does not hold.

`python bench/strategies.py` appends to `bench/strategies.jsonl` the seeds that are not there yet (about five minutes a seed on two cores). It needs the
full Fashion-MNIST, Debian's `dataset-fashion-mnist`: training is on the sample's 2,000 training images, scoring on 3,000 other images of the *training*
split. Branches do not influence each other while they train, so one run holds every set; it is fused by the plain average, and no policy takes part.
"""
import argparse, json, time
from itertools import combinations
from pathlib import Path

import numpy as np, torch
from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, array_dls, list_strategies, sample_path
from amf_nb.data.loaders import DEBIAN_FASHION, FASHION_VOCAB, balanced_subset, read_idx
from amf_nb.method.fusion import nll

RECORDS = Path(__file__).with_suffix('.jsonl')


def images():
    "Training arrays of the sample, and 3,000 training images that are not in it."
    (x, y), (all_x, all_y) = [[read_idx(p / f'train-{k}-ubyte.gz') for k in ('images-idx3', 'labels-idx1')] for p in (sample_path(), DEBIAN_FASHION)]
    known = {i.tobytes() for i in x}
    rest = np.array([i for i, o in enumerate(all_x) if o.tobytes() not in known])
    rest = rest[balanced_subset(all_y[rest], 3000, 7)]
    return (x, y), (all_x[rest], all_y[rest])


def run(train, score, names, seed, epochs=10):
    "Train one branch a name; accuracy and likelihood of each set of one to three."
    dls = array_dls(*train, *[o[:10] for o in score], FASHION_VOCAB, seed=seed)  # ten images to validate on: nothing depends on them
    learn = amf_learner(dls, strategies=names, policy=None, seed=seed).remove_cbs(ProgressCallback)
    start = time.perf_counter()
    with learn.no_logging(): learn.fine_tune(epochs)
    seconds = time.perf_counter() - start
    z, y = learn.branch_logits(dls.test_dl([(i, FASHION_VOCAB[c]) for i, c in zip(*score)], with_labels=True))
    log_p = z.log_softmax(-1)
    fused = {c: log_p[:, list(c)].mean(1).log_softmax(-1) for r in (1, 2, 3) for c in combinations(range(len(names)), r)}
    score = lambda p: (round((p.argmax(1) == y).double().mean().item(), 5), round(nll(p, y).item(), 5))
    return dict(seed=seed, epochs=epochs, lr=learn.lr, seconds=round(seconds, 1), threads=torch.get_num_threads(),
                sets=[[[names[i] for i in c], *score(p)] for c, p in fused.items()])


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    a = p.parse_args()
    done = [json.loads(l)['seed'] for l in RECORDS.read_text().splitlines()] if RECORDS.exists() else []
    data = images()
    for seed in a.seeds:
        if seed in done: continue
        r = run(*data, list_strategies(), seed)
        with RECORDS.open('a') as f: print(json.dumps(r), file=f)
        print(f"seed {seed}, {r['seconds']} s", *sorted(r['sets'], key=lambda s: -s[1])[:5], sep='\n', flush=True)
