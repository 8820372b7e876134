"""What one network's cost buys after training: routing and collapse, measured on all 10,000 test images of Fashion-MNIST.

`python bench/deploy.py` appends to `bench/deploy.jsonl` the seeds that are not there yet (about ten minutes a seed on one core). The rule that a budget
stands for is chosen on held-out training images; the test images only score. Standard fine-tuning of the same seeds is in `bench/cpu`.
"""
import argparse, json, time
from dataclasses import asdict
from pathlib import Path

from amf_nb.core import amf_learner
from amf_nb.use.collapse import student_of
from amf_nb.method.fusion import nll
from amf_nb.method.controls import calibration_error
from amf_nb.study.methods import silence
from amf_nb.study.testbeds import fashion_data

RECORDS, EPOCHS = Path(__file__).with_suffix('.jsonl'), 6


def score(z, y): return dict(accuracy=(z.argmax(1) == y).double().mean().item(), nll=nll(z, y).item(), ece=calibration_error(z.softmax(1), y))


def told(curve): return [r | dict(rule=asdict(r['rule'])) for r in curve.to_dict('records')]


def run(seed, budgets=(0.8, 0.9, 1.0, 1.1, 1.2, 1.3, 1.5)):
    "One record: dense, routed by budget, collapsed."
    start, data = time.perf_counter(), fashion_data(seed)
    learn = amf_learner(data.dls, seed=seed)
    learn.fine_tune(EPOCHS)
    test = data.test_dl(learn)
    parts = learn.gather_parts(test)
    y, rows = parts['targets'], {}
    curve = learn.route_curve(parts=parts)
    rows['dense'] = score(learn.fused_by(parts)['policy'], y) | dict(cost=learn.costs().dense)
    for b in budgets:
        try: rule = learn.route(budget=b)
        except ValueError: continue                                # below the cheapest way
        rows[f'budget {b:g}'] = next(r for r in told(curve) if r['rule'] == asdict(rule))
    learn.route()
    for how in ('best', 'distil'):
        branch = learn.policy_fit.best_when_fitted if how == 'best' else student_of(learn.model)
        one = learn.collapse(how, branch=branch, **(dict(epochs=EPOCHS) if how == 'distil' else {}))
        z, _ = one.get_preds(dl=test, act=lambda o: o)
        rows[how] = score(z.as_subclass(type(y)), y) | dict(cost=learn.parity(one, dl=test).cost['one network'], branch=branch)
    return dict(seed=seed, epochs=EPOCHS, seconds=round(time.perf_counter() - start, 1), rows=rows, curve=told(curve))


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2, 3, 4])
    a = p.parse_args()
    done = [json.loads(l)['seed'] for l in RECORDS.read_text().splitlines()] if RECORDS.exists() else []
    for seed in a.seeds:
        if seed in done: continue
        with silence(): r = run(seed)
        with RECORDS.open('a') as f: print(json.dumps(r), file=f)
        print(seed, *(f"{100 * v['accuracy']:6.2f} {v['nll']:.4f} cost {v['cost']:.2f}  {n}" for n, v in r['rows'].items()), sep='\n', flush=True)
