"""A probe that compares images is an ordinary branch: saved, exported, collapsed, sharpened, in lower precision."""
from dataclasses import replace

import pytest, torch
from fastai.learner import load_learner

from amf_nb.core import amf_learner, get_strategy, load_amf
from amf_nb.test_utils import toy_dls


@pytest.fixture
def learn():
    "A learner whose probe goes by similarities, and branches that were trained."
    learn = amf_learner(toy_dls(), 'test_efficientnet', ['standard', 'probe'], pretrained=False, seed=0)
    learn.remove_cb(learn.progress)
    with learn.no_logging(): learn.fine_tune(1)
    return comparing(learn)


def comparing(learn):
    "The same learner, whose probe certainly compares: each class has a landmark that speaks for it."
    branch, (images, _) = learn.model.branches[1].eval(), learn.dls.valid.one_batch()
    n_out = len(branch.head.bias)
    with torch.no_grad():
        seen = branch.head.similarity.standardised(branch.features(images[:n_out]))
        branch.head.similarity.landmarks_L_F[:n_out] = seen
        branch.head.answers_C_L[:, :n_out] = 3 * torch.eye(n_out)
    return learn


def said(learn, dls):
    return learn.branch_logits(dls.valid)[0]


def test_saved_and_exported(learn, tmp_path):
    want = said(learn, learn.dls)
    assert (want[:, 1] - want[:, 1].mean(0)).abs().max() > 0.01
    learn.save_amf(tmp_path / 'model')
    learn.export(tmp_path / 'model.pkl')
    for again in (load_amf(tmp_path / 'model'), load_learner(tmp_path / 'model.pkl')):
        again.dls = learn.dls
        torch.testing.assert_close(said(again, learn.dls), want, atol=1e-5, rtol=1e-5)


def test_without_landmarks(tmp_path):
    "A probe that keeps none, as those that were saved before there were any, has a plain linear head."
    plain = replace(get_strategy('probe'), landmarks=0)
    old = amf_learner(toy_dls(), 'test_efficientnet', ['standard', plain], pretrained=False, seed=0)
    with old.no_bar(), old.no_logging(): old.fine_tune(1)
    old.save_amf(tmp_path / 'old')
    again = load_amf(tmp_path / 'old')
    assert type(again.model.branches[1].head) is torch.nn.Linear
    again.dls = old.dls
    torch.testing.assert_close(said(again, old.dls), said(old, old.dls), atol=1e-5, rtol=1e-5)


def test_collapsed(learn):
    best = learn.collapse('best', branch='probe')
    want = said(learn, learn.dls)[:, 1]
    got = best.get_preds(dl=learn.dls.valid, act=lambda logits: logits)[0]
    torch.testing.assert_close(torch.as_tensor(got), want, atol=1e-5, rtol=1e-5)
    with learn.no_logging(): student = learn.collapse('distil', epochs=1, branch='probe')
    assert torch.as_tensor(student.get_preds(dl=learn.dls.valid)[0]).isfinite().all()


def test_bfloat16_keeps_out_of_distances(learn):
    images, _ = learn.dls.valid.one_batch()
    branch = learn.model.branches[1].eval()
    with torch.no_grad():
        features = branch.features(images)
        whole = branch.head(features)
        with torch.autocast('cpu', torch.bfloat16): low = branch.head(features)
    torch.testing.assert_close(low, whole)
