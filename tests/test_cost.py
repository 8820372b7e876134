"""Stored activations and plans, over architectures and a second process."""
import pytest
import torch

from amf_nb.train.cost import macs
from amf_nb.test_utils import toy_learner
from ready import ready

ARCHS = ['test_efficientnet', 'test_resnet', 'test_convnext']


@pytest.mark.parametrize('arch', ARCHS)
def test_stored_activations_give_the_same_logits(arch):
    learn = toy_learner(arch=arch)
    with learn.feature_cache(views=2) as store:
        acts, y = store.batch(range(8), [1] * 8)
        learn.model.eval()
        with torch.no_grad(): stored, run = learn.model(acts), learn.model(acts[0])
    torch.testing.assert_close(stored, run, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize('policy', ['trunk', 'cnn', None])
def test_training_from_a_store_moves_what_trains_and_nothing_else(policy):
    learn = toy_learner(3, policy=policy)
    before = {k: v.clone() for k, v in learn.model.state_dict().items()}
    with learn.feature_cache(views=2): learn.fine_tune(2, 1e-2, holdout=0.3)
    after = learn.model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items() if k.startswith('trunk.'))
    trained = [f'branches.{i}.{n}' for i, b in enumerate(learn.model.branches) for n in b.trained]
    assert all(not torch.equal(after[k], before[k]) for k in trained)


@pytest.mark.parametrize('arch', ARCHS)
def test_plan_counts_every_operation_once(arch):
    learn = toy_learner(arch=arch)
    plan, x = learn.plan(repeats=0), learn.dls.valid.one_batch()[0][:1].as_subclass(torch.Tensor)
    assert plan.mmacs.sum() == pytest.approx(macs(learn.model.eval().parts, x) / 1e6)
    assert plan.parameters.sum() == sum(p.numel() for p in learn.model.parameters())


def images_run(folder):
    "How many images go through the trunk when the store in `folder` is opened."
    learn, ran = toy_learner(), []
    learn.model.trunk.stages[0].register_forward_hook(lambda m, i, o: ran.append(len(o)))
    with learn.feature_cache(views=2, folder=folder): return sum(ran)


def test_a_store_is_found_by_another_process(tmp_path):
    assert images_run(tmp_path) == 128
    code = 'import sys, test_cost; print(test_cost.images_run(sys.argv[1]))'
    there = ready(code, tmp_path)
    assert there.stdout.splitlines()[-1:] == ['0'], there.stderr


@pytest.mark.parametrize('half', [False, True])
def test_the_same_seed_gives_the_same_weights_from_memory_and_disk(tmp_path, half):
    def train(folder):
        learn = toy_learner()
        with learn.feature_cache(views=2, folder=folder, half=half): learn.fine_tune(1, 1e-2, holdout=0.3)
        return learn.model.state_dict()
    a, b = train(None), train(tmp_path)
    assert all(torch.equal(a[k], b[k]) for k in a)
