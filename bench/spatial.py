"""What should a probe read of an activation? Heads solved on other statistics of the same frozen network, side by side.

`python bench/spatial.py --sets ~/sets` appends to `bench/spatial.jsonl` what is not there yet; `--sets` is as for
`bench/kinds.py`. The network reads every image of a development set once, enlarged from 64 pixels to 128; heads are then
solved on all images and on random draws of 100 and 300. Scored are honest answers, each image left out with its copies,
and a fixed fifth of the *training* images; test images stay closed. A quarter of an hour on one core.
"""
import argparse, json, time
from pathlib import Path

import numpy as np, torch, torch.nn.functional as F

from amf_nb.core import amf_learner, create_backbone
from amf_nb.method.probes import Depths, copies_of, pool_features, rescaled, solve_probe, unit_statistics
from kinds import SETS, development_set, scores
from sizes import DRAWS

RECORDS = Path(__file__).with_suffix('.jsonl')
READ = {'mean': lambda act: F.normalize(pool_features(act).float(), dim=1), 'usual': unit_statistics,
        **{f'{k} mixtures': (lambda act, k=k: unit_statistics(act, k)) for k in (8, 16, 24, 32)}}


@torch.no_grad()
def read(dl, body):
    "Statistics to features (N, F), the class numbers (N,), and seconds of the network and of each kind of statistics."
    rows, targets, seconds = {name: [] for name in READ}, [], dict.fromkeys(['network', *READ], 0.)
    for xb, yb in dl:
        start, act, acts = time.process_time(), rescaled(xb.as_subclass(torch.Tensor), 2), []
        for depth, stage in enumerate(body.stages, 1):
            act = stage(act)
            if depth >= body.first: acts.append(act)
        seconds['network'] += time.process_time() - start
        for name, told in READ.items():
            start = time.process_time()
            rows[name].append(torch.cat([told(act) for act in acts], 1))
            seconds[name] += time.process_time() - start
        targets.append(yb.as_subclass(torch.Tensor))
    return {name: torch.cat(seen) for name, seen in rows.items()}, torch.cat(targets), seconds


def run(name, folder):
    "Records of the set `name`: one for each draw of its training images."
    data = development_set(name, 0, None, folder)
    learn = amf_learner(data.dls, strategies=['probe'], seed=0)
    body = Depths(create_backbone('tf_efficientnet_lite0').eval().stages)
    train, y, seconds = read(learn.in_order(np.arange(len(data.dls.train_ds))), body)
    held, held_y, _ = read(data.test_dl(learn), body)
    n_out = int(max(y.max(), held_y.max())) + 1
    for n, seed in DRAWS:
        at = torch.from_numpy(np.random.default_rng(seed).permutation(len(y))[:n])
        groups, told = copies_of(train['usual'][at]), {}
        for kind, features in train.items():
            fit = solve_probe(features[at], y[at], n_out, groups_N=groups)
            kept_N_C = held[kind] @ fit.weight_C_F.T + fit.bias_C
            told[kind] = dict(honest=scores(fit.honest_N_C, y[at])[:2], kept=scores(kept_N_C, held_y)[:2])
        yield dict(data=name, images=len(at), seed=seed, ms={k: round(1000 * s / len(y), 3) for k, s in seconds.items()}, read=told)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--sets', help='folder with the unpacked sets')
    a = p.parse_args()
    have = {json.loads(l)['data'] for l in RECORDS.read_text().splitlines()} if RECORDS.exists() else set()
    for name in [n for n in SETS if n not in have]:
        records = [json.dumps(r) for r in run(name, a.sets)]
        with RECORDS.open('a') as f: print(*records, sep='\n', file=f)
        print(records[0], flush=True)
