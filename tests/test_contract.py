"Everything that a fastai user does to a Learner, done to an AMF learner with 1, 2, 3 and 5 branches."
import warnings

import fastai.vision.all  # noqa: F401  what a fastai user has loaded: patches and type dispatch
import pytest
import torch
from fastai.callback.all import (ChannelsLast, CutMix, EarlyStoppingCallback, GradientAccumulation, GradientClip, MixUp, ReduceLROnPlateau,
                                 SaveModelCallback)
from fastai.callback.core import Callback
from fastai.interpret import ClassificationInterpretation
from fastai.learner import load_learner
from fastai.losses import CrossEntropyLossFlat, LabelSmoothingCrossEntropy
from fastai.vision.augment import Normalize

import amf_nb.core  # noqa: F401  with all methods of a learner
from amf_nb.train.side_by_side import amf_groups
from amf_nb.test_utils import toy_dls, toy_images, toy_learner

warnings.filterwarnings("ignore")


@pytest.fixture(params=[1, 2, 3, 5])
def make(request, tmp_path):
    "Makes learners with K branches whose files go to a temporary folder."
    def make(**kwargs):
        learn = toy_learner(request.param, **kwargs)
        learn.path = tmp_path
        return learn
    make.k = request.param
    return make


def state(learn): return {k: v.clone() for k, v in learn.model.state_dict().items()}


def frozen(learn): return {k: v for k, v in state(learn).items() if k.startswith("trunk.")}


def same(a, b): return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


SCHEDULES = dict(
    fit=lambda l: l.fit(1, 1e-3),
    one_cycle=lambda l: l.fit_one_cycle(1, 1e-3),
    one_cycle_slice=lambda l: l.fit_one_cycle(1, slice(1e-5, 1e-3)),
    flat_cos=lambda l: l.fit_flat_cos(1, 1e-3),
    sgdr=lambda l: l.fit_sgdr(1, 1, 1e-3),
    fine_tune=lambda l: l.fine_tune(2, 1e-3),
    freeze=lambda l: (l.freeze(), l.fit(1, 1e-3), l.unfreeze(), l.fit(1, 1e-3)),
    freeze_to=lambda l: (l.freeze_to(-2), l.fit(1, 1e-3)),
)
CALLBACKS = dict(
    mixup=lambda: MixUp(), cutmix=lambda: CutMix(), clip=lambda: GradientClip(0.1), accumulate=lambda: GradientAccumulation(16),
    channels_last=lambda: ChannelsLast(), save_best=lambda: SaveModelCallback(), early=lambda: EarlyStoppingCallback(patience=1),
    plateau=lambda: ReduceLROnPlateau(patience=1), two_together=lambda: [MixUp(), GradientAccumulation(16), GradientClip(0.1)],
)
LOSSES = dict(smooth=lambda: LabelSmoothingCrossEntropy(), weighted=lambda: CrossEntropyLossFlat(weight=torch.tensor([1., 2., 3.])))


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedules(make, schedule):
    learn = make()
    trunk, start = frozen(learn), state(learn)
    SCHEDULES[schedule](learn)
    assert same(trunk, frozen(learn))
    assert not same(start, state(learn))
    assert all(torch.isfinite(v).all() for v in learn.model.state_dict().values())


@pytest.mark.parametrize("callback", CALLBACKS)
def test_callbacks(make, callback):
    learn = make()
    trunk, loss = frozen(learn), learn.loss_func
    learn.fit_one_cycle(2, 1e-3, cbs=CALLBACKS[callback]())
    assert same(trunk, frozen(learn))
    assert learn.loss_func is loss  # MixUp and CutMix put it back
    assert len(learn.recorder.values) >= 1


@pytest.mark.parametrize("loss", LOSSES)
def test_losses(make, loss):
    learn = make(loss_func=LOSSES[loss]())
    learn.fit(1, 1e-3)
    assert torch.isfinite(torch.tensor(learn.recorder.values[-1][0]))


def test_branches_get_the_loss_that_mixup_swaps_in(make):
    "What is back-propagated is the sum over branches of the learner's present loss function."
    learn, seen = make(), []

    class Check(Callback):
        order = 7
        def after_loss(self):
            if not self.training: return
            want = sum(self.learn.loss_func(z, *self.yb) for z in self.model.last.logits_N_K_C.unbind(1))
            want += sum(b.strategy.l2_sp and 0. for b in self.model.branches)
            seen.append((self.learn.loss_grad - want).abs().item() < 1e-2 and self.learn.loss_grad.grad_fn is not None)

    learn.fit(1, 1e-3, cbs=[MixUp(), Check()])
    assert seen and all(seen)


@pytest.mark.parametrize("precision", ["to_fp16", "to_bf16"])
def test_mixed_precision(make, precision):
    learn = getattr(make(), precision)()
    trunk = frozen(learn)
    learn.fit(1, 1e-3)
    assert same(trunk, frozen(learn))
    learn.to_fp32().fit(1, 1e-3)


def test_lr_find_changes_nothing(make):
    learn = make()
    before = state(learn)
    res = learn.lr_find(num_it=12, show_plot=False)
    assert res.valley > 0
    assert same(before, state(learn))


def test_predictions(make):
    learn = make()
    learn.fit(1, 1e-2)
    preds, targs = learn.get_preds()
    assert preds.shape == (32, 3) and torch.allclose(preds.sum(1), torch.ones(32), atol=1e-5)
    loss, acc = learn.validate()
    assert abs((preds.argmax(1) == targs).float().mean().item() - acc) < 1e-6
    x, _ = toy_images(6, seed=3)
    test, none = learn.get_preds(dl=learn.dls.test_dl([*x]))
    assert none is None and test.shape == (6, 3)
    label, index, probs = learn.predict(x[2])
    assert torch.allclose(probs, test[2], atol=1e-5) and learn.dls.vocab[int(index)] == label
    assert learn.tta(n=2)[0].shape == (32, 3)
    assert learn.get_preds(ds_idx=0, with_loss=True)[2].shape == (64,)
    weights = learn.policy_weights()
    assert weights.shape == (32, make.k) and torch.allclose(weights.sum(1), torch.ones(32), atol=1e-6)
    assert learn.branch_logits()[0].shape == (32, make.k, 3)
    assert len(learn.control_panel()) == 4 + make.k + 1


def test_looking(make):
    learn = make()
    learn.show_results(max_n=2)
    assert "Total params" in str(learn.summary())
    interp = ClassificationInterpretation.from_learner(learn)
    assert interp.confusion_matrix().sum() == 32
    interp.plot_confusion_matrix()
    interp.plot_top_losses(2)
    interp.most_confused()
    learn.recorder.plot_loss(with_valid=False)
    learn.show_training_loop()


def test_save_and_load_with_optimizer(make):
    a, b = make(), make()
    a.fit(1, 1e-3)
    a.save("m", with_opt=True)
    b.create_opt()
    b.load("m", with_opt=True)
    assert same(state(a), state(b))
    for learn in (a, b):
        torch.manual_seed(0)
        learn.dls = toy_dls(seed=4)
        learn.dls.valid.after_batch = a.dls.valid.after_batch
        learn.fit(1, 1e-3)
    assert same(state(a), state(b))  # optimiser state included: the next epoch is the same


def test_export(make, tmp_path):
    learn = make()
    learn.fit(1, 1e-3)
    learn.export("l.pkl")
    x, _ = toy_images(3)
    again = load_learner(tmp_path / "l.pkl")
    assert torch.allclose(again.predict(x[0])[2], learn.predict(x[0])[2], atol=1e-6)  # a copy may lie in memory in another way
    learn.fit(1, 1e-3)  # and the exported one goes on training


@pytest.mark.parametrize("cb", [None, "unfreeze", "fp16"])
def test_rates_and_groups(make, cb):
    "Each trainable parameter is in one group and gets base_lr * lr_mult * stage_decay**depth in the very step."
    learn, seen = make(), {}
    if cb == "fp16": learn.to_fp16()
    if cb == "unfreeze": learn.freeze(); learn.unfreeze()
    strategies = {b.strategy.name: b.strategy for b in learn.model.branches}

    class Spy(Callback):
        order = 100
        def before_step(self): seen.update({id(p): h["lr"] for pg, h in zip(self.opt.param_lists, self.opt.hypers) for p in pg})

    learn.fit(1, 2e-3, cbs=Spy())
    groups = amf_groups(learn.model)
    ids = [id(p) for g in groups for p in g["params"]]
    assert len(ids) == len(set(ids)) == len(seen)
    assert set(ids) == {id(p) for p in learn.model.parameters() if p.requires_grad}
    for g in groups:
        s = strategies.get(g["name"])
        want = 2e-3 * (s.lr_mult * s.stage_decay ** g["depth"] if s else 1)
        assert all(abs(seen[id(p)] - want) < 1e-12 for p in g["params"]), g["name"]


def test_same_seed_same_bits(make):
    runs = []
    for _ in range(2):
        learn = make()
        learn.fine_tune(4, 1e-2, holdout=0.25)
        runs.append(state(learn))
    assert same(*runs)


def test_several_labels_an_image(tmp_path):
    "Multi-label targets: a sigmoid for each class, in training, control panel, prediction and on disk."
    from fastai.vision.augment import Resize
    from amf_nb.core import load_amf
    from amf_nb.data.loaders import pair_dls
    x, y = toy_images(96)
    names = ["red", "green", "blue"]
    x[::2, :, :, 0] = 255  # half of the images are red as well
    pairs = [(i, sorted({names[c], *(["red"] if k % 2 == 0 else [])})) for k, (i, c) in enumerate(zip(x, y))]
    dls = pair_dls(pairs[:64], pairs[64:], names, Resize(32), [], bs=8, seed=0, multi=True, num_workers=0)
    for fusion in ("log_probs", "probs"):
        learn = toy_learner(3, dls=dls, fusion=fusion)
        assert learn.model.multilabel
        learn.fine_tune(4, 1e-2, holdout=0.25)
        panel = learn.control_panel()
        assert abs(panel.accuracy["policy"] - learn.validate()[1]) < 1e-6 and panel.accuracy["policy"] > 0.6
        assert (panel.low <= panel.accuracy).all() and panel.nll["uniform"] > 0
    again = load_amf(learn.save_amf(tmp_path / "m"))
    a, b = (m.get_preds(dl=m.dls.test_dl([*x[:5]]))[0] for m in (learn, again))
    assert torch.allclose(a, b, atol=1e-6) and ((a > 0) & (a < 1)).all()  # a copy may lie in memory in another way
    assert again.predict(x[0])[2].shape == (3,)


def test_grey_images():
    "One channel in, as fastai's `PILImageBW` gives it."
    from fastai.data.block import CategoryBlock, DataBlock
    from fastai.data.transforms import IndexSplitter
    from fastai.vision.core import PILImageBW
    from fastai.vision.data import ImageBlock
    x, y = toy_images(48)
    block = DataBlock((ImageBlock(PILImageBW), CategoryBlock), get_items=lambda s: range(48), get_x=lambda i: x[i].mean(2).astype("uint8"),
                      get_y=lambda i: int(y[i]), splitter=IndexSplitter(range(32, 48)))
    learn = toy_learner(3, dls=block.dataloaders(None, bs=8, num_workers=0), n_in=1)
    learn.fit(1, 1e-2)
    assert learn.get_preds()[0].shape == (16, 3)


def test_fused_learners_train_on(make):
    "Learners trained elsewhere, different architectures and normalisations, joined: every branch says what its learner says."
    from amf_nb.core import fuse_learners
    dls = toy_dls()
    dls.add_tfms([Normalize.from_stats([0.6] * 3, [0.2] * 3, cuda=False)], "after_batch")  # its own normalisation
    a, b = make(), toy_learner(1, arch="test_convnext", dls=dls)
    for learn in (a, b): learn.fit(1, 1e-2)
    both = fuse_learners([a, b], names=["a", "b"])
    both.logger = lambda *args: None
    logits, _ = both.branch_logits()
    for k, learn in enumerate((a, b)): assert torch.allclose(logits[:, k].softmax(-1), learn.get_preds()[0], atol=1e-4)
    both.fit_policy(toy_dls(seed=5).valid, epochs=2)
    both.fit_one_cycle(1, 1e-4)
    assert len(both.control_panel()) == 7


def test_routing_and_collapse(make):
    "Prediction with fewer branches, and with one network, in everything that predicts."
    learn = make()
    learn.fine_tune(2, 1e-2, holdout=0.25)
    dense, x = learn.get_preds()[0], toy_images(5)[0]
    for rule in (dict(top_k=1), dict(confident=0.5), dict(threshold=0.4)):
        learn.route(**rule)
        routed = learn.get_preds()[0]
        assert torch.allclose(routed.sum(1), torch.ones(len(routed)), atol=1e-5)
        assert learn.predict(x[0])[2].shape == (3,) and len(learn.control_panel()) == 5 + make.k
        if make.k == 1: assert torch.allclose(routed, dense, atol=1e-6)
    learn.route()
    assert torch.equal(learn.get_preds()[0], dense)
    one = learn.collapse("best", branch=learn.model.names[0])
    k = learn.branch_logits()[0][:, 0].softmax(1)
    with one.no_bar(): assert torch.allclose(one.get_preds()[0], k, atol=1e-5)


def test_fused_learners_are_routed(make):
    "Learners that were trained elsewhere share nothing, and can be left out all the same."
    from amf_nb.core import fuse_learners
    a, b = make(), toy_learner(1, arch="test_convnext")
    both = fuse_learners([a, b], names=["a", "b"])
    both.route(top_k=1)
    with both.no_bar(): assert torch.allclose(both.get_preds()[0], a.get_preds()[0], atol=1e-5)
