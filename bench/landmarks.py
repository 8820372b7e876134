"""How many of its training images should a probe keep, to compare others with, and how? Heads solved in each way, side by side.

`python bench/landmarks.py --sets ~/sets` appends to `bench/landmarks.jsonl` what is not there yet; `--sets` is as for
`bench/kinds.py`. The network of the default probe reads every image of a development set once; heads are then solved on all
images and on random draws of 100 and 300. Scored are honest answers, each image left out with its copies, and a fixed fifth
of the *training* images; test images stay closed. Ten minutes on one core.
"""
import argparse, json, time
from pathlib import Path

import numpy as np, torch

from amf_nb.core import amf_learner
from amf_nb.method import probes
from amf_nb.method.probes import copies_of, set_head, solve_probe
from amf_nb.method.similarity import Similarity, SimilarityHead
from amf_nb.train.solving import Readers, read_rows
from kinds import SETS, development_set, scores
from sizes import DRAWS

RECORDS, HALF = Path(__file__).with_suffix('.jsonl'), probes.OF_SIMILARITY
KEPT = [0, 256, 512, 1024, 2048]
WAYS = {'a third': dict(share=1 / 3), 'two thirds': dict(share=2 / 3), 'half as far': dict(far=0.5), 'twice as far': dict(far=2.),
        'all depths together': dict(together=True)}


class Stretched(Similarity):
    "A `Similarity` in which squared distances are `far` times what they are."
    def __init__(self, columns, most, far):
        super().__init__(columns, most)
        self.far = far

    def standardised(self, features_N_F): return super().standardised(features_N_F) * self.far**0.5


def solved(seen, held, n_out, columns, most, share=HALF, far=1., together=False):
    "What comes of a head with `most` landmarks: `seen` are features, targets and groups; `held` features and targets."
    features, y, groups = seen
    columns = [(0, features.shape[1])] if together else columns
    head, probes.OF_SIMILARITY = SimilarityHead(Stretched(columns, most, far), features.shape[1], n_out), share
    start = time.process_time()
    fit = solve_probe(features, y, n_out, groups_N=groups, similarity=head.similarity if most else None)
    seconds = round(time.process_time() - start, 2)
    set_head(head, fit)
    return dict(landmarks=fit.similar_C_L.shape[1], strength=fit.strength, seconds=seconds,
                honest=scores(fit.honest_N_C, y)[:2], kept=scores(head(held[0]), held[1])[:2])


@torch.no_grad()
def run(name, folder):
    "Records of the set `name`: one for each draw of its training images."
    data = development_set(name, 0, None, folder)
    learn = amf_learner(data.dls, strategies=['probe'], seed=0)
    readers, columns = Readers(learn.model, [0]), learn.model.branches[0].head.similarity.columns
    (train,), y = read_rows(readers, learn.in_order(np.arange(len(data.dls.train_ds))))
    (kept,), kept_y = read_rows(readers, data.test_dl(learn))
    n_out = int(max(y.max(), kept_y.max())) + 1
    for n, seed in DRAWS:
        at = torch.from_numpy(np.random.default_rng(seed).permutation(len(y))[:n])
        seen = train[at], y[at], copies_of(train[at])
        ask = lambda most, **way: solved(seen, (kept, kept_y), n_out, columns, most, **way)
        numbers = {most: ask(most) for most in KEPT if most < max(300, 2 * len(at))}
        yield dict(data=name, images=len(at), seed=seed, kept=numbers, ways={name: ask(1024, **way) for name, way in WAYS.items()})


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--sets', help='folder with the unpacked sets')
    a = p.parse_args()
    have = {json.loads(l)['data'] for l in RECORDS.read_text().splitlines()} if RECORDS.exists() else set()
    for name in [n for n in SETS if n not in have]:
        records = [json.dumps(r) for r in run(name, a.sets)]
        with RECORDS.open('a') as f: print(*records, sep='\n', file=f)
        print(records[0], flush=True)
