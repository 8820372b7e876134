"""How fast may branches learn when there are few images? Parts of their rates, side by side on development sets.

`python bench/rates.py --sets ~/sets` appends to `bench/rates.jsonl` what is not there yet: accuracy, likelihood and
calibration of each branch alone and of each pair with the probe, weighed as `fine_tune` weighs them, on a fixed fifth of
the *training* images. `--sets` is as for `bench/kinds.py`; test images stay closed. Branches do not influence each other
while they train, so one run holds every part of every rate. About a quarter of an hour a seed on one core.
"""
import argparse, json, time
from dataclasses import replace
from pathlib import Path

import torch
from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, get_strategy
from amf_nb.method.fusion import believed_first, fit_static, fuse
from amf_nb.train import solving
from kinds import SETS, development_set, scores

RECORDS = Path(__file__).with_suffix('.jsonl')
SHARES = {'upper_stages': (1., 0.5, 0.25, 0.12, 0.06), 'gentle_half': (1., 0.3, 0.1)}


def parts_of_rates():
    "Strategies called `NAME at SHARE`, that part of the rate of the strategy NAME; the probe is the last."
    def part(name, share):
        strategy = get_strategy(name)
        return replace(strategy, name=f'{name} at {share}', lr_mult=strategy.lr_mult * share)
    return [*(part(name, share) for name, shares in SHARES.items() for share in shares), get_strategy('probe')]


def sets_of(strategies):
    "Positions: each alone, and each pair of one upper, one gentle and the probe, which is the last."
    probe = len(strategies) - 1
    upper, gentle = [[k for k, s in enumerate(strategies) if s.name.startswith(name)] for name in SHARES]
    return [*([k] for k in range(len(strategies))), *([k, probe] for k in upper + gentle),
            *([u, g, probe] for u in upper for g in gentle)]


def run(name, n, seed, folder):
    "A record: all parts of all rates on `n` images of the set `name`."
    data, strategies = development_set(name, seed, n, folder), parts_of_rates()
    learn = amf_learner(data.dls, strategies=strategies, seed=seed).remove_cbs(ProgressCallback)
    learn.weigh_by = lambda parts: parts # weights are fitted below
    start = time.perf_counter()
    with learn.no_logging(): learn.fine_tune(SETS[name])
    logits_N_K_C, targets_N = learn.branch_logits(data.test_dl(learn))
    said, held = {}, learn.held
    for ks in sets_of(strategies):
        believed = believed_first([strategies[k] for k in ks])
        fit = fit_static(held.logits_N_K_C[:, ks], held.targets, believed_K=believed)
        weights = fit.weights_K.expand(len(targets_N), len(ks))
        fused_N_C = fuse(logits_N_K_C[:, ks] * fit.factors_K[:, None], weights)
        said[' + '.join(strategies[k].name for k in ks)] = scores(fused_N_C, targets_N)
    return dict(data=name, seed=seed, images=n, held=len(held.targets), scored=len(targets_N), epochs=SETS[name],
                batch=data.dls.train.bs, seconds=round(time.perf_counter() - start, 1), sets=said)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--sets', help='folder with the unpacked sets')
    p.add_argument('--data', nargs='+', default=[*SETS])
    p.add_argument('--n', type=int, nargs='+', default=[100, 300], help='training images')
    p.add_argument('--seeds', type=int, nargs='+', default=[0])
    a = p.parse_args()
    solving.FULL_RATE = 1 # or the share would be taken of a share
    done = [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []
    known = {(r['data'], r['images'], r['seed']) for r in done}
    for seed in a.seeds:
        for n in a.n:
            for name in a.data:
                if (name, n, seed) in known: continue
                record = run(name, n, seed, a.sets)
                with open(RECORDS, 'a') as f: f.write(json.dumps(record) + '\n')
                print({k: v for k, v in record.items() if k != 'sets'}, flush=True)
