"""How fast may a branch learn that starts at a solved head, when there are few images?

`python bench/few.py --sets ~/sets` appends to `bench/few.jsonl` what is not there yet: accuracy and likelihood of
`gentle_half` alone on a fixed fifth of the *training* images, before it trains and after six epochs at parts of its
rate. `--sets` is as for `bench/kinds.py`; test images stay closed. About five minutes on one core.
"""
import argparse, json
from dataclasses import replace
from pathlib import Path

from fastai.callback.progress import ProgressCallback

from amf_nb.core import amf_learner, get_strategy
from amf_nb.method.fusion import nll
from amf_nb.train import solving
from kinds import development_set

RECORDS = Path(__file__).with_suffix('.jsonl')
SHARES = [0., 0.1, 0.3, 1.]


def run(name, n, share, folder):
    "A record: `gentle_half` on `n` images of the set `name`, trained at `share` of its rate."
    data, gentle = development_set(name, 0, n, folder), get_strategy('gentle_half')
    strategy = replace(gentle, name='gentle part', lr_mult=gentle.lr_mult * (share or 1))
    learn = amf_learner(data.dls, strategies=strategy, seed=0).remove_cbs(ProgressCallback)
    with learn.no_logging(): learn.fine_tune(6) if share else learn.solve(learn.read(), slice(None))
    logits_N_K_C, targets_N = learn.branch_logits(data.test_dl(learn))
    logits_N_C = logits_N_K_C[:, 0]
    accuracy = (logits_N_C.argmax(1) == targets_N).double().mean().item()
    return dict(data=name, images=n, share=share, scored=len(targets_N), epochs=6,
                accuracy=round(accuracy, 5), nll=round(nll(logits_N_C, targets_N).item(), 5))


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--sets', help='folder with the unpacked sets')
    p.add_argument('--n', type=int, nargs='+', default=[100], help='training images')
    a = p.parse_args()
    solving.FULL_RATE = 1 # or the share would be taken of a share
    done = [json.loads(line) for line in RECORDS.read_text().splitlines()] if RECORDS.exists() else []
    known = {(r['data'], r['images'], r['share']) for r in done}
    for n in a.n:
        for name in ('dtd10', 'clipart', 'icons'):
            for share in SHARES:
                if (name, n, share) in known: continue
                record = run(name, n, share, a.sets)
                with open(RECORDS, 'a') as f: f.write(json.dumps(record) + '\n')
                print(record, flush=True)
