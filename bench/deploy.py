"""What the price of one network buys after training: routing by the clock and collapse, on sets of several kinds and two sizes of image.

`python bench/deploy.py --sets ~/sets` appends to `bench/deploy.jsonl` what is not there yet. `--sets` is the folder with `dtd10/`; the other sets are
Debian packages, which the error names if one is missing. Rules are chosen on held-out training images and by what things cost on this machine; test
images only score, and time: batches of 64 that lie ready in memory, each way in turns with one network (that of `collapse`).
"""
import argparse, json, time
from dataclasses import asdict
from functools import partial
from itertools import islice
from pathlib import Path

import torch
from amf_nb.core import amf_learner, branch_learner
from amf_nb.method.controls import calibration_error
from amf_nb.method.fusion import nll
from amf_nb.study.methods import silence
from amf_nb.study.testbeds import DATA_SETS
from amf_nb.study.timing import alternate, time_ratios
from amf_nb.use.collapse import one_network, student_of
from amf_nb.use.routing import following

RECORDS, EPOCHS, BUDGETS = Path(__file__).with_suffix('.jsonl'), 6, (1., 1.2, 1.5, 2.)


def score(logits_N_C, y):
    right = (logits_N_C.argmax(1) == y).double().mean().item()
    return dict(accuracy=right, nll=nll(logits_N_C, y).item(), ece=calibration_error(logits_N_C.softmax(1), y))


def said_by(learn, dl): return learn.get_preds(dl=dl, act=lambda logits: logits)[0].as_subclass(torch.Tensor)


@torch.no_grad()
def predict(model, batches, rule=None):
    with following(model, rule):
        for x in batches: model(x)


def rules_of(learn):
    "The rule of each budget that can be kept, by the clock."
    rules = dict(dense=None)
    for budget in BUDGETS:
        try: rules[f'budget {budget:g}'] = learn.route(budget=budget, clock=True)
        except ValueError: continue # nothing is that cheap
    learn.route()
    return rules


def run(name, size, seed, folder, rounds=9):
    "One record: standard fine-tuning, all branches, routed by budget, and one network distilled from all."
    start, path = time.perf_counter(), Path(folder) if name == 'dtd10' else None
    data = DATA_SETS[name](seed, path, size=size)
    learn, one = amf_learner(data.dls, seed=seed), branch_learner(data.dls, strategy='standard', seed=seed)
    for l in (learn, one): l.fine_tune(EPOCHS)
    test, costs = data.test_dl(learn), learn.costs(clock=True)
    y = learn.gather_parts(test).targets
    rows, rules = dict(standard=score(said_by(one, test), y)), rules_of(learn)
    batches = [b[0].as_subclass(torch.Tensor) for b in islice(test, 4)]
    cases = dict(standard=partial(predict, one_network(learn.model, student_of(learn.model)).eval(), batches))
    for way, rule in rules.items():
        with following(learn.model, rule):
            rows[way] = score(said_by(learn, test), y) | dict(rule=rule and asdict(rule))
            rows[way]['expected'] = costs.of(learn.gather_parts(test, ('ran_N_K',), routed=True).ran_N_K) if rule else costs.dense
        cases[way] = partial(predict, learn.model.eval(), batches, rule)
    student = learn.collapse('distil', epochs=EPOCHS)
    rows['distil'] = score(said_by(student, test), y) | dict(branch=learn.best_branch)
    cases['distil'] = partial(predict, student.model.eval(), batches)
    ratios = time_ratios(alternate(cases, rounds), 'standard')
    for way in cases: rows[way]['clock'] = ratios.ratio[way]
    seconds = dict(seconds=round(time.perf_counter() - start, 1), ms=1000 * ratios.seconds['standard'] / sum(map(len, batches)))
    return dict(data=name, size=size, seed=seed, epochs=EPOCHS, test=len(y), **seconds, rows=rows)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--data', nargs='+', default=['dtd10', 'clipart', 'icons'])
    p.add_argument('--sizes', type=int, nargs='+', default=[64, 128])
    p.add_argument('--seeds', type=int, nargs='+', default=[0])
    p.add_argument('--sets', help='folder with the unpacked sets')
    a = p.parse_args()
    done = [json.loads(l) for l in RECORDS.read_text().splitlines()] if RECORDS.exists() else []
    done = {(r['data'], r['size'], r['seed']) for r in done}
    for seed, size, name in [(s, z, n) for s in a.seeds for z in a.sizes for n in a.data]:
        if (name, size, seed) in done: continue
        with silence(): r = run(name, size, seed, a.sets)
        with RECORDS.open('a') as f: print(json.dumps(r), file=f)
        print(name, size, seed, *(f"{100 * v['accuracy']:6.2f} {v['nll']:.3f} x {v['clock']:.2f}  {n}" for n, v in r['rows'].items()), sep='\n', flush=True)
