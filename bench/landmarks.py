"""How many of its training images should a probe keep, to compare others with? Heads solved with and without, side by side.

`python bench/landmarks.py --sets ~/sets` appends to `bench/landmarks.jsonl` what is not there yet; `--sets` is as for
`bench/kinds.py`. The network of the default probe reads every image of a development set once; heads are then solved on all
images and on random draws of 100 and 300. Scored are honest answers, each image left out with its copies, and a fixed fifth
of the *training* images; test images stay closed. A quarter of an hour on one core.
"""
import argparse, json, time
from pathlib import Path

import numpy as np, torch

from amf_nb.core import amf_learner
from amf_nb.method.probes import copies_of, set_head, solve_probe
from amf_nb.method.similarity import Similarity, SimilarityHead
from amf_nb.train.solving import Readers, read_rows
from kinds import SETS, development_set, scores
from sizes import DRAWS

RECORDS = Path(__file__).with_suffix('.jsonl')
KEPT = [0, 256, 512, 1024, 2048]


@torch.no_grad()
def run(name, folder):
    "Records of the set `name`: one for each draw of its training images."
    data = development_set(name, 0, None, folder)
    learn = amf_learner(data.dls, strategies=['probe'], seed=0)
    readers, columns = Readers(learn.model, [0]), learn.model.branches[0].head.similarity.columns
    (train,), y = read_rows(readers, learn.in_order(np.arange(len(data.dls.train_ds))))
    (held,), held_y = read_rows(readers, data.test_dl(learn))
    n_out = int(max(y.max(), held_y.max())) + 1
    for n, seed in DRAWS:
        at = torch.from_numpy(np.random.default_rng(seed).permutation(len(y))[:n])
        groups, told, kept = copies_of(train[at]), {}, [k for k in KEPT if k < max(300, 2 * len(at))]
        for most in kept:
            head, start = SimilarityHead(Similarity(columns, most), train.shape[1], n_out), time.process_time()
            fit = solve_probe(train[at], y[at], n_out, groups_N=groups, similarity=head.similarity if most else None)
            seconds = round(time.process_time() - start, 2)
            set_head(head, fit)
            told[most] = dict(landmarks=fit.similar_C_L.shape[1], strength=fit.strength, seconds=seconds,
                              honest=scores(fit.honest_N_C, y[at])[:2], kept=scores(head(held), held_y)[:2])
        yield dict(data=name, images=len(at), seed=seed, kept=told)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--sets', help='folder with the unpacked sets')
    a = p.parse_args()
    have = {json.loads(l)['data'] for l in RECORDS.read_text().splitlines()} if RECORDS.exists() else set()
    for name in [n for n in SETS if n not in have]:
        records = [json.dumps(r) for r in run(name, a.sets)]
        with RECORDS.open('a') as f: print(*records, sep='\n', file=f)
        print(records[0], flush=True)
