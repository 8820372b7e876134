"""Which three strategies? Sets of them against standard fine-tuning, on images that the shipped sample does not hold.

`python bench/strategies.py` appends to `bench/strategies.jsonl` what is not there yet (about 80 s a run on two cores). It needs the full Fashion-MNIST,
Debian's `dataset-fashion-mnist`: training is on the sample's 2,000 training images, scoring on 3,000 other images of the *training* split.
"""
import json, time
from pathlib import Path

import numpy as np
from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, array_dls, sample_path
from amf_nb.data import DEBIAN_FASHION, FASHION_VOCAB, balanced_subset, read_idx

RECORDS = Path(__file__).with_suffix('.jsonl')
SETS = [['standard'], ['upper_stages', 'last_half', 'last_quarter'], ['standard', 'last_half', 'last_quarter']]


def images():
    "Training arrays of the sample, and 3,000 training images that are not in it."
    (x, y), (all_x, all_y) = [[read_idx(p / f'train-{k}-ubyte.gz') for k in ('images-idx3', 'labels-idx1')] for p in (sample_path(), DEBIAN_FASHION)]
    known = {i.tobytes() for i in x}
    rest = np.array([i for i, o in enumerate(all_x) if o.tobytes() not in known])
    rest = rest[balanced_subset(all_y[rest], 3000, 7)]
    return (x, y), (all_x[rest], all_y[rest])


def run(train, score, strategies, seed, epochs=10):
    dls = array_dls(*train, *[o[:10] for o in score], FASHION_VOCAB, seed=seed)  # ten images to validate on: nothing depends on them
    learn = amf_learner(dls, strategies=strategies, policy='trunk' if len(strategies) > 1 else None, seed=seed).remove_cbs(ProgressCallback)
    start = time.perf_counter()
    with learn.no_logging(): learn.fine_tune(epochs)
    seconds = time.perf_counter() - start
    panel = learn.control_panel(dls.test_dl([(i, FASHION_VOCAB[c]) for i, c in zip(*score)], with_labels=True))
    return dict(strategies=strategies, seed=seed, epochs=epochs, lr=learn.lr, seconds=round(seconds, 1), accuracy=panel.accuracy['policy'],
                panel=panel.round(5).to_dict('index'), policy_fit=learn.policy_fit)


if __name__ == '__main__':
    done = [(r['strategies'], r['seed']) for r in map(json.loads, RECORDS.read_text().splitlines())] if RECORDS.exists() else []
    data = images()
    for seed in range(3):
        for strategies in SETS:
            if (strategies, seed) in done: continue
            r = run(*data, strategies, seed)
            with RECORDS.open('a') as f: print(json.dumps(r), file=f)
            print(f"{100 * r['accuracy']:.2f}% in {r['seconds']} s: {', '.join(strategies)}, seed {seed}", flush=True)
