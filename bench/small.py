"""What does `fine_tune` give with a hundred or three hundred images? All that it trains, and standard fine-tuning, side by side.

`python bench/small.py --sets ~/sets` appends to `bench/small.jsonl` what is not there yet: accuracy, likelihood and calibration
of the fused prediction, its controls, each branch, and standard fine-tuning, trained on a random draw of the development part
of each set. Scored is a fixed fifth of the *training* images; test images stay closed. `--sets` is as for `bench/kinds.py`.
Three draws of both sizes take about half an hour on one core.
"""
import argparse, json
from pathlib import Path

from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, branch_learner
from kinds import SETS, development_set

RECORDS = Path(__file__).with_suffix('.jsonl')


def trained(make, data, epochs, seed, **kwargs):
    "A learner of `data`, from `make`, after `epochs`."
    learn = make(data.dls, seed=seed, **kwargs).remove_cbs(ProgressCallback)
    with learn.no_logging(): learn.fine_tune(epochs)
    return learn


def run(name, n, seed, folder):
    "A record: the default branches and `standard` alone, on `n` images of the set `name`."
    data, epochs = development_set(name, seed, n, folder), SETS[name]
    learn = trained(amf_learner, data, epochs, seed)
    panel = learn.control_panel(data.test_dl(learn)).drop(columns=['low', 'high'])
    one = trained(branch_learner, data, epochs, seed, strategy='standard')
    panel.loc['standard'] = one.control_panel(data.test_dl(one)).iloc[0]
    weights = dict(zip(learn.model.names, learn.model.static_K.tolist()))
    return dict(data=name, images=n, seed=seed, held=len(learn.held.targets), scored=len(data.test_dl(learn).dataset),
                epochs=epochs, weights=weights, rows={rule: row.round(5).to_dict() for rule, row in panel.iterrows()})


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
