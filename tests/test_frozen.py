"""Property tests: whatever is done to a learner, what a strategy froze stays as it is, bit for bit, and what trains moves at its own rate.

What is expected is worked out here from the strategies and the list of stages alone. HYPOTHESIS_PROFILE=soak tries 500 learners instead of 25."""
import copy
import functools
import os
import re
import tempfile
import warnings
from collections import Counter, OrderedDict

import pytest
import torch
from fastai.callback.all import EarlyStoppingCallback, GradientAccumulation, GradientClip, MixUp, ReduceLROnPlateau, SaveModelCallback
from fastai.callback.core import Callback
from fastai.callback.progress import ProgressCallback
from fastai.optimizer import SGD, Adam
from hypothesis import HealthCheck, given, note, settings
from hypothesis import strategies as st
from torch import nn

from amf_nb.method.backbones import Backbone
from amf_nb.core import Strategy, amf_learner, create_backbone
from amf_nb.train.side_by_side import amf_groups
from amf_nb.test_utils import toy_dls

warnings.filterwarnings('ignore')
QUIET = dict(deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck])
PROFILES = dict(default=settings(max_examples=25, **QUIET), soak=settings(max_examples=500, **QUIET))
PROFILE = PROFILES[os.environ.get('HYPOTHESIS_PROFILE', 'default')]
ARCHS = ['test_efficientnet', 'batch_norms', 'other_norms']
NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)


def block(i, o, norm): return nn.Sequential(OrderedDict(conv=nn.Conv2d(i, o, 3, 2, 1, bias=norm is not nn.BatchNorm2d), norm=norm(o), act=nn.GELU()))


@functools.cache
def stored(arch):
    "Three small bodies: a real one, one of four stages with BatchNorm, one of five with other norms."
    torch.manual_seed(0)
    if arch == 'test_efficientnet': return create_backbone(arch, pretrained=False)
    end = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    if arch == 'batch_norms': return Backbone([*[block(i, o, nn.BatchNorm2d) for i, o in ((3, 6), (6, 8), (8, 8))], nn.Sequential(block(8, 9, nn.BatchNorm2d), end)], 9, arch, size=(32, 32))
    norms = functools.partial(nn.GroupNorm, 2)
    return Backbone([*[block(i, o, norms) for i, o in ((3, 6), (6, 8), (8, 8), (8, 8))], nn.Sequential(end, nn.LayerNorm(8), nn.Linear(8, 7))], 7, arch, size=(32, 32))


def below(freeze, n_stages, i):
    "Is stage `i` frozen, its middle not above the share `freeze` of all stages?"
    return i + 0.5 <= freeze * n_stages + 1e-9


# ---- what is drawn
@st.composite
def settings_of(draw, n_stages):
    "Keyword arguments of one strategy that fits a body of `n_stages`."
    freeze = draw(st.sampled_from([0, 0, 0.2, 0.34, 0.5, 0.75, 0.9, 1]))
    kw = dict(freeze=freeze, lr_mult=draw(st.sampled_from([0.5, 1, 3])), stage_decay=draw(st.sampled_from([1, 0.9, 0.5])), wd=draw(st.sampled_from([None, 0, 0.1])),
              l2_sp=draw(st.sampled_from([0, 0, 0.05])), train_only=draw(st.sampled_from([None, None, 'norm', 'bias', r'stages\.[2-9]\..*weight', r'conv', 'no such name'])))
    kw['reinit'] = draw(st.integers(0, min(2, sum(not below(freeze, n_stages, i) for i in range(n_stages)))))
    if not freeze: kw['scale'] = draw(st.sampled_from([1, 1, 0.75]))
    return kw


class MovingAverage(Callback):
    "The mean of the weights over steps takes their place at the end, as in many recipes."
    def before_fit(self): self.mean = {p: p.detach().clone() for l in self.opt.param_lists for p in l}
    def after_step(self):
        for p, m in self.mean.items(): m.lerp_(p.detach(), 0.5)
    def after_fit(self):
        with torch.no_grad():
            for p, m in self.mean.items(): p.copy_(m)


CALLBACKS = dict(clip=lambda: GradientClip(0.1), accumulate=lambda: GradientAccumulation(8), mixup=lambda: MixUp(), save=lambda: SaveModelCallback(), mean=MovingAverage,
                 plateau=lambda: ReduceLROnPlateau(patience=1), early=lambda: EarlyStoppingCallback(patience=1))
CALLS = dict(train=lambda l: l.model.train(), eval=lambda l: l.model.eval(), each_train=lambda l: [m.train() for m in l.model.modules()], freeze=lambda l: l.freeze(), unfreeze=lambda l: l.unfreeze(),
             freeze_to=lambda l: l.freeze_to(-2), freeze_one=lambda l: l.freeze_to(1) if len({g['depth'] for g in amf_groups(l.model)}) > 1 else None, # else nothing would be left to train
             thaw_all=lambda l: l.model.requires_grad_(True), trunk_train=lambda l: l.model.trunk.train(),
             validate=lambda l: l.validate(), preds=lambda l: l.get_preds(), resume=lambda l: (l.save('mid', with_opt=True), l.load('mid', with_opt=True)), new_opt=lambda l: l.create_opt())
FITS = dict(fit=lambda l, cbs: l.fit(1, 1e-2, cbs=cbs), one_cycle=lambda l, cbs: l.fit_one_cycle(1, 1e-2, cbs=cbs), slices=lambda l, cbs: l.fit_one_cycle(1, slice(1e-3, 1e-2), cbs=cbs),
            flat=lambda l, cbs: l.fit_flat_cos(1, 1e-2, cbs=cbs), fine_tune=lambda l, cbs: l.fine_tune(1, 1e-2, cbs=cbs))


@st.composite
def plans(draw):
    "An architecture, strategies, and what is done to the learner."
    arch = draw(st.sampled_from(ARCHS))
    kws = draw(st.lists(settings_of(len(stored(arch).stages)), min_size=1, max_size=4))
    phase = st.tuples(st.lists(st.sampled_from([*CALLS]), max_size=3), st.sampled_from([*FITS]), st.lists(st.sampled_from([*CALLBACKS]), max_size=2, unique=True))
    return dict(arch=arch, strategies=[Strategy(f's{i}', **kw) for i, kw in enumerate(kws)], phases=draw(st.lists(phase, min_size=1, max_size=2)), bf16=draw(st.booleans()), sgd=draw(st.booleans()),
                policy=draw(st.sampled_from(['cnn', None])), wd=draw(st.sampled_from([0, 0.01])))


# ---- what is expected
def trains(s, stages, i, name):
    "Does parameter `name` of stage `i` train under the strategy `s`?"
    if below(s.freeze, len(stages), i): return False
    last = name.rpartition('.')
    if s.train_only is None: return True
    if s.train_only == 'norm': return isinstance(stages[i].get_submodule(last[0]), NORMS)
    return last[2] == 'bias' if s.train_only == 'bias' else re.search(s.train_only, f'stages.{i}.{name}') is not None


class Expected:
    "Which tensors of a learner's model train, at which factor of the learning rate, and which never change."
    def __init__(self, model, strategies, body):
        S, self.factor, self.fixed, self.still, self.alive, self.wd = len(body), {}, {}, [], [], {}
        for s, branch in zip(strategies, model.branches):
            plan = [{n: trains(s, body, i, n) for n, _ in body[i].named_parameters()} for i in range(S)]
            start = 0 if s.scale < 1 else next((i for i in range(S) if any(plan[i].values())), S)
            assert (branch.start, len(branch.stages)) == (start, S - start)
            for i in range(S):
                stage = model.trunk.stages[i] if i < start else branch.stages[i - start]
                for n, p in stage.named_parameters():
                    if plan[i][n]: self.factor[p], self.wd[p] = s.lr_mult * s.stage_decay ** (S - i), s.wd
                    else: self.fixed[p] = None
                for n, m in stage.named_modules():
                    if not isinstance(m, nn.modules.batchnorm._BatchNorm): continue
                    learns = any(plan[i][f'{n}.{k}'.lstrip('.')] for k, _ in m.named_parameters(recurse=False))
                    (self.alive if learns else self.still).append(m)
            for p in branch.head.parameters(): self.factor[p], self.wd[p] = s.lr_mult, s.wd
        for m in self.still:
            for b in m.buffers(): self.fixed[b] = None
        for t in self.fixed: self.fixed[t] = t.detach().clone()
        self.policy = [] if model.policy is None else [*model.policy.parameters()]


def check_groups(learn, want):
    "Every parameter is in one group, or frozen for good."
    if learn.opt is None: learn.create_opt()
    times = Counter(p for l in learn.opt.param_lists for p in l)
    assert max(times.values()) == 1
    assert {*times} == {*want.factor, *want.policy}
    assert {*learn.model.parameters()} - {*times} == {t for t in want.fixed if isinstance(t, nn.Parameter)}


def check_fixed(want):
    for t, was in want.fixed.items(): assert torch.equal(t, was), 'a frozen tensor moved'


class Spy(Callback):
    "What each step really does, seen after every other callback of the library and of fastai."
    order = 1000
    def __init__(self, want, sgd, wd): self.want, self.sgd, self.wd, self.steps, self.moved, self.lr = want, sgd, wd, 0, set(), None

    def before_batch(self):
        self.base = [h['lr'] for h in self.opt.hypers]
        assert self.lr is None or {*self.base} == {self.lr}, 'a rate was not restored after a step'

    def after_pred(self):
        assert not any(m.training for m in self.model.trunk.modules())
        assert not any(m.training for m in self.want.still)
        assert not self.training or all(m.training for m in self.want.alive)

    def before_step(self):
        self.steps += 1
        self.before = {}
        for group, h, base in zip(self.opt.param_lists, self.opt.hypers, self.base):
            for p in group:
                assert h['lr'] == pytest.approx(base * self.want.factor.get(p, 1), rel=1e-12)
                if p.requires_grad and p.grad is not None: self.before[p] = p.detach().clone(), p.grad.detach().clone(), h['lr']

    def after_step(self):
        for p, (was, grad, lr) in self.before.items():
            wd = self.wd if self.want.wd.get(p) is None else self.want.wd[p]
            if self.sgd and not wd: torch.testing.assert_close(p.detach(), was - lr * grad, rtol=1e-5, atol=1e-8)
            if not torch.equal(p.detach(), was): self.moved.add(p)
            else: assert not (lr * grad.abs() > 1e-6 * was.abs() + 1e-12).any(), 'a gradient, and nothing moved' # less is lost in rounding


@PROFILE
@given(plan=plans())
def test_frozen_stays_and_the_rest_moves(plan):
    note(plan)
    body, K = copy.deepcopy(stored(plan['arch'])), len(plan['strategies'])
    with tempfile.TemporaryDirectory() as folder:
        learn = amf_learner(toy_dls(n=12, bs=4), body, plan['strategies'], policy=plan['policy'] if K > 1 else None, pretrained=False, seed=0, wd=plan['wd'], path=folder,
                            opt_func=functools.partial(SGD, mom=0.) if plan['sgd'] else Adam)
        learn.remove_cb(ProgressCallback)
        learn.logger = lambda *a: None
        if plan['bf16']: learn.to_bf16()
        want = Expected(learn.model, plan['strategies'], stored(plan['arch']).stages)
        check_groups(learn, want)
        spy = Spy(want, plan['sgd'], plan['wd'])
        for calls, fit, cbs in plan['phases']:
            for call in calls: CALLS[call](learn)
            check_groups(learn, want)
            spy.lr = 1e-2 if fit == 'fit' else None
            FITS[fit](learn, [spy, *[CALLBACKS[c]() for c in cbs]])
            check_fixed(want)
        learn.unfreeze()
        last = Spy(want, plan['sgd'], plan['wd'])
        last.lr = 1e-2
        learn.fit(1, 1e-2, cbs=last)
    check_groups(learn, want)
    check_fixed(want)
    assert spy.steps and last.steps == 2
    heads = {p for b in learn.model.branches for p in b.head.parameters()}
    assert heads <= last.moved
    assert all(p.grad is not None for p in want.factor)


def test_the_oracle_sees_a_tensor_that_moves():
    "The test above fails when the library does not freeze: a bit of a frozen weight, and a rate."
    body = stored('batch_norms')
    s = [Strategy('a', freeze=0.5), Strategy('b', lr_mult=3)]
    learn = amf_learner(toy_dls(n=12, bs=4), copy.deepcopy(body), s, policy=None, pretrained=False, seed=0)
    learn.remove_cb(ProgressCallback)
    learn.logger = lambda *a: None
    want = Expected(learn.model, s, body.stages)
    check_fixed(want)
    w = next(learn.model.trunk.parameters())
    with torch.no_grad(): w[0, 0, 0, 0] = torch.nextafter(w[0, 0, 0, 0], torch.tensor(9.))
    with pytest.raises(AssertionError, match='moved'): check_fixed(want)
    for p in learn.model.branches[1].head.parameters(): want.factor[p] = 1
    with pytest.raises(AssertionError): learn.fit(1, 1e-2, cbs=Spy(want, False, 0))
    learn.model.branches[1].head[1].weight = learn.model.branches[0].head[1].weight
    learn.opt = None
    with pytest.raises(AssertionError): check_groups(learn, want)
