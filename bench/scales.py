"""What should a probe look at? Images enlarged by several factors, their mirror images, and several sizes at once.

`python bench/scales.py --sets ~/sets` appends to `bench/scales.jsonl` what is not there yet: accuracy and likelihood of
heads solved on the frozen network's features, scored on a fixed fifth of the *training* images; `--sets` is as for
`bench/kinds.py`, and test images stay closed. The network reads every image once for each factor and side; heads are then
solved on all images and on random draws of 100, 300 and 1,000. Half an hour on one core.
"""
import argparse, json
from pathlib import Path

import numpy as np, torch
from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, create_backbone
from amf_nb.method.folding import folded
from amf_nb.method.fusion import nll
from amf_nb.method.probes import Depths, copies_of, solve_probe
from kinds import SETS, development_set

RECORDS = Path(__file__).with_suffix('.jsonl')
SCALES = (1, 1.5, 2, 2.5)
LOOKS = [*((scale,) for scale in SCALES), (1, 1.5), (1.5, 2), (1, 2)] # features of several sizes stand side by side
MIRRORED = [(1.5,), (2,), (2.5,), (1, 1.5, 2), (1.5, 2.5)]            # mean of an image and its mirror image
DRAWS = [(None, 0), *((100, seed) for seed in range(4)), *((300, seed) for seed in range(3)), (1000, 0)]


def readers():
    "For each factor a frozen network that reads images enlarged by it."
    backbone = create_backbone('tf_efficientnet_lite0').eval().to(memory_format=torch.channels_last)
    images = torch.zeros(2, 3, 64, 64).contiguous(memory_format=torch.channels_last)
    return {scale: folded(Depths(backbone.stages, scale), images) for scale in SCALES}


@torch.no_grad()
def read(dl, networks):
    "(factor, mirrored) to features (N, F), and the class numbers (N,)."
    rows, targets = {(scale, flip): [] for scale in networks for flip in (False, True)}, []
    for xb, yb in dl:
        images = xb.as_subclass(torch.Tensor).contiguous(memory_format=torch.channels_last)
        targets.append(yb.as_subclass(torch.Tensor))
        for (scale, flip), seen in rows.items(): seen.append(networks[scale](images.flip(3) if flip else images))
    return {k: torch.cat(seen) for k, seen in rows.items()}, torch.cat(targets)


def looks(features):
    "Name to features (N, F): each of `LOOKS`, and of `MIRRORED`."
    def joined(scales, of): return torch.cat([of(scale) for scale in scales], 1)
    def plain(scale): return features[scale, False]
    def both(scale): return (features[scale, False] + features[scale, True]) / 2
    name = lambda scales: ' + '.join(map(str, scales))
    return {**{name(s): joined(s, plain) for s in LOOKS}, **{f'{name(s)}, mirrored': joined(s, both) for s in MIRRORED}}


def runs(data_name, folder, networks):
    "Yields a record for each draw of training images."
    data = development_set(data_name, 0, None, folder)
    learn = amf_learner(data.dls, strategies='probe', seed=0).remove_cbs(ProgressCallback)
    (train, y), (test, test_y) = read(learn.in_order(), networks), read(data.test_dl(learn), networks)
    train, test = looks(train), looks(test)
    groups = copies_of(train['1.5'])
    for n, seed in DRAWS:
        if n and n > 0.9 * len(y): continue
        rows = np.arange(len(y)) if n is None else np.sort(np.random.default_rng(seed).permutation(len(y))[:n])
        said = {}
        for name, features_N_F in train.items():
            fit = solve_probe(features_N_F[rows], y[rows], len(data.dls.vocab), groups_N=groups[rows])
            logits_N_C = test[name] @ fit.weight_C_F.T + fit.bias_C
            right = (logits_N_C.argmax(1) == test_y).double().mean().item()
            said[name] = [round(right, 5), round(nll(logits_N_C, test_y).item(), 5)]
        yield dict(data=data_name, images=len(rows), whole=n is None, seed=seed, scored=len(test_y), looks=said)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--sets', help='folder with the unpacked sets')
    p.add_argument('--data', nargs='+', default=[*SETS])
    a = p.parse_args()
    known = {json.loads(line)['data'] for line in RECORDS.read_text().splitlines()} if RECORDS.exists() else set()
    for data_name in a.data:
        if data_name in known: continue
        records = [*runs(data_name, a.sets, readers())]
        with open(RECORDS, 'a') as f: f.writelines(json.dumps(record) + '\n' for record in records)
        print(data_name, records[0]['looks'], flush=True)
