"""Ways to get a policy, compared on development images: the records behind the choices in the chapters on fusion and the learner.

`python bench/policy.py` appends to `bench/policy.jsonl` what is not there yet (about half an hour a seed on one core). It needs the full Fashion-MNIST
and uses its *training* split only: 40,000 images to draw training images from, 20,000 to score on. The branches of a set and seed are trained once;
most ways are fitted afterwards to what they said of images they had not trained on.
"""
import argparse, json, tempfile, time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.data.core import DataLoaders
from torch import nn

from amf_nb.core import amf_learner, fuse
from amf_nb.data.loaders import DEBIAN_FASHION, read_idx, write_idx
from amf_nb.method.fusion import fit_policy, fit_static, nll, shrink_static
from amf_nb.train.splits import items_at, loader_over
from amf_nb.method.controls import calibration_error
from amf_nb.method.policy import TrunkPolicy, create_policy, weights_from_scores
from amf_nb.study.methods import fuse_method, silence
from amf_nb.study.testbeds import DATA_SETS

RECORDS = Path(__file__).with_suffix('.jsonl')
SETS = {'fashion-3k': dict(n=2000, n_test=4000), 'far-near': dict(n_test=4000), 'sources': {}, 'departments': {}}


def development(folder):
    "Fashion-MNIST's training split as if it were the whole of it: 40,000 images to learn from, 20,000 to score on."
    x, y = (read_idx(DEBIAN_FASHION / f'train-{k}-ubyte.gz') for k in ('images-idx3', 'labels-idx1'))
    for name, part in dict(train=slice(40_000), t10k=slice(40_000, None)).items():
        write_idx(folder / f'{name}-images-idx3-ubyte.gz', x[part])
        write_idx(folder / f'{name}-labels-idx1-ubyte.gz', y[part])


class FirstSight(Callback):
    "Keep what the branches say of every training image before they first train on it."
    run_valid = False
    def __init__(self): self.rows = []
    def after_pred(self):
        if self.epoch == 0: self.rows.append([o.detach().float().cpu() for o in (self.learn.model.last['inputs'], self.learn.model.last['logits'], self.yb[0])])


class Joint(Callback):
    "Train the policy with the branches, on the loss of the fused prediction; `balance` pulls the mean weights to equal ones."
    order, run_valid = 10, False
    def __init__(self, balance): self.balance = balance
    def after_loss(self):
        m = self.learn.model
        w = m.last['weights']
        fused = fuse(m.last['logits'].detach().float(), w, m.fusion)
        self.learn.loss_grad = self.learn.loss_grad + F.cross_entropy(fused, self.yb[0]) + self.balance * len(m.branches) * w.mean(0).pow(2).sum()


def train(name, seed, folder, epochs=6, joint=None):
    "The learner, its data, and what was said at first sight."
    data, first = DATA_SETS[name](seed, path=folder, **SETS[name]), FirstSight()
    with silence():
        if hasattr(data, 'sources'): return fuse_method(data, seed, epochs)[0], data, None
        learn = amf_learner(data.dls, seed=seed)
        if joint is None: learn.fine_tune(epochs, cbs=first)
        else: learn.fine_tune(epochs, holdout=0, cbs=Joint(joint))
    return learn, data, first


def cross_fit(learn, data, seed, epochs=6):
    "What branches say of the half of the training images that they were not trained on; both halves, each by a learner of its own."
    ds, res = learn.dls.train_ds, []
    for fold in np.array_split(np.random.default_rng(seed).permutation(len(ds)), 2):
        rest = np.setdiff1d(np.arange(len(ds)), fold)
        dls = DataLoaders(loader_over(learn.dls.train, items_at(ds, rest, 0)), learn.dls.valid.new(items_at(ds, fold, 1)), path=learn.dls.path, device=learn.dls.device)
        half = amf_learner(dls, seed=seed)
        half.fine_tune(epochs, holdout=0)
        res.append(half.gather_parts(keys=('logits', 'inputs')))
    return {k: torch.cat([r[k] for r in res]) for k in res[0]}


def confidence(z):
    "(N, 3K): highest probability, margin and entropy of every branch."
    p = z.softmax(-1)
    top = p.topk(2, -1).values
    return torch.cat([top[..., 0], top[..., 0] - top[..., 1], torch.special.entr(p).sum(-1)], 1)


def fit_correctness(inputs, z, y, epochs=30, seed=0):
    "A policy fitted to predict which branches are right, each for itself."
    torch.manual_seed(seed)
    net = nn.Sequential(nn.LayerNorm(inputs.shape[1], elementwise_affine=False), nn.Linear(inputs.shape[1], z.shape[1]))
    right, opt = (z.argmax(-1) == y[:, None]).float(), torch.optim.AdamW(net.parameters(), lr=1e-2 / inputs.shape[1] ** 0.5, weight_decay=0.01)
    for _ in range(epochs):
        for i in torch.randperm(len(y)).split(64): opt.zero_grad(); F.binary_cross_entropy_with_logits(net(inputs[i]), right[i]).backward(); opt.step()
    return net


def fit_total(z, y, static_K):
    "The one factor on the fused log-probabilities that makes `y` most likely."
    grid = torch.linspace(0.5, 2, 151)
    return min(grid, key=lambda t: nll(t * fuse(z, static_K.expand(len(z), -1)), y)).item()


def ways(learn, held, test, train_parts, first, crossed):
    "Name of each way, and its fused logits on the test images."
    K, z, y, x = held['logits'].shape[1], held['logits'], held['targets'], held['inputs']
    image = learn.model.policy.source == 'image'
    new = lambda n: create_policy('cnn', K) if n is None else TrunkPolicy(n, K)
    def shrunk(x, z, y, test_x, strengths=(0.25, 0.5, 1.0)):
        torch.manual_seed(0)
        pol, v = new(None if x.ndim == 4 else x.shape[1]), shrink_static(z, y)
        fit = fit_policy(pol, x, z, y, static_K=v)
        with torch.no_grad(): return weights_from_scores(pol(test_x), fit['strength'], v)
    def unshrunk(x, z, y, test_x, epochs=30):
        torch.manual_seed(0)
        pol = new(None if x.ndim == 4 else x.shape[1])
        opt = torch.optim.AdamW(pol.parameters(), lr=1e-2, weight_decay=0.01)
        for _ in range(epochs):
            for i in torch.randperm(len(y)).split(64): opt.zero_grad(); nll(fuse(z[i], weights_from_scores(pol(x[i]))), y[i]).backward(); opt.step()
        with torch.no_grad(): return weights_from_scores(pol(test_x))
    tz, tx, even = test['logits'], test['inputs'], torch.full((len(test['logits']), K), 1 / K)
    flat, tflat = (x.mean((2, 3)), tx.mean((2, 3))) if image else (x, tx)
    conf, tconf = confidence(z), confidence(tz)
    weights = {'uniform': even, 'static, unshrunk': fit_static(z, y).expand(len(tz), -1), 'static, shrunk': shrink_static(z, y).expand(len(tz), -1),
               'policy, shrunk': shrunk(x, z, y, tx), 'policy, unshrunk': unshrunk(x, z, y, tx),
               'policy on confidences, shrunk': shrunk(conf, z, y, tconf),
               'policy on both, shrunk': shrunk(torch.cat([flat, conf], 1), z, y, torch.cat([tflat, tconf], 1))}
    net = fit_correctness(flat, z, y)
    with torch.no_grad(): right = net(tflat)
    weights['predicted correctness'] = F.logsigmoid(right).softmax(1)
    if train_parts is not None: weights['policy fitted on training images'] = unshrunk(train_parts['inputs'], train_parts['logits'], train_parts['targets'], tx, 5)
    if first is not None:
        fx, fz, fy = map(torch.cat, zip(*first.rows))
        weights['policy fitted at first sight, shrunk'] = shrunk(fx, fz, fy, tx)
    if crossed is not None:
        weights['policy cross-fitted, shrunk'] = shrunk(crossed['inputs'], crossed['logits'], crossed['targets'], tx)
        weights['policy cross-fitted, unshrunk'] = unshrunk(crossed['inputs'], crossed['logits'], crossed['targets'], tx)
    fused = {n: fuse(tz, w) for n, w in weights.items()}
    v = shrink_static(z, y)
    fused['policy, shrunk, free total'] = fit_total(z, y, v) * fused['policy, shrunk']
    fused['policy, shrunk, over probabilities'] = fuse(tz, weights['policy, shrunk'], 'probs')
    fused['uniform over probabilities'] = fuse(tz, even, 'probs')
    return fused


def run(name, seed, folder):
    "One record: accuracy, likelihood and calibration error of every way."
    start = time.perf_counter()
    learn, data, first = train(name, seed, folder)
    keys = ('logits', 'weights', 'inputs')
    test = learn.gather_parts(data.test_dl(learn), keys)
    own = None if hasattr(data, 'sources') else learn.gather_parts(learn.dls.train.new(shuffle=False, drop_last=False), keys)
    with silence(): crossed = None if own is None else cross_fit(learn, data, seed)
    fused, y = ways(learn, learn.held, test, own, first, crossed), test['targets']
    if not hasattr(data, 'sources'):
        for balance in (0., 1.):
            other, d, _ = train(name, seed, folder, joint=balance)
            p = other.gather_parts(d.test_dl(other), ('logits', 'weights'))
            fused[f'trained jointly, balance {balance:g}'] = fuse(p['logits'], p['weights'])
            fused[f'uniform of those, balance {balance:g}'] = fuse(p['logits'], torch.full_like(p['weights'], 1 / p['weights'].shape[1]))
    rows = {n: [round(v, 5) for v in ((p.argmax(1) == y).double().mean().item(), nll(p, y).item(), calibration_error(p.softmax(1), y))] for n, p in fused.items()}
    return dict(data=name, seed=seed, held=len(learn.held['targets']), policy_fit=learn.policy_fit, seconds=round(time.perf_counter() - start, 1), ways=rows)


if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--seeds', type=int, nargs='+', default=[100, 101])
    a = p.parse_args()
    done = [(r['data'], r['seed']) for r in map(json.loads, RECORDS.read_text().splitlines())] if RECORDS.exists() else []
    with tempfile.TemporaryDirectory() as folder:
        development(Path(folder))
        for seed in a.seeds:
            for name in SETS:
                if (name, seed) in done: continue
                r = run(name, seed, folder)
                with RECORDS.open('a') as f: print(json.dumps(r), file=f)
                print(name, seed, *(f'{100 * v[0]:6.2f} {v[1]:.4f}  {n}' for n, v in r['ways'].items()), sep='\n', flush=True)
