"""What could a policy win on a mixture of two kinds of pictures? One weighting for each kind, fitted to its test labels.

`python bench/ceiling.py --sets ~/sets` appends to `bench/ceiling.jsonl` what is not there yet; `--sets` is as for
`bench/kinds.py`. A policy that tells the kinds apart without error, and knows for each how its branches are best
weighed, would do as well as this. Nothing is chosen by these numbers: they say why a policy stays off, and no more.
Ten minutes a mixture on two cores.
"""
import argparse, json, time
from pathlib import Path

import numpy as np, torch

from amf_nb.core import amf_learner
from amf_nb.method.fusion import fit_static, fuse
from amf_nb.study.testbeds import DATA_SETS
from kinds import scores

RECORDS = Path(__file__).with_suffix('.jsonl')
MIXTURES = {'aircraft+dtd10': 10, 'clipart+fashion': 6} # epochs


def weighed(logits_N_K_C, fit):
    "Logits fused by the weights and temperatures of `fit`."
    n = len(logits_N_K_C)
    return fuse(logits_N_K_C * fit.factors_K[:, None], fit.weights_K.expand(n, -1))


def by_kind(logits_N_K_C, y, kinds):
    "What is predicted if each kind of picture has the weighting that its own test labels ask for; the weightings."
    fused_N_C, weights = torch.zeros_like(logits_N_K_C[:, 0]), {}
    for kind in np.unique(kinds):
        rows = torch.from_numpy(np.flatnonzero(kinds == kind))
        fit = fit_static(logits_N_K_C[rows], y[rows])
        fused_N_C[rows] = weighed(logits_N_K_C[rows], fit)
        weights[str(kind)] = [round(w, 3) for w in fit.weights_K.tolist()]
    return fused_N_C, weights


def run(name, seed, folder):
    "Train the default on a mixture; scores of what it predicts, and of what weights by kind could."
    start, data = time.perf_counter(), DATA_SETS[name](seed, Path(folder) if folder else None)
    learn = amf_learner(data.dls, seed=seed)
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(MIXTURES[name])
        parts = learn.gather_parts(data.test_dl(learn), labels=True)
    logits_N_K_C, y, kinds = parts.logits_N_K_C, parts.targets, np.array(data.groups).astype(str)
    best_N_C, weights = by_kind(logits_N_K_C, y, kinds)
    even_N_K = torch.full(logits_N_K_C.shape[:2], 1 / logits_N_K_C.shape[1])
    fused = dict(policy=learn.model.combine(parts, parts.weights_N_K), plain=fuse(logits_N_K_C, even_N_K),
                 one=weighed(logits_N_K_C, fit_static(logits_N_K_C, y)), by_kind=best_N_C)
    rows = {'all': slice(None), **{str(kind): torch.from_numpy(kinds == kind) for kind in np.unique(kinds)}}
    return dict(data=name, seed=seed, names=learn.model.names, weights=weights, seconds=round(time.perf_counter() - start),
                scores={kind: {rule: scores(z[r], y[r]) for rule, z in fused.items()} for kind, r in rows.items()})


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument('--data', nargs='+', default=[*MIXTURES])
    p.add_argument('--seeds', type=int, nargs='+', default=[0])
    p.add_argument('--sets', help='folder with the unpacked sets')
    a = p.parse_args()
    there = [json.loads(line) for line in open(RECORDS)] if RECORDS.exists() else []
    for name, seed in [(d, s) for d in a.data for s in a.seeds]:
        if any((r['data'], r['seed']) == (name, seed) for r in there): continue
        record = run(name, seed, a.sets)
        with open(RECORDS, 'a') as f: f.write(json.dumps(record) + '\n')
        print(name, seed, record['scores']['all'], flush=True)
