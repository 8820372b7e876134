"""How large should a probe see an image? One size or two, for images that come as 32, 64 and 128 pixels.

`python bench/sizes.py --sets ~/sets` appends to `bench/sizes.jsonl` what is not there yet: accuracy and likelihood of
heads that are solved on the frozen network's features, scored on a fixed fifth of the *training* images; `--sets` is as
for `bench/kinds.py`, and test images stay closed. The network reads every image once at each side; heads are then solved
on all images and on random draws of 100 and 300. Half an hour on two cores.
"""
import argparse, json, time
from pathlib import Path

import numpy as np, torch
from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, create_backbone
from amf_nb.method.folding import folded
from amf_nb.method.fusion import nll
from amf_nb.method.probes import Depths, copies_of, solve_probe
from kinds import SETS, development_set

RECORDS = Path(__file__).with_suffix('.jsonl')
COMES = {32: [*SETS], 64: [*SETS], 128: ['clipart', 'icons', 'dtd10']}                # pixels; the others are smaller than 128
SIDES = {32: (32, 48, 64, 80, 96, 112, 128, 160), 64: (48, 56, 64, 80, 96, 112, 128, 160, 192), 128: (64, 80, 128, 160, 192)}
PAIRS = [(48, 96), (56, 112), (64, 96), (64, 128), (80, 160), (64, 160), (96, 192), (64, 192), (128, 192)]
MIRRORED = [(64, 128)]                                                          # mean of an image and its mirror image
DRAWS = [(None, 0), (100, 0), (100, 1), (300, 0), (300, 1)]


def readers(comes):
    "For each side in pixels a frozen network that reads images enlarged to it."
    backbone = create_backbone('tf_efficientnet_lite0').eval().to(memory_format=torch.channels_last)
    images = torch.zeros(2, 3, comes, comes).contiguous(memory_format=torch.channels_last)
    return {side: folded(Depths(backbone.stages, side / comes), images) for side in SIDES[comes]}


@torch.no_grad()
def read(dl, networks):
    "(side, mirrored) to features (N, F), the class numbers (N,), and seconds by side."
    flips = {side: (False, True) if any(side in look for look in MIRRORED) else (False,) for side in networks}
    rows, targets, seconds = {(side, flip): [] for side in networks for flip in flips[side]}, [], dict.fromkeys(networks, 0)
    for xb, yb in dl:
        images = xb.as_subclass(torch.Tensor).contiguous(memory_format=torch.channels_last)
        targets.append(yb.as_subclass(torch.Tensor))
        for (side, flip), seen in rows.items():
            start = time.process_time()
            seen.append(networks[side](images.flip(3) if flip else images))
            if not flip: seconds[side] += time.process_time() - start
    return {k: torch.cat(seen) for k, seen in rows.items()}, torch.cat(targets), seconds


def looks(features):
    "Name to features (N, F): each side alone, the pairs that there are, and mirrored ones."
    sides = {side for side, _ in features}
    pairs = [pair for pair in PAIRS if sides.issuperset(pair)]
    name = lambda look: ' + '.join(map(str, look))
    plain = {name(look): torch.cat([features[side, False] for side in look], 1) for look in [*((s,) for s in sorted(sides)), *pairs]}
    mean = lambda side: (features[side, False] + features[side, True]) / 2
    return {**plain, **{f'{name(look)}, mirrored': torch.cat([*map(mean, look)], 1) for look in MIRRORED if sides.issuperset(look)}}


def runs(name, comes, folder):
    "Yields a record for each draw of training images."
    data = development_set(name, 0, None, folder, size=comes)
    learn = amf_learner(data.dls, strategies='probe', seed=0).remove_cbs(ProgressCallback)
    networks = readers(comes)
    (train, y, seconds), (test, test_y, _) = read(learn.in_order(), networks), read(data.test_dl(learn), networks)
    groups = copies_of(train[min(networks, key=lambda side: abs(side - 96)), False])
    train, test = looks(train), looks(test)
    for n, seed in DRAWS:
        if n and n > 0.9 * len(y): continue
        rows = np.arange(len(y)) if n is None else np.sort(np.random.default_rng(seed).permutation(len(y))[:n])
        said = {}
        for look, features_N_F in train.items():
            fit = solve_probe(features_N_F[rows], y[rows], len(data.dls.vocab), groups_N=groups[rows])
            logits_N_C = test[look] @ fit.weight_C_F.T + fit.bias_C
            right = (logits_N_C.argmax(1) == test_y).double().mean().item()
            said[look] = [round(right, 5), round(nll(logits_N_C, test_y).item(), 5)]
        ms = {str(side): round(1000 * s / len(y), 2) for side, s in seconds.items()}
        yield dict(data=name, comes=comes, images=len(rows), seed=seed, whole=n is None, scored=len(test_y), ms=ms, looks=said)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--sets', help='folder with the unpacked sets')
    p.add_argument('--comes', type=int, nargs='+', default=[*COMES], help='sides of the images, pixels')
    p.add_argument('--data', nargs='+', default=[*SETS])
    a = p.parse_args()
    known = {(r['data'], r['comes']) for r in map(json.loads, RECORDS.read_text().splitlines())} if RECORDS.exists() else set()
    for comes in a.comes:
        for name in COMES[comes]:
            if (name, comes) in known or name not in a.data: continue
            records = [*runs(name, comes, a.sets)]
            with open(RECORDS, 'a') as f: f.writelines(json.dumps(record) + '\n' for record in records)
            print(name, comes, records[0]['looks'], flush=True)
