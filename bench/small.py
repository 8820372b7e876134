"""What does `fine_tune` give with a hundred or three hundred images? All that it trains, and standard fine-tuning, side by side.

`python bench/small.py --sets ~/sets` appends to `bench/small.jsonl` what is not there yet: accuracy, likelihood and calibration
of the fused prediction, its controls, each branch, and standard fine-tuning, trained on a random draw of the development part
of each set. Scored is a fixed fifth of the *training* images; test images stay closed. `--sets` is as for `bench/kinds.py`.
Three draws of both sizes take about half an hour on one core.

`routes` are accuracy, likelihood and cost of the rule that a budget chooses on held-out images, by how many standard errors
are added to what a rule loses there; the budget is kept as if images had 128 pixels, where branches cost about the same.
"""
import argparse, json
from pathlib import Path

import numpy as np, torch
from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, branch_learner
from amf_nb.method.controls import panel_row
from amf_nb.use.routing import branch_costs, possible_loss, replay
from kinds import SETS, development_set

RECORDS, BUDGETS, CAUTIONS = Path(__file__).with_suffix('.jsonl'), (1.2, 1.5, 2.), (0., 1., 2., 3.)


def trained(make, data, epochs, seed, **kwargs):
    "A learner of `data`, from `make`, after `epochs`."
    learn = make(data.dls, seed=seed, **kwargs).remove_cbs(ProgressCallback)
    with learn.no_logging(): learn.fine_tune(epochs)
    return learn


def routes_of(model, held, parts, rules):
    "By budget and caution, what the one of `rules` that they choose on the images `held` predicts for those of `parts`."
    costs, res = branch_costs(model, torch.zeros(1, 3, 128, 128)), {}
    cost_of = np.array([costs.of(replay(model, rule, held)[0]) for rule in rules])
    for caution in CAUTIONS:
        lost = np.array([possible_loss(model, rule, held, caution) for rule in rules])
        for budget in BUDGETS:
            ran, fused = replay(model, rules[np.where(cost_of <= budget, lost, np.inf).argmin()], parts)
            accuracy, _, _, loss, _ = panel_row(fused, parts.targets)
            res.setdefault(f'{budget:g}', {})[f'{caution:g}'] = [round(accuracy, 5), round(loss, 5), round(costs.of(ran), 3)]
    return res


def run(name, n, seed, folder):
    "A record: the default branches and `standard` alone, on `n` images of the set `name`."
    data, epochs = development_set(name, seed, n, folder), SETS[name]
    learn = trained(amf_learner, data, epochs, seed)
    parts, held = learn.gather_parts(data.test_dl(learn), labels=True), learn.held_parts()
    panel = learn.control_panel(parts=parts).drop(columns=['low', 'high'])
    one = trained(branch_learner, data, epochs, seed, strategy='standard')
    panel.loc['standard'] = one.control_panel(data.test_dl(one)).iloc[0]
    weights = dict(zip(learn.model.names, learn.model.static_K.tolist()))
    return dict(data=name, images=n, seed=seed, held=len(held.targets), scored=len(parts.targets), epochs=epochs, weights=weights,
                rows={rule: row.round(5).to_dict() for rule, row in panel.iterrows()},
                routes=routes_of(learn.model, held, parts, [*learn.route_curve(parts=held).rule]))


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--sets', help='folder with the unpacked sets')
    p.add_argument('--data', nargs='+', default=[*SETS])
    p.add_argument('--n', type=int, nargs='+', default=[100, 300], help='training images')
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    a = p.parse_args()
    done = [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []
    known = {(r['data'], r['images'], r['seed']) for r in done}
    for seed, n, name in [(s, n, d) for s in a.seeds for n in a.n for d in a.data]:
        if (name, n, seed) in known: continue
        record = run(name, n, seed, a.sets)
        with RECORDS.open('a') as f: print(json.dumps(record), file=f)
        told = {rule: round(100 * record['rows'][rule]['accuracy'], 1) for rule in ('standard', 'probe', 'policy')}
        print(name, n, seed, told, flush=True)
