"What a newcomer brings to a learner: few images, loaders from elsewhere, second fits, any loss, any list of classes."
import argparse
import copy
import warnings
from functools import partial

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import timm
import torch
import torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.data import PartialDL, WeightedDL
from fastai.callback.mixup import CutMix, MixUp
from fastai.callback.progress import ProgressCallback
from fastai.callback.schedule import Learner
from fastai.callback.tracker import SaveModelCallback
from fastai.data.block import CategoryBlock, DataBlock, MultiCategoryBlock
from fastai.data.core import DataLoaders
from fastai.data.transforms import CategoryMap, IndexSplitter, IntToFloatTensor
from fastai.learner import load_learner
from fastai.losses import (BCEWithLogitsLossFlat, FocalLoss, FocalLossFlat,
                           LabelSmoothingCrossEntropy, LabelSmoothingCrossEntropyFlat, MSELossFlat)
from fastai.metrics import AccumMetric, accuracy
from fastai.torch_core import set_seed
from fastai.vision.augment import Normalize, Resize
from fastai.vision.core import PILImage, PILImageBW
from fastai.vision.data import ImageBlock
from timm import loss as timm_losses
from torch import nn

import amf_nb.core  # noqa: F401  with all methods of a learner
from amf_nb.method.backbones import create_backbone
from amf_nb.train.cost import FeatureDL
from amf_nb.data.loaders import array_dls, pair_dls
from amf_nb.train.making import amf_learner, branch_learner, fuse_learners
from amf_nb.train.expected import norm_stats
from amf_nb.method.strategies import Strategy
from amf_nb.use.explore import _costs_for
from amf_nb.use.interpret import AMFInterpretation
from amf_nb.use.saving import load_amf
from amf_nb.test_utils import toy_dls, toy_images, toy_learner, toy_strategies

RGB = ['red', 'green', 'blue']
WEIGHTS = torch.tensor([1., 2., 3.])


def silent(learn):
    learn.logger = lambda *a: None
    return learn.remove_cbs(ProgressCallback)


def make(dls, strategies=None, **kwargs):
    "A silent learner with a small network."
    set_seed(0)
    kwargs = dict(pretrained=False, seed=0) | kwargs
    return silent(amf_learner(dls, 'test_efficientnet', strategies or toy_strategies(), **kwargs))


def loaders(n, n_valid=9, vocab=RGB, seed=0, **kwargs):
    "Loaders of `n` training images, classes 0, 1, 2, 0 .."
    return array_dls(*toy_images(n, seed=seed), *toy_images(n_valid, seed=seed + 1), vocab=vocab, size=32, **kwargs)


def fastai_dls(n=29, n_valid=6, bs=64, image=PILImage, label=lambda i: RGB[i], block=CategoryBlock, **kwargs):
    "Loaders made with nothing but fastai."
    x, y = toy_images(n + n_valid)
    cls = DataBlock((ImageBlock(image), block()), get_x=lambda i: x[i] if image is PILImage else x[i].mean(-1).astype(np.uint8),
                    get_y=lambda i: label(y[i]), splitter=IndexSplitter(range(n, n + n_valid)), item_tfms=Resize(32))
    return cls.dataloaders(range(n + n_valid), bs=bs, num_workers=0, **kwargs)


def trained(learn, epochs=2):
    "`learn` after a fit that must have had steps and finite losses."
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    learn.fine_tune(epochs)
    assert len(learn.recorder.losses) >= epochs and np.isfinite(learn.recorder.losses).all()
    assert np.isfinite(np.array(learn.recorder.values, float)).all()
    assert any(not torch.equal(v, before[k]) for k, v in learn.model.state_dict().items())
    return learn


# ------------------------------------------------------------------------------------------------- at least one step

@pytest.mark.parametrize('n,bs', [(28, 64), (29, 64), (70, 64), (33, 32), (20, 256), (65, 64), (2, 64), (3, 2)])
def test_any_number_of_images_trains(n, bs):
    learn = trained(make(loaders(n, bs=bs)))
    assert min(dl.bs for dl in learn.dls.loaders[:1]) >= 2


@pytest.mark.parametrize('n', [21, 29, 65])
def test_fastais_own_loaders_train(n): trained(make(fastai_dls(n)))


def test_a_batch_is_never_one_image():
    sizes = []
    learn = make(DataLoaders(*[dl.new(bs=8, drop_last=False) for dl in loaders(33).loaders]))
    learn.model.register_forward_pre_hook(lambda m, x: sizes.append(len(x[0])) if m.training else None)
    trained(learn)
    assert min(sizes) >= 2


@pytest.mark.parametrize('n', [28, 34])
def test_few_stored_activations_train(n):
    learn = make(loaders(n, bs=n, augs=[]))
    with learn.feature_cache(): trained(learn)


def test_stored_activations_have_at_least_one_batch_after_the_hold_out():
    learn = make(loaders(40, bs=40, augs=[]))
    with learn.feature_cache():
        rest, held = learn.hold_out(0.2)
        assert isinstance(rest, FeatureDL) and (len(rest), rest.bs) == (1, 32)


def test_a_process_of_several_has_a_batch(monkeypatch):
    "Two processes draw half of the images each."
    monkeypatch.setenv('WORLD_SIZE', '2')
    learn = make(loaders(40, bs=32))
    assert learn.dls.train.bs == 20
    assert learn.hold_out(0.1)[0].bs == 18


@pytest.mark.parametrize('fit', ['fine_tune', 'fit', 'fit_one_cycle', 'lr_find'])
def test_one_image_is_refused(fit):
    learn = make(loaders(1))
    with pytest.raises(ValueError, match='`bs`=.* 1 training images'): getattr(learn, fit)(**({} if fit == 'lr_find' else dict(epochs=1) if fit == 'fine_tune' else dict(n_epoch=1)))
    assert not learn.trained


def test_loaders_that_are_put_in_one_by_one_are_looked_at_too():
    learn = make(loaders(29))
    for name, dl in (('train', loaders(29).train.new(bs=64)), ('valid', loaders(29).valid)): setattr(learn.dls, name, dl)
    trained(learn)
    learn.fit(1)
    assert learn.dls.train.bs == 29 and all(norm_stats(dl) for dl in learn.dls.loaders)
    learn.dls.valid = loaders(29, vocab=RGB[::-1]).valid
    assert torch.equal(learn.branch_logits()[1], 2 - torch.tensor(toy_images(9, seed=1)[1]))


def test_weighted_and_partial_loaders_stay_what_they_are():
    dls = toy_dls()
    w = np.where(np.arange(64) % 3 == 0, 1., 0.)
    rare = DataLoaders(dls.train.new(cls=WeightedDL, wgts=w), dls.valid)
    seen = []
    learn = make(rare)
    learn.loss_func = lambda z, y: (seen.extend(y.tolist()) if learn.training else None, F.cross_entropy(z, y))[1]
    trained(learn)
    assert set(seen) == {0}
    few = make(DataLoaders(dls.train.new(cls=PartialDL, partial_n=16), dls.valid))
    assert len(trained(few, 1).recorder.losses) == 2


# ------------------------------------------------------------------------------------------------ loaders from elsewhere

@pytest.fixture(scope='module')
def fitted():
    learn = make(toy_dls())
    learn.fine_tune(8, 1e-2, holdout=0.3)  # on 45 images to the end
    return learn


def foreign(vocab=RGB, classes=(0, 1, 2), multi=False, seed=5):
    "A loader that `pair_dls` made of images of some classes, without normalisation, and their class numbers in `RGB`."
    x, y = toy_images(60, seed=seed)
    keep = [i for i in range(60) if y[i] in classes]
    pairs = [(x[i], [RGB[y[i]]] if multi else RGB[y[i]]) for i in keep]
    return pair_dls(pairs, pairs, vocab, Resize(32), IntToFloatTensor(), bs=8, multi=multi, seed=0).valid, torch.tensor(y[keep])


def want(learn, dl_images):
    "The probabilities that predict gives, one image at a time."
    return torch.stack([learn.predict(img)[2] for img in dl_images])


CASES = dict(same=(RGB, (0, 1, 2)), order=(['green', 'blue', 'red'], (0, 1, 2)), fewer=(['blue', 'red'], (0, 2)))


@pytest.mark.parametrize('case', CASES)
def test_every_method_that_takes_a_loader_gives_what_predict_gives(fitted, case):
    vocab, classes = CASES[case]
    dl, y = foreign(vocab, classes)
    assert norm_stats(dl) is None
    probs = want(fitted, [pair[0] for pair in dl.dataset.items])
    acc = (probs.argmax(1) == y).float().mean().item()
    got, targets = fitted.get_preds(dl=dl)
    torch.testing.assert_close(got, probs, atol=1e-5, rtol=1e-4)
    assert torch.equal(targets.as_subclass(torch.Tensor), y)
    assert fitted.validate(dl=dl)[1] == pytest.approx(acc, abs=1e-6)
    assert fitted.control_panel(dl).accuracy['policy'] == pytest.approx(acc, abs=1e-6)
    assert torch.equal(fitted.branch_logits(dl)[1], y)
    assert fitted.policy_weights(dl).shape == (len(y), 3)
    torch.testing.assert_close(fitted.gather_parts(dl).weights_N_K, fitted.gather_parts(fitted.loader(dl)).weights_N_K)
    assert acc > 0.8


@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('kept', ['best', 'distil', 'exported'])
def test_a_collapsed_learner_sees_loaders_from_elsewhere_as_the_fused_one_does(fitted, case, kept, tmp_path):
    dl, y = foreign(*CASES[case])
    how = dict(how='distil', epochs=1) if kept == 'distil' else dict(how='best', branch=fitted.model.names[0])
    one = silent(fitted.collapse(**how))
    if kept == 'exported':
        one.path = tmp_path
        one.export('one.pkl')
        one = silent(load_learner(tmp_path / 'one.pkl'))
    probs = want(one, [pair[0] for pair in dl.dataset.items])
    got, targets = one.get_preds(dl=dl)
    torch.testing.assert_close(got, probs, atol=1e-5, rtol=1e-4)
    assert torch.equal(targets.as_subclass(torch.Tensor), y)
    right = (probs.argmax(1) == y).float().mean().item()
    assert one.validate(dl=dl)[1] == pytest.approx(right, abs=1e-6)
    with pytest.raises(ValueError, match='several labels'): one.validate(dl=foreign(multi=True)[0])


def test_a_policy_is_fitted_on_images_as_the_model_expects_them(fitted):
    dl, y = foreign(['green', 'blue', 'red'])
    learn = make(toy_dls())
    learn.model.load_state_dict(fitted.model.state_dict())
    learn.fit_policy(dl, epochs=2)
    assert torch.equal(learn.held.targets, y)
    torch.testing.assert_close(learn.held.logits_N_K_C, learn.branch_logits(dl)[0], atol=1e-5, rtol=1e-4)


def test_the_loader_itself_stays_as_it_is(fitted):
    dl, _ = foreign(['green', 'blue', 'red'])
    fitted.control_panel(dl)
    assert norm_stats(dl) is None and list(dl.vocab) == ['green', 'blue', 'red']


def test_fastais_own_loader_is_taken_too(fitted):
    dls = fastai_dls(n=30, n_valid=30, label=lambda i: RGB[i])
    x, y = toy_images(60)
    assert fitted.validate(dl=dls.valid)[1] == pytest.approx(
        np.mean([fitted.predict(x[i])[0] == RGB[y[i]] for i in range(30, 60)]), abs=1e-6)


def test_several_labels_by_name():
    def dls(vocab):
        x, y = toy_images(36)
        pairs = [(img, [RGB[i], 'blue']) for img, i in zip(x, y)]
        return pair_dls(pairs[:24], pairs[24:], vocab, Resize(32), IntToFloatTensor(), bs=8, multi=True, seed=0)
    learn = trained(make(dls(RGB)))
    dl = dls(['blue', 'red', 'green']).valid
    torch.testing.assert_close(learn.get_preds(dl=dl)[1], learn.get_preds()[1])
    assert learn.control_panel(dl).accuracy['uniform'] == pytest.approx(learn.control_panel().accuracy['uniform'], abs=1e-6)
    with pytest.raises(ValueError, match='one label an image'): learn.control_panel(foreign()[0])


@pytest.mark.parametrize('vocab', [[*RGB, 'pink'], ['red', 'pink']])
def test_unknown_classes_are_named(fitted, vocab):
    x, _ = toy_images(4)
    dl = pair_dls([(img, vocab[-1]) for img in x], [(img, vocab[-1]) for img in x], vocab, Resize(32), [], bs=4).valid
    for f in (fitted.control_panel, fitted.fit_policy, lambda dl: fitted.get_preds(dl=dl), lambda dl: fitted.validate(dl=dl)):
        with pytest.raises(ValueError, match='pink'): f(dl)


def test_what_cannot_be_brought_is_refused(fitted):
    dl, _ = foreign()
    other = dl.new(after_batch=[*dl.after_batch.fs, Normalize.from_stats([.1] * 3, [.9] * 3, cuda=False)])
    with pytest.raises(ValueError, match='`dl` is normalised by mean'): fitted.control_panel(other)
    with pytest.raises(ValueError, match='several labels'): fitted.control_panel(foreign(multi=True)[0])
    with pytest.raises(ValueError, match='dls.valid'): fitted.control_panel(fitted.dls)
    with pytest.raises(TypeError, match='test_dl'): fitted.get_preds(dl=torch.utils.data.DataLoader([1]))
    unlabelled = fitted.dls.test_dl([*toy_images(4)[0]])
    assert fitted.policy_weights(unlabelled).shape == (4, 3)
    for f in (fitted.control_panel, fitted.fit_policy, fitted.branch_logits):
        with pytest.raises(ValueError, match='without labels'): f(unlabelled)


def test_new_dls_are_brought_to_what_the_model_expects(fitted):
    learn = make(toy_dls())
    learn.model.load_state_dict(fitted.model.state_dict())
    new = loaders(30, 30, vocab=['green', 'blue', 'red'], seed=8)  # red pictures come first, and are called green here
    learn.dls = new
    assert learn.dls.vocab == RGB and norm_stats(learn.dls.train) == norm_stats(fitted.dls.train)
    assert norm_stats(new.train) is None
    y = (torch.tensor(toy_images(30, seed=9)[1]) + 1) % 3
    assert torch.equal(learn.branch_logits()[1], y)
    trained(learn)
    with pytest.raises(ValueError, match='pink'): learn.dls = loaders(12, vocab=['red', 'green', 'pink'])
    with pytest.raises(TypeError, match='DataLoaders'): learn.dls = new.train
    assert learn.dls.vocab == RGB


def test_two_backbones_share_their_dls():
    dls = toy_dls()
    nets = [create_backbone('test_efficientnet', pretrained=False), create_backbone('test_resnet', pretrained=False)]
    nets[1].mean, nets[1].std = (.5,) * 3, (.5,) * 3
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learners = [silent(amf_learner(dls, bb, toy_strategies())) for bb in nets]
    for learn, bb in zip(learners, nets): np.testing.assert_allclose(norm_stats(learn.dls.train), [bb.mean, bb.std], atol=1e-6)
    assert norm_stats(dls.train) is None


def test_a_loader_for_test_time_augmentation_is_normalised(fitted):
    dl, y = foreign()
    assert (fitted.tta(dl=dl, n=1)[0].argmax(1) == y).float().mean() > 0.8


# ---------------------------------------------------------------------------------------------------------- second fits

FITS = dict(fit=lambda l: l.fit(1), one_cycle=lambda l: l.fit_one_cycle(1), fine_tune=lambda l: l.fine_tune(1))


@pytest.mark.parametrize('fit', FITS)
def test_branches_that_were_trained_get_no_hold_out(fit):
    learn = make(toy_dls())
    FITS[fit](learn)
    assert learn.trained
    before, seen = learn.policy_fit, []
    learn.model.register_forward_pre_hook(lambda m, x: seen.append(len(x[0])) if m.training else None)
    with pytest.warns(UserWarning, match='learn.fit_policy'): learn.fine_tune(1)
    assert sum(seen) == 64 and learn.policy_fit is before


def test_what_does_not_train_branches_does_not_count():
    learn = make(toy_dls())
    learn.lr_find(num_it=6, show_plot=False)
    learn.fit_policy(learn.hold_out(0.5)[1], epochs=2)
    learn.get_preds()
    assert not learn.trained and learn.best_branch in learn.model.names
    learn.fine_tune(2, holdout=0.3)
    assert learn.policy_fit.images == 19


def test_one_branch_says_nothing():
    learn = silent(branch_learner(toy_dls(), 'test_efficientnet', pretrained=False, seed=0))
    learn.fine_tune(1)
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)
        learn.fine_tune(1)


def test_the_best_branch_is_one_of_the_networks_as_they_are():
    learn = make(toy_dls())
    learn.fine_tune(2, 1e-2, holdout=0.3)
    assert learn.best_branch == learn.policy_fit.best_when_fitted
    learn.lr_find(num_it=6, show_plot=False)
    assert learn.best_branch is not None  # it puts the weights back
    learn.fit(1, 1e-5)
    assert learn.best_branch is None


def test_loaded_weights_count_as_trained(tmp_path):
    learn = make(toy_dls(), path=tmp_path)
    learn.fit(1)
    learn.save('once')
    other = make(toy_dls(), path=tmp_path)
    other.load('once')
    assert other.trained


def test_joined_learners_are_trained():
    ls = [silent(Learner(toy_dls(), timm.create_model('test_resnet', num_classes=3))) for _ in range(2)]
    both = silent(fuse_learners(ls))
    with pytest.warns(UserWarning, match='learn.fit_policy'): both.fine_tune(1)
    assert both.policy_fit is None


def test_a_policy_is_fitted_afresh():
    "Whatever the policy was before, the same images give the same one."
    learn = make(toy_dls())
    dl = learn.hold_out(0.5)[1]
    first = learn.fit_policy(dl, epochs=3)
    weights = {k: v.clone() for k, v in learn.model.policy.state_dict().items()}
    again = make(toy_dls())  # the first one's branches have temperatures now
    for p in again.model.policy.parameters(): p.data.fill_(3.)
    assert again.fit_policy(dl, epochs=3) == first
    for k, v in again.model.policy.state_dict().items(): torch.testing.assert_close(v, weights[k])


# -------------------------------------------------------------------------------------------------------------- refusals

NONE_FROZEN = [Strategy('a'), Strategy('b', lr_mult=2)]


@pytest.mark.parametrize('strategies,policy', [(toy_strategies(), 'trunk'), (NONE_FROZEN, 'cnn'), ('standard', None),
                                               ('head_only', None), (None, 'trunk')])
def test_the_policy_suits_the_strategies(strategies, policy):
    learn = silent(amf_learner(toy_dls(), 'test_efficientnet', strategies, pretrained=False, seed=0))
    assert learn.config['policy'] == policy
    trained(learn)
    if policy != 'trunk' and strategies != 'head_only':
        with pytest.raises(ValueError, match="policy='cnn'"): make(toy_dls(), strategies, policy='trunk')


ONE = dict(
    weighted=lambda: nn.CrossEntropyLoss(weight=WEIGHTS, label_smoothing=.1), focal=FocalLoss, focal_weighted=lambda: FocalLoss(weight=WEIGHTS),
    focal_flat=FocalLossFlat, smooth=LabelSmoothingCrossEntropy, smooth_flat=LabelSmoothingCrossEntropyFlat, function=lambda: F.cross_entropy,
    partial=lambda: partial(F.cross_entropy, weight=WEIGHTS), margin=nn.MultiMarginLoss, timm_smooth=timm_losses.LabelSmoothingCrossEntropy,
    timm_bce=timm_losses.BinaryCrossEntropy, custom=lambda: (lambda z, y: F.cross_entropy(z, y)))


@pytest.mark.parametrize('name', ONE)
def test_losses_for_one_label(name):
    learn = make(toy_dls(), loss_func=ONE[name]())
    trained(learn, 1)
    label, number, probs = learn.predict(toy_images(1)[0][0])
    assert probs.sum() == pytest.approx(1, abs=1e-5) and label == RGB[int(number)] and number == probs.argmax()
    assert torch.allclose(learn.get_preds()[0].sum(1), torch.ones(32), atol=1e-5)
    if hasattr(learn.loss_func, 'reduction') and name != 'timm_bce': learn.fit(1, cbs=MixUp())  # which asks for a loss of each image


def several(vocab=RGB):
    x, y = toy_images(36)
    pairs = [(img, [RGB[i], 'blue']) for img, i in zip(x, y)]
    return pair_dls(pairs[:24], pairs[24:], vocab, Resize(32), IntToFloatTensor(), bs=8, multi=True, seed=0)


MANY = dict(plain=nn.BCEWithLogitsLoss, weighted=lambda: nn.BCEWithLogitsLoss(pos_weight=WEIGHTS), flat=BCEWithLogitsLossFlat,
            soft=nn.MultiLabelSoftMarginLoss, function=lambda: F.binary_cross_entropy_with_logits, timm=timm_losses.AsymmetricLossMultiLabel)


@pytest.mark.parametrize('name', MANY)
def test_losses_for_several_labels(name):
    learn = make(several(), loss_func=MANY[name]())
    assert learn.model.multilabel
    trained(learn, 1)
    labels, numbers, probs = learn.predict(toy_images(1)[0][0])
    assert ((probs >= 0) & (probs <= 1)).all() and list(labels) == [v for v, p in zip(RGB, probs) if p > .5]


BAD = dict(mse=nn.MSELoss, mse_flat=MSELossFlat, bce=nn.BCELoss, nll=nn.NLLLoss, function=lambda: F.mse_loss, wrong_length=lambda: nn.CrossEntropyLoss(torch.ones(5)),
           soft_targets=timm_losses.SoftTargetCrossEntropy, many_labels=nn.BCEWithLogitsLoss, unreduced=lambda: nn.CrossEntropyLoss(reduction='none'))


@pytest.mark.parametrize('name', BAD)
def test_losses_that_do_not_fit_are_refused_by_name(name):
    with pytest.raises(ValueError, match='`loss_func`='): make(toy_dls(), loss_func=BAD[name]())


def test_a_loss_for_one_label_is_refused_for_several():
    for loss in (nn.CrossEntropyLoss(), FocalLossFlat()):
        with pytest.raises(ValueError, match='is for one label'): make(several(), loss_func=loss)


def test_a_loss_that_is_set_later_gives_probabilities():
    learn = make(toy_dls())
    learn.loss_func = FocalLoss()
    assert torch.allclose(learn.get_preds()[0].sum(1), torch.ones(32), atol=1e-5)
    assert learn.predict(toy_images(1)[0][0])[2].sum() == pytest.approx(1, abs=1e-5)


def test_joined_and_single_learners_take_plain_losses():
    one = silent(branch_learner(toy_dls(), 'test_efficientnet', pretrained=False, loss_func=nn.CrossEntropyLoss(WEIGHTS)))
    trained(one, 1)
    plain = silent(Learner(toy_dls(), timm.create_model('test_resnet', num_classes=3), loss_func=nn.CrossEntropyLoss()))
    plain.fit(1)
    both = silent(fuse_learners([plain, one], metrics=[accuracy]))
    for learn in (one, both): assert learn.predict(toy_images(1)[0][0])[2].sum() == pytest.approx(1, abs=1e-5)


# -------------------------------------------------------------------------------------------------------- sizes, channels

def grey(n=24): return fastai_dls(n, 9, bs=8, image=PILImageBW)


def test_grey_images_of_one_channel():
    learn = make(grey(), n_in=1)
    assert [len(s) for s in norm_stats(learn.dls.train)] == [1, 1] and learn.config['n_in'] == 1
    assert next(learn.model.trunk.parameters()).shape[1] == 1
    trained(learn)
    assert learn.control_panel().shape == (8, 5)
    joined = silent(fuse_learners([silent(branch_learner(grey(), 'test_efficientnet', pretrained=False, n_in=1)) for _ in range(2)], n_in=1))
    joined.fit_policy(grey().valid, epochs=1)


def test_colour_weights_are_summed_for_grey_images(tmp_path):
    net = timm.create_model('test_efficientnet', num_classes=7)
    torch.save(net.state_dict(), tmp_path / 'w.pth')
    learn = make(grey(), n_in=1, weights=tmp_path / 'w.pth', pretrained=True)
    torch.testing.assert_close(next(learn.model.trunk.parameters()), net.conv_stem.weight.sum(1, keepdim=True))


def test_a_mismatch_of_channels_is_refused_when_the_learner_is_made():
    with pytest.raises(ValueError, match='`n_in`=1, and `dls` give images of 3 channels'): make(toy_dls(), n_in=1)
    with pytest.raises(ValueError, match='`n_in`=1'): branch_learner(toy_dls(), 'test_efficientnet', pretrained=False, n_in=1)
    with pytest.raises(ValueError, match='`n_in`=1'): fuse_learners([make(toy_dls())], n_in=1)
    with pytest.raises(ValueError, match='`n_in`=4, and `dls` give images of 3'): make(toy_dls(), n_in=4)


@pytest.mark.parametrize('arch', ['test_vit3', 'swin_tiny_patch4_window7_224.ms_in1k'])
def test_a_network_of_a_fixed_size_says_so_when_the_learner_is_made(arch):
    with pytest.raises(ValueError, match='`size`='): amf_learner(toy_dls(), arch, toy_strategies(), pretrained=False)


# ------------------------------------------------------------------------------------------------------------ the store

@pytest.mark.parametrize('mix', [MixUp, CutMix])
@pytest.mark.parametrize('when', ['before', 'inside', 'given to fit', 'given to fine_tune'])
def test_a_store_does_not_mix_images(mix, when):
    learn = make(loaders(24, augs=[], bs=8))
    with pytest.raises(ValueError, match='mixes images'):
        if when == 'before': learn.add_cb(mix())
        with learn.feature_cache():
            if when == 'inside': learn.add_cb(mix())
            if when == 'given to fine_tune': learn.fine_tune(1, cbs=mix())
            else: learn.fit(1, cbs=mix() if when == 'given to fit' else None)
    learn.remove_cbs(mix)
    learn.fit(1, cbs=mix())  # outside it may
    assert not isinstance(learn.dls.train, FeatureDL)


# ------------------------------------------------------------------------------------------------------- without any data

NEEDS = dict(fine_tune=lambda l: l.fine_tune(1), fit=lambda l: l.fit(1), one_cycle=lambda l: l.fit_one_cycle(1), panel=lambda l: l.control_panel(),
             find=lambda l: l.lr_find(), cache=lambda l: l.feature_cache().__enter__(), show=lambda l: l.show_results(), preds=lambda l: l.get_preds(),
             validate=lambda l: l.validate(), weights=lambda l: l.policy_weights(), policy=lambda l: l.fit_policy(), plan=lambda l: l.plan(), tta=lambda l: l.tta())


@pytest.mark.parametrize('what', NEEDS)
def test_a_learner_without_images_asks_for_some(what, tmp_path):
    learn = make(toy_dls(), path=tmp_path)
    learn.dls = learn.dls.new_empty()
    with pytest.raises(ValueError, match='`dl`'): NEEDS[what](learn)
    assert learn.predict(toy_images(1)[0][0])[0] in RGB  # which needs none
    learn.dls = toy_dls()
    assert learn.control_panel().shape == (8, 5)


# ------------------------------------------------------------------------------------------------- classes, weights files

VOCABS = dict(ints=[1, 2, 3], floats=[1.5, 2.5, 3.], bools=[True, False, 'both'], none=[None, 'b', 'c'], empty=['', 'b', 'c'],
              map=CategoryMap(RGB, sort=False), array=np.array(RGB), series=pd.Series(RGB).astype('category'))


@pytest.mark.parametrize('name', VOCABS)
def test_vocabularies(name):
    vocab = VOCABS[name]
    learn = trained(make(loaders(24, vocab=vocab, bs=8)), 1)
    label, number, _ = learn.predict(toy_images(1)[0][0])
    assert str(label) == str(list(learn.dls.vocab)[int(number)])
    back = loaders(24, vocab=list(learn.dls.vocab)[::-1], bs=8)
    assert torch.equal(learn.branch_logits(back.valid)[1], 2 - torch.tensor(toy_images(9, seed=1)[1]))


def test_numbers_and_their_texts_are_the_same_class():
    learn = make(loaders(24, vocab=['1', '2', '3'], bs=8))
    assert torch.equal(learn.branch_logits(loaders(24, vocab=[3, 2, 1], bs=8).valid)[1], 2 - torch.tensor(toy_images(9, seed=1)[1]))


def _forms(net):
    sd = net.state_dict()
    opt = torch.optim.Adam(net.parameters())
    sum(p.sum() for p in net.parameters()).backward()
    opt.step()
    sd = {k: v.clone() for k, v in net.state_dict().items()}
    return dict(plain=sd, state_dict=dict(state_dict=sd), model=dict(model=sd, opt=opt.state_dict(), epoch=3), tutorial=dict(model_state_dict=sd, loss=.1),
                parallel={f'module.{k}': v for k, v in sd.items()}, compiled={f'_orig_mod.{k}': v for k, v in sd.items()},
                both={f'_orig_mod.module.{k}': v for k, v in sd.items()}, lightning=dict(state_dict={f'net.{k}': v for k, v in sd.items()})), sd


FORMS = ['plain', 'state_dict', 'model', 'tutorial', 'parallel', 'compiled', 'both', 'lightning', 'safetensors']


@pytest.mark.parametrize('form', FORMS)
def test_weights_files(form, tmp_path):
    torch.manual_seed(1)
    files, sd = _forms(timm.create_model('test_resnet', num_classes=7))  # another number of classes
    path = tmp_path / f'w.{"safetensors" if form == "safetensors" else "pth"}'
    safetensors.torch.save_file(sd, path) if form == 'safetensors' else torch.save(files[form], path)
    bb = create_backbone('test_resnet', weights=path)
    x = torch.randn(2, 3, 64, 64)
    net = timm.create_model('test_resnet', num_classes=7)
    net.load_state_dict(sd)
    net.reset_classifier(0)
    with torch.no_grad(): torch.testing.assert_close(bb.eval()(x), net.eval()(x), atol=1e-5, rtol=1e-4)


def test_fastais_own_checkpoint(tmp_path):
    learn = silent(Learner(toy_dls(), timm.create_model('test_resnet', num_classes=3), path=tmp_path))
    learn.fit(1)
    file = learn.save('mine')
    net, bb = learn.model.eval(), create_backbone('test_resnet', weights=file).eval()
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad(): torch.testing.assert_close(bb(x), net.forward_head(net.forward_features(x), pre_logits=True), atol=1e-5, rtol=1e-4)


def test_weights_files_that_are_refused(tmp_path):
    net = timm.create_model('test_resnet', num_classes=7)
    torch.save(net, tmp_path / 'whole.pth')
    torch.save(dict(model=net.state_dict(), args=argparse.Namespace(lr=1)), tmp_path / 'args.pth')
    torch.save(net.state_dict(), tmp_path / 'w.pth')
    for name in ('whole.pth', 'args.pth'):
        with pytest.raises(ValueError, match='weights_only=False'): create_backbone('test_resnet', weights=tmp_path / name)
    with pytest.raises(ValueError, match='does not fit EfficientNet'): create_backbone('test_efficientnet', weights=tmp_path / 'w.pth')
    with pytest.raises(FileNotFoundError, match='`weights`='): create_backbone('test_resnet', weights=tmp_path)


@pytest.mark.parametrize('precision', ['to_fp16', 'to_bf16'])
def test_mixed_precision_on_the_processor(precision):
    learn = getattr(make(toy_dls()), precision)()
    trained(learn)
    assert learn.control_panel().notna().all().all() and learn.predict(toy_images(1)[0][0])[2].sum() == pytest.approx(1, abs=1e-4)


def test_metrics_of_the_user_are_not_asked_about_the_hold_out():
    seen = []
    def classes(pred, target):
        "Fails where a class is missing, as metrics of scikit-learn do."
        seen.append(len(target))
        assert len(target.unique()) == 3, 'a class is missing'
        return 1.
    learn = toy_learner(metrics=AccumMetric(classes, flatten=False))
    learn.fine_tune(2, holdout=0.05)  # three images, and not of every class
    assert set(seen) == {32} and learn.held is not None
    learn.control_panel()
    assert set(seen) == {32} and [m.name for m in learn.metrics] == ['classes']


@pytest.mark.parametrize('epochs', [0, -1, 1.5, '3'])
def test_epochs_that_train_nothing_are_refused(epochs):
    with pytest.raises(ValueError, match='`epochs`'): toy_learner().fine_tune(epochs)


def test_what_is_no_learner_is_not_joined():
    for wrong in ('export.pkl', nn.Linear(2, 2)):
        with pytest.raises(TypeError, match='`learners` has a'): fuse_learners([wrong])


@pytest.mark.parametrize('several', [False, True])
@pytest.mark.parametrize('n_out', [2, 4])
def test_another_number_of_classes_is_refused(n_out, several):
    block = MultiCategoryBlock(vocab=RGB) if several else CategoryBlock(vocab=RGB)
    label = (lambda i: [RGB[i]]) if several else (lambda i: RGB[i])
    dls = fastai_dls(label=label, block=lambda: block)
    with pytest.raises(ValueError, match=f'`n_out`={n_out}, and `dls` have 3 classes: leave') as e:
        make(dls, n_out=n_out)
    assert f'{n_out} names in their `vocab`' in str(e.value)
    assert make(dls, n_out=3).config['n_out'] == 3


# ------------------------------------------------------------------------------------------------- solved, not trained

LOOKS = [Strategy('all'), Strategy('look', probe=True), Strategy('top', freeze=0.5),
         Strategy('early', scale=0.75, probe=True)]


def solved(strategies=LOOKS, policy='cnn', **kwargs):
    "A learner whose probes have been solved, and nothing else has been done."
    learn = make(loaders(60, 30), strategies, policy=policy, **kwargs)
    learn.fine_tune(0)
    return learn


@pytest.mark.parametrize('policy, fusion', [('cnn', 'log_probs'), ('cnn', 'probs'), (None, 'probs')])
def test_what_nothing_has_trained_is_neither_shown_nor_picked(policy, fusion, tmp_path):
    learn = solved(policy=policy, fusion=fusion)
    rules = ['policy', 'uniform', 'static', 'entropy']
    for l in (learn, load_amf(learn.save_amf(tmp_path / 'model'))):
        l.dls = learn.dls
        assert l.usable == [1, 3]
        panel, interp = l.control_panel(), AMFInterpretation.from_learner(l)
        assert list(panel.index) == list(interp.panel().index) == [*rules, 'look', 'early', 'oracle']
        np.testing.assert_allclose(panel.astype(float), interp.panel().astype(float), atol=1e-6)
        assert interp.names == ['look', 'early'] and '`look`' in interp.advice()
        said = l.verdict()
        assert said == interp.verdict() and 'no policy to judge yet' in said and '`all`, `top`' in said
        costs = _costs_for(interp)
        assert len(costs.branches) == len(costs.trunk) == 2


def ran_under(learn):
    "Which branches the present rule runs for the validation images."
    model, x = learn.model.eval(), learn.dls.valid.one_batch()[0]
    with torch.no_grad(): model(x.as_subclass(torch.Tensor))
    return model.last.ran_N_K


@pytest.mark.parametrize('rule', [dict(confident=0.5), dict(confident=1.1), dict(top_k=1), dict(top_k=4), dict(threshold=0.)])
def test_rules_run_what_was_trained(rule):
    learn = solved()
    dense = learn.get_preds()[0]
    learn.route(**rule)
    ran = ran_under(learn)
    assert ran.any(1).all() and not ran[:, [0, 2]].any()
    if rule.get('top_k') != 1 and rule.get('confident') != 0.5:
        torch.testing.assert_close(learn.get_preds()[0], dense)


def test_a_budget_after_solving():
    learn = solved()
    with pytest.raises(ValueError, match='held-out images'): learn.route(budget=1.)
    for fusion in ('log_probs', 'probs'):
        learn.model.fusion = fusion
        learn.fit_policy(learn.dls.valid)
        assert learn.usable == [1, 3] and learn.best_branch in ('look', 'early')
        assert learn.model.static_K.isfinite().all() and np.isfinite(learn.policy_fit.gain)
        assert np.isfinite(learn.route_curve(parts=learn.held_parts())[['cost', 'nll']].to_numpy(float)).all()
        learn.route(budget=5.)
        assert not ran_under(learn)[:, [0, 2]].any()
        learn.route()
        assert learn.permuted_weights(learn.held.inputs).isfinite().all()


def test_one_network_of_what_was_trained():
    learn = solved()
    with pytest.raises(ValueError, match="`branch`='all' has not been trained yet: give one of"):
        learn.collapse('best', branch='all')
    losses = {n: learn.control_panel().nll[n] for n in ('look', 'early')}
    best = learn.collapse('best', dl=learn.dls.valid)
    np.testing.assert_allclose(best.validate()[0], min(losses.values()), atol=1e-5)


def test_training_after_solving_brings_all_branches_back():
    learn = solved()
    learn.route(confident=1.1)
    learn.fine_tune(1)
    assert learn.usable == [0, 1, 2, 3] and ran_under(learn).all()
    assert {'all', 'top', 'look', 'early'} < set(learn.control_panel().index)
    assert AMFInterpretation.from_learner(learn).names == ['all', 'look', 'top', 'early']


def test_best_epoch_is_saved_with_its_weights(tmp_path):
    "The file of fastai's `SaveModelCallback` is written while all branches weigh the same."
    learn = make(loaders(60))
    learn.path = tmp_path
    learn.fine_tune(2, 1e-2, cbs=SaveModelCallback(fname='best'))
    want, fitted = learn.get_preds()[0], learn.core.static_K.clone()
    assert fitted.max() > 1 / 3 + 1e-4
    learn.weigh_all()
    learn.load('best')
    assert torch.equal(learn.core.static_K, fitted)
    assert torch.allclose(learn.get_preds()[0], want, atol=1e-6)


def test_best_epoch_of_a_fit_that_lost_a_branch(tmp_path):
    learn = make(loaders(60), [*toy_strategies(2), Strategy('wild', lr_mult=1e9)])
    learn.path = tmp_path
    with pytest.warns(UserWarning, match='wild'): learn.fine_tune(2, 1e-2, cbs=SaveModelCallback(fname='best'))
    assert learn.core.names == ['all', 'top'] and learn.get_preds()[0].isfinite().all()
    want = learn.get_preds()[0]
    learn.load('best')
    assert torch.allclose(learn.get_preds()[0], want, atol=1e-6)


def test_second_fit_names_branches_that_do_not_count():
    learn = make(loaders(60))
    learn.fine_tune(1, 1e-2)
    learn.core.static_K.copy_(torch.tensor([0.999, 0.001, 0.]))
    with pytest.warns(UserWarning, match=r"\['top', 'head'\] have next to no weight"): learn.fine_tune(1, 1e-2)


@pytest.mark.parametrize('name', ['freeze_epochs', 'lr_mult'])
def test_arguments_of_fastais_fine_tune_are_named(name):
    learn = make(loaders(60))
    with pytest.raises(TypeError, match=f'{name}.*a strategy says'): learn.fine_tune(1, **{name: 1})
    assert not learn.trained


# probes that answer once

def test_copies_made_while_training_hold_no_answers(tmp_path):
    "An export, a copy and a pickle from within a fit ask the probe themselves."
    made = {}
    class Copies(Callback):
        def after_epoch(self):
            assert any(b.known for b in self.learn.model.branches)       # as it is for the fit itself
            self.learn.export(tmp_path / 'mid.pkl')
            made['copy'] = copy.deepcopy(self.learn.model)
    learn = silent(amf_learner(toy_dls(), 'test_efficientnet', ['standard', 'probe'], pretrained=False, seed=0))
    learn.fine_tune(1, cbs=Copies())
    for model in (made['copy'], load_learner(tmp_path / 'mid.pkl').model, learn.model):
        assert [b.known for b in model.branches] == [None, None]


def test_weights_loaded_in_the_middle_of_a_fit_count(tmp_path):
    "What validation says after the second epoch is what the model with the other probe says."
    learn = silent(amf_learner(toy_dls(), 'test_efficientnet', ['standard', 'probe'], pretrained=False, seed=0))
    learn.fine_tune(0)
    with torch.no_grad(): learn.model.branches[1].head.weight.mul_(-3)
    learn.save(tmp_path / 'other', with_opt=False)
    with torch.no_grad(): learn.model.branches[1].head.weight.div_(-3)
    class Loads(Callback):
        def after_epoch(self):
            if self.epoch == 0: self.learn.load(tmp_path / 'other', with_opt=False)
    learn.fit(2, 1e-4, cbs=Loads())
    assert learn.recorder.values[-1][1] == pytest.approx(learn.validate()[0], rel=1e-5)
