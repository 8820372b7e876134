"What always holds, one test each; the chapters show most of it in more depth."
import copy
import socket
import time

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback

from amf_nb.core import Strategy, amf_learner, create_backbone, fuse, get_strategy, image_dls, load_amf, register_strategy
from amf_nb.method.branches import Trunk
from amf_nb.method.fusion import AMFModel, create_amf_model
from amf_nb.method.strategies import resolve_strategies
from amf_nb.train.side_by_side import amf_groups
from amf_nb.test_utils import toy_dls, toy_learner


def state(m): return {k: v.clone() for k, v in m.state_dict().items()}


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.mark.parametrize("how", ["log_probs", "probs"])
def test_1_weights_and_fusion(how):
    "Weights sum to 1; equal weights are the plain average and a one-hot weight is that branch."
    torch.manual_seed(0)
    bb = create_backbone("test_resnet", pretrained=False)
    m = create_amf_model(bb, [Strategy("all"), Strategy("top", freeze=0.5), Strategy("head", freeze=1)], 4, fusion=how).eval()
    for p in m.policy.parameters(): torch.nn.init.normal_(p)
    with torch.no_grad(): parts = m.parts(torch.randn(5, 3, 32, 32))
    w, z = parts.weights_N_K, parts.logits_N_K_C
    assert (w >= 0).all() and torch.allclose(w.sum(1), torch.ones(5), atol=1e-6) and w.std(0).max() > 1e-4
    for k in range(3):
        one = F.one_hot(torch.full((5,), k), 3).float()
        with torch.no_grad(): assert torch.allclose(m.combine(parts, one).softmax(1), z[:, k].softmax(1), atol=1e-6)
    m.strength.zero_()
    assert torch.allclose(m.weigh(parts.inputs, 5), torch.full((5, 3), 1 / 3), atol=1e-6)
    if how == "probs":
        with torch.no_grad(): assert torch.allclose(m.combine(parts, torch.full((5, 3), 1 / 3)).softmax(1), z.softmax(-1).mean(1), atol=1e-6)


@pytest.mark.parametrize("how", ["train", "unfreeze", "fp16", "resume"])
def test_2_frozen_is_frozen(how, tmp_path):
    "Nothing in the trunk moves by a bit, and nothing in it is ever in training mode."
    learn = toy_learner(4)
    learn.path = tmp_path
    before = state(learn.model.trunk)
    if how == "train": learn.model.train(); [m.train() for m in learn.model.trunk.modules()]
    if how == "unfreeze": learn.freeze(); learn.unfreeze(); learn.model.requires_grad_(True)
    if how == "fp16": learn.to_fp16()
    learn.fit(1, 1e-2)
    if how == "resume":
        learn.save("x", with_opt=True)
        learn = toy_learner(4)
        learn.path = tmp_path
        learn.create_opt()
        learn.load("x", with_opt=True).fit(1, 1e-2)
    assert same(before, state(learn.model.trunk))
    learn.model.train()
    learn.model.trunk(torch.randn(2, 3, 32, 32))
    assert not any(m.training for m in learn.model.trunk.modules())
    norms = next(b for b in learn.model.branches if b.strategy.name == "norms")  # its convolutions are frozen too, and shared
    assert {id(p) for p in norms.parameters()} & {id(p) for p in learn.model.trunk.parameters()}


def test_3_one_group_each():
    "Every parameter is in one group or frozen for good, and `unfreeze` does not thaw it."
    learn = toy_learner(5)
    for step in (learn.create_opt, learn.freeze, learn.unfreeze, lambda: learn.freeze_to(-2), learn.unfreeze):
        step()
        ids = [id(p) for pg in learn.opt.param_lists for p in pg]
        assert len(ids) == len(set(ids))
        assert ids == [id(p) for g in amf_groups(learn.model) for p in g["params"]]
        assert not any(p.requires_grad for p in learn.model.parameters() if id(p) not in set(ids))


def test_4_learning_rates():
    "In the step every parameter has base_lr * lr_mult * stage_decay**depth times the schedule."
    strategies = [Strategy("a", lr_mult=3, stage_decay=0.5), Strategy("b", freeze=0.6, lr_mult=0.2, stage_decay=0.9)]
    learn = amf_learner(toy_dls(), "test_resnet", strategies, pretrained=False)
    learn.logger = lambda *a: None
    by_name, rows = {s.name: s for s in strategies}, []

    class Spy(Callback):
        order = 100
        def before_batch(self): self.base = self.opt.hypers[0]["lr"]
        def before_step(self):
            for g, h in zip(amf_groups(self.model), self.opt.hypers):
                s = by_name.get(g["name"], Strategy("policy"))
                rows.append((h["lr"], self.base * s.lr_mult * s.stage_decay ** g["depth"]))

    with learn.no_bar(): learn.fit_one_cycle(1, 1e-2, cbs=Spy())
    got, want = np.array(rows).T
    assert np.allclose(got, want, rtol=1e-12) and len(set(want)) > 20


def test_5_sharing_changes_nothing():
    "Shared and unshared branches give the same outputs, and the shared stages are there and run once."
    torch.manual_seed(0)
    bb = create_backbone("test_convnext", pretrained=False).eval()
    strategies = [Strategy("top", freeze=0.4), Strategy("half", freeze=0.6), Strategy("head", freeze=1)]
    m = create_amf_model(bb, strategies, 3).eval()
    x, calls = torch.randn(4, 3, 64, 64), []
    hooks = [s.register_forward_hook(lambda *a: calls.append(1)) for s in m.trunk.stages]
    with torch.no_grad(): z = m.parts(x).logits_N_K_C
    assert len(calls) == len(m.trunk.stages) == 5
    [h.remove() for h in hooks]
    for k, b in enumerate(m.branches):
        alone = AMFModel(Trunk(copy.deepcopy(bb.stages[:b.start])), [copy.deepcopy(b)]).eval()
        with torch.no_grad(): assert torch.allclose(alone.parts(x).logits_N_K_C[:, 0], z[:, k], atol=1e-5)


def test_6_no_test_label_is_used():
    "Scrambled validation labels leave every weight of branches and policy as it was."
    def weights(scramble):
        learn = toy_learner(3)
        y = learn.dls.valid_ds.tls[1]
        if scramble: y.items = y.items[::-1]
        learn.fine_tune(4, 1e-2, holdout=0.25)
        return state(learn.model)
    assert same(weights(False), weights(True))


def test_7_same_seed_same_bits():
    "The same seed twice, also on the same DataLoaders used before."
    dls = toy_dls()
    runs = []
    for _ in range(2):
        learn = toy_learner(3, dls=dls)
        learn.fine_tune(4, 1e-2, holdout=0.25)
        runs.append(state(learn.model))
    assert same(*runs)


BAD = {
    "freeze": (lambda: Strategy("x", freeze=1.5), "between 0"),
    "no strategies": (lambda: resolve_strategies([]), "at least one"),
    "a name twice": (lambda: resolve_strategies(["standard", "standard"]), "name"),
    "registered twice": (lambda: register_strategy(Strategy("standard", freeze=1)), "another name"),
    "unknown strategy": (lambda: get_strategy("standart"), "known are"),
    "unknown arch": (lambda: create_backbone("resnet81", pretrained=False), "resnet18"),
    "channels": (lambda: create_backbone("test_resnet", pretrained=False, n_in=0), "n_in"),
    "unknown fusion": (lambda: fuse(torch.zeros(1, 2, 3), torch.ones(1, 2) / 2, "mean"), "log_probs"),
    "policy without trunk": (lambda: amf_learner(toy_dls(), "test_resnet", ["standard"], "trunk", pretrained=False), "policy='cnn'"),
    "holdout": (lambda: toy_learner().fine_tune(1, holdout=2), "holdout"),
    "no folder": (lambda: image_dls("/nowhere/at/all"), "not a folder"),
    "no model": (lambda: load_amf("/nowhere/at/all"), "save_amf"),
    "strange classes": (lambda: _one_class_more(), "knows 2 classes"),
}


def _one_class_more():
    dls = toy_dls()
    dls.c = 2
    learn = amf_learner(dls, "test_resnet", ["head_only"], policy=None, pretrained=False)
    learn.loss_func = lambda p, y: p.sum()
    learn.control_panel()


@pytest.mark.parametrize("case", BAD)
def test_8_bad_input(case):
    "Refused, with the remedy."
    call, remedy = BAD[case]
    with pytest.raises((ValueError, OSError)) as e: call()
    assert remedy in str(e.value)


def test_9_no_network(monkeypatch):
    "Without a network weights fail at once, with the ways out."
    def refuse(*args, **kwargs): raise OSError("network is unreachable")
    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    start = time.perf_counter()
    with pytest.raises(OSError) as e: create_backbone("convnext_small.fb_in22k")
    assert time.perf_counter() - start < 10
    assert all(way in str(e.value) for way in ("weights=path", "pretrained=False"))
