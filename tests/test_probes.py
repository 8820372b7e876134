"""A probe is a branch like any other: saved, exported, routed, collapsed, resumed; and its answers are honest."""
import numpy as np
import pytest
import torch
from fastai.callback.core import Callback
from fastai.learner import load_learner
from fastai.vision.augment import Resize

from amf_nb.core import Strategy, amf_learner, branch_learner, create_backbone, load_amf
from amf_nb.data.loaders import array_dls, pair_dls
from amf_nb.test_utils import toy_dls, toy_images
from amf_nb.train.resume import Checkpoints
from amf_nb.train.solving import waiting

KINDS = [Strategy('all'), Strategy('top', freeze=0.6), Strategy('look', probe=True, side=64),
         Strategy('kind', freeze=0.5, bn='frozen', head='solved', lr_mult=0.2)]


def make(dls=None, kinds=KINDS, **kwargs):
    learn = amf_learner(dls or toy_dls(), 'test_efficientnet', kinds, pretrained=False, seed=0, **kwargs)
    learn.no_bar().__enter__()
    learn.logger = lambda *a: None
    return learn


@pytest.fixture(scope='module')
def trained():
    learn = make()
    learn.fine_tune(2, 1e-3, holdout=0.25)
    return learn


def images(size, n=24):
    x, y = toy_images(n, size)
    return x[:16], y[:16], x[16:], y[16:]


def same(a, b, tol=1e-5): return torch.allclose(a, b, atol=tol)


def test_saved_and_loaded_it_says_the_same(trained, tmp_path):
    trained.save_amf(tmp_path / 'model')
    back = load_amf(tmp_path / 'model')
    dl = back.dls.test_dl(list(trained.dls.valid_ds.items), with_labels=True, bs=trained.dls.valid.bs)
    back.no_bar().__enter__()
    assert same(back.gather_parts(dl).logits_N_K_C, trained.gather_parts().logits_N_K_C)
    assert [b.strategy for b in back.model.branches] == KINDS and not waiting(back.model, False)


def test_a_saved_model_holds_the_frozen_network_once(trained, tmp_path):
    trained.save_amf(tmp_path / 'model')
    alone = make(kinds=KINDS[:1])
    alone.fine_tune(1, 1e-2)
    alone.save_amf(tmp_path / 'alone')
    size = {name: sum(f.stat().st_size for f in (tmp_path / name).glob('*.safetensors')) for name in ('model', 'alone')}
    assert size['model'] < 4 * size['alone']


def test_exported_and_loaded_in_fastai_it_says_the_same(trained, tmp_path):
    trained.export(tmp_path / 'whole.pkl')
    back = load_learner(tmp_path / 'whole.pkl')
    item = trained.dls.valid_ds.items[0]
    assert same(back.predict(item[0])[2], trained.predict(item[0])[2])


def test_onnx_says_the_same(trained, tmp_path):
    pytest.importorskip('onnxruntime')
    assert trained.to_onnx(tmp_path / 'model.onnx').exists()  # it compares with the learner, to 1e-4


def test_routed_and_collapsed(trained):
    parts = trained.gather_parts()
    trained.route(top_k=4)
    x = trained.dls.valid.one_batch()[0].as_subclass(torch.Tensor)
    with torch.no_grad(): routed = trained.model.eval()(x)
    trained.route()
    with torch.no_grad(): assert same(routed.softmax(1), trained.model(x).softmax(1))
    one = trained.collapse('best', branch='look')
    one.no_bar().__enter__()
    assert same(one.get_preds(dl=one.dls.valid, act=lambda o: o)[0], parts.logits_N_K_C[:, 2], 1e-4)


def test_the_body_of_a_probe_stays_as_it_was():
    learn = make()
    before = {k: v.clone() for k, v in learn.model.branches[2].stages.state_dict().items()}
    learn.fine_tune(2, 1e-3, holdout=0.25)
    learn.model.train()
    for k, v in learn.model.branches[2].stages.state_dict().items(): assert torch.equal(v, before[k]), k
    statistics = [k for k, v in make().model.branches[3].state_dict().items() if 'running' in k]
    fresh, now = make().model.branches[3].state_dict(), learn.model.branches[3].state_dict()
    for k in statistics: assert torch.equal(fresh[k], now[k]), k


class Stop(Callback):
    def __init__(self, at): self.at = at

    def before_epoch(self):
        if self.epoch == self.at: raise KeyboardInterrupt


def test_interrupted_and_resumed_it_ends_alike(tmp_path):
    whole, cut = make(), make()
    whole.fine_tune(3, 1e-3, holdout=0.25)
    with pytest.raises(KeyboardInterrupt): cut.fine_tune(3, 1e-3, holdout=0.25, cbs=[Checkpoints(tmp_path / 'run'), Stop(2)])
    again = make()
    again.fine_tune(3, 1e-3, holdout=0.25, cbs=Checkpoints(tmp_path / 'run', resume=True))
    for (k, a), b in zip(whole.model.state_dict().items(), again.model.state_dict().values()): assert torch.equal(a, b), k


def test_no_label_of_an_image_reaches_its_own_honest_answer():
    x, y = toy_images(90)
    def honest(labels):
        dls = array_dls(x[:60], labels[:60], x[60:], labels[60:], ['red', 'green', 'blue'], size=32, bs=8, seed=0)
        learn = make(dls, ['probe'])
        learn.fine_tune(0)
        return learn.honest[0] / learn.honest[0].norm()
    changed = y.copy()
    changed[7] = (y[7] + 1) % 3
    a, b = honest(y), honest(changed)
    direction = lambda z: z[7] / z[7].norm()
    assert torch.nn.functional.cosine_similarity(direction(a), direction(b), dim=0) > 0.999
    assert a[7].argmax() == b[7].argmax()


def test_copies_are_on_one_side():
    x, y = toy_images(60)
    x, y = np.concatenate([x[:30], x[:30], x[30:]]), np.concatenate([y[:30], y[:30], y[30:]])
    learn = make(array_dls(x[:60], y[:60], x[60:], y[60:], ['red', 'green', 'blue'], size=32, bs=8, seed=0), ['standard', 'probe'])
    held = learn.begin(0.3)
    rest = np.setdiff1d(np.arange(60), held)
    assert len(held) and not {h % 30 for h in held} & {r % 30 for r in rest}


def test_groups_of_ones_own_are_on_one_side():
    learn, groups = make(), [f'set {i // 4}' for i in range(64)]
    held = learn.begin(0.3, groups)
    assert len(held) and not {groups[h] for h in held} & {groups[r] for r in np.setdiff1d(np.arange(64), held)}


def test_several_labels_an_image():
    x, _ = toy_images(60)
    labels = np.random.default_rng(0).integers(0, 2, (60, 3))
    pairs = [(image, [name for name, on in zip('abc', row) if on]) for image, row in zip(x, labels)]
    learn = make(pair_dls(pairs[:40], pairs[40:], list('abc'), Resize(32), [], bs=8, seed=0, multi=True, num_workers=0))
    learn.fine_tune(1, 1e-3, holdout=0.3)
    assert learn.honest[2].shape == (40, 3)
    assert learn.control_panel().nll.notna().all()


def test_a_network_of_one_size_is_read_as_it_comes():
    with pytest.warns(UserWarning, match='one size only'):
        learn = amf_learner(array_dls(*images(160), ['red', 'green', 'blue'], size=160, bs=8), 'test_vit',
                            ['standard', Strategy('look', probe=True, scale=0.75)], pretrained=False, seed=0)
    assert learn.model.branches[1].stages[0].scale == 1


def test_no_image_is_enlarged_beyond_the_size_of_the_network():
    probe = make(kinds=[Strategy('look', probe=True, side=1000)]).model.branches[0]
    assert probe.stages[0].side == min(create_backbone('test_efficientnet', False).size) < 1000


@pytest.mark.parametrize('size', [32, 48, 64, (64, 96), (32, 96)])
def test_a_network_of_patches_takes_what_the_probe_makes_of_images(size):
    learn = amf_learner(array_dls(*images(32), ['red', 'green', 'blue'], size=size, bs=8), 'test_vit', pretrained=False, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(0)
    assert learn.honest[2].isfinite().all()


@pytest.mark.parametrize('odd', [dict(scale=1.3), dict(scale=0.3)])
def test_a_size_that_the_network_cannot_take_is_refused_before_training(odd):
    with pytest.raises(ValueError, match="Strategy\\('odd'.*cannot take"):
        amf_learner(array_dls(*images(32), ['red', 'green', 'blue'], size=64, bs=8), 'test_vit', [Strategy('odd', probe=True, **odd)], pretrained=False, seed=0)


def test_a_probe_from_before_there_was_a_side_reads_images_as_they_come():
    body = make(kinds=[Strategy('look', probe=True, scale=0.5)]).model.branches[0].stages[0]
    x = torch.rand(2, 3, 32, 32)
    seen = body(x)
    del body.__dict__['side']
    assert torch.equal(body(x), seen)


def test_plain_fit_solves_what_waits():
    learn = make()
    learn.fit(1, 1e-2)
    assert not waiting(learn.model, False) and learn.honest[2].shape == (64, 3)


def test_a_probe_alone_is_a_learner():
    learn = branch_learner(toy_dls(), 'test_efficientnet', 'probe', pretrained=False, seed=0)
    with learn.no_bar(): learn.fine_tune(0)
    assert learn.control_panel().accuracy['probe'] > 0.5
    with pytest.raises(ValueError, match='fine_tune'): learn.fit_one_cycle(1)
    with pytest.raises(ValueError, match='none is a probe'): make(kinds=KINDS[:2]).fine_tune(0)


def test_training_after_solving_counts():
    learn = make()
    learn.fine_tune(0)
    solved = learn.gather_parts().weights_N_K
    assert torch.equal(solved[0], torch.tensor([0., 0., 1., 0.]))
    learn.fit_one_cycle(1, 1e-3)
    assert torch.isfinite(torch.tensor(learn.recorder.losses)).all()
    assert same(learn.gather_parts().weights_N_K[0], torch.full((4,), 0.25))
    with pytest.raises(ValueError, match='has not been trained'): learn.fine_tune(0)


@pytest.mark.parametrize('groups', [None, [f'set {i // 4}' for i in range(64)]])
def test_solving_first_changes_nothing_that_training_ends_with(groups):
    whole, first = make(), make()
    whole.fine_tune(2, 1e-3, holdout=0.25, groups=groups)
    first.fine_tune(0)
    first.fine_tune(2, 1e-3, holdout=0.25, groups=groups)
    assert torch.equal(first.honest[2], whole.honest[2])
    for (k, a), b in zip(whole.model.state_dict().items(), first.model.state_dict().values()): assert torch.equal(a, b), k


@pytest.mark.parametrize('before', ['solved', 'failed', 'solved for other images'])
def test_no_label_of_a_held_out_image_is_in_the_head_that_a_branch_starts_at(before):
    head = lambda learn: learn.model.branches[3].head[1].weight.detach().clone()
    fresh, learn, everything = make(), make(), make()
    if before == 'solved for other images': learn.dls = toy_dls(seed=3)
    if before == 'failed':
        with pytest.raises(ZeroDivisionError): learn.fine_tune(1, 1e-3, holdout=0.5, cbs=Fails())
    else: learn.fine_tune(0)
    learn.dls = toy_dls()
    assert np.array_equal(learn.begin(0.25), fresh.begin(0.25)) and same(head(learn), head(fresh))
    everything.solve(everything.read(), slice(None))
    assert not same(head(everything), head(fresh), 1e-3)


class Fails(Callback):
    def before_fit(self): 1 / 0


def test_a_rate_is_found_after_solving():
    learn = make()
    learn.fine_tune(0)
    learn.lr_find(num_it=12, show_plot=False)
    assert torch.equal(learn.model.static_K, torch.tensor([0., 0., 1., 0.]))


def test_without_the_probe_the_others_weigh_alike():
    learn = make()
    learn.fine_tune(0)
    learn.drop_branches(['look'])
    assert same(learn.gather_parts().weights_N_K[0], torch.full((3,), 1 / 3))


def test_a_loaded_model_that_was_only_solved_is_solved_again(tmp_path):
    learn = make()
    learn.fine_tune(0)
    learn.save_amf(tmp_path / 'model')
    back = load_amf(tmp_path / 'model')
    back.no_bar().__enter__()
    back.logger = lambda *a: None
    back.dls = toy_dls()
    back.fine_tune(0)
    assert same(back.honest[2], learn.honest[2], 1e-3)
    back.fine_tune(1, 1e-3, holdout=0.25)
    assert len(back.held.targets) == 16


def test_other_images_are_read_anew():
    learn, other = make(), make(toy_dls(seed=3))
    learn.fine_tune(0)
    learn.dls = toy_dls(seed=3)
    learn.fine_tune(0)
    other.fine_tune(0)
    assert same(learn.honest[2], other.honest[2], 1e-3)


@pytest.mark.parametrize('groups,say', [([1, 2], 'for 64 training images'), (5, 'for 64 training images'), ([1] * 64, 'one group only')])
@pytest.mark.parametrize('epochs', [0, 1])
def test_groups_that_are_none(groups, say, epochs):
    with pytest.raises(ValueError, match=say): make().fine_tune(epochs, groups=groups)
