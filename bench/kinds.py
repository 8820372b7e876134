"""Which kinds of branches? All of them trained side by side on development sets, then every set of up to three fused.

`python bench/kinds.py --sets ~/sets` appends to `bench/kinds.jsonl` what is not there yet. `--sets` is the folder with
the paper's sets, unpacked (`aircraft/`, `dtd10/`); clip art, icons and Fashion-MNIST are Debian packages, whose names
the error says if one is missing. Scored is a fixed fifth of the *training* images; test images stay closed. Branches do
not influence each other while they train, so one run holds every set of them. Weights are fitted as `fine_tune` fits
them: on held-out images, to the networks at the end of their training.
"""
import argparse, json, time
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import numpy as np, torch
from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, get_strategy
from amf_nb.method.controls import calibration_error
from amf_nb.method.fusion import believed_first, fit_static, fuse, nll
from amf_nb.study.testbeds import DATA_SETS

RECORDS = Path(__file__).with_suffix('.jsonl')
SCALES = dict(unscaled=1., probe_96=96 / 64, probe_160=160 / 64) # sets of 64 pixels to the side in their names
PROBES = ['probe', *(replace(get_strategy('probe'), name=name, side=0, scale=scale) for name, scale in SCALES.items())]
KINDS = ['standard', 'reduced', 'upper_stages', 'last_half', 'last_eighth', 'gentle', 'gentle_half', *PROBES]
SETS = {'clipart': 6, 'icons': 6, 'dtd10': 6, 'fashion-3k': 6, 'aircraft-small': 10}  # epochs


def scores(fused_N_C, y):
    right = (fused_N_C.argmax(1) == y).double().mean().item()
    return [round(right, 5), round(nll(fused_N_C, y).item(), 5), round(calibration_error(fused_N_C.softmax(1), y), 5)]


def fused_sets(z, y, held):
    """Accuracy, likelihood and calibration of every set of one to three kinds: plain average, weights pulled towards it,
    and weights pulled towards the probe, as `fine_tune` fits them."""
    res, kinds = {}, [get_strategy(k) for k in KINDS]
    for r in (1, 2, 3):
        for c in combinations(range(len(kinds)), r):
            own, honest = z[:, c], held.logits_N_K_C[:, c]
            if sum(kinds[k].probe for k in c) > 1: continue
            first = believed_first([kinds[k] for k in c])
            plain = scores(fuse(own, torch.full(own.shape[:2], 1 / r)), y)
            def fitted(believed):
                fit = fit_static(honest, held.targets, believed_K=believed)
                return scores(fuse(own * fit.factors_K[:, None], fit.weights_K.expand(len(y), r)), y)
            res[' '.join(kinds[k].name for k in c)] = dict(plain=plain, even=fitted(None), fitted=fitted(first))
    return res


def development_set(name, seed, n, folder, **options):
    "The development part of a data set; `options` are for the data set."
    if name != 'fashion-3k':
        path = Path(folder) if name in ('dtd10', 'aircraft-small') and folder else None
        return DATA_SETS[name](seed, path, dev=True, n=n, **options)
    from amf_nb.study import development
    return development(DATA_SETS[name](0, **options), n, seed)


def run(name, seed, n, folder):
    "Train all kinds on one development set; the scores of every set of them."
    data = development_set(name, seed, n, folder)
    learn = amf_learner(data.dls, strategies=KINDS, seed=seed).remove_cbs(ProgressCallback)
    start = time.perf_counter()
    learn.weigh_by = lambda parts: parts  # weights are fitted below, to every set of kinds
    with learn.no_logging(): learn.fine_tune(SETS[name])
    seconds = time.perf_counter() - start
    z, y = learn.branch_logits(data.test_dl(learn))
    return dict(data=name, seed=seed, n=n, images=len(data.dls.train_ds), held=len(learn.held.targets), scored=len(y),
                epochs=SETS[name], seconds=round(seconds, 1), sets=fused_sets(z, y, learn.held))


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', nargs='+', default=[*SETS])
    p.add_argument('--seeds', type=int, nargs='+', default=[0])
    p.add_argument('--n', type=int, nargs='+', default=[None], help='training images; none takes all')
    p.add_argument('--sets', help='folder with the unpacked sets')
    a = p.parse_args()
    for seed in a.seeds:
        for name in a.data:
            for n in a.n:
                rows = [json.loads(l) for l in RECORDS.read_text().splitlines()] if RECORDS.exists() else []
                if any((r['data'], r['seed'], r['n']) == (name, seed, n) for r in rows): continue
                r = run(name, seed, n, a.sets)
                with RECORDS.open('a') as f: print(json.dumps(r), file=f)
                best = sorted(r['sets'].items(), key=lambda s: s[1]['fitted'][1])[:3]
                print(name, seed, n, f"{r['seconds']} s", *[(k, v['fitted']) for k, v in best], flush=True)
