"""Runs that are killed, repeated, shared by two processes, or fed with extreme data."""
import contextlib, json, os, shlex, socket, subprocess, sys, time
from pathlib import Path

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / 'soak'))
import kills

from amf_nb.method.fusion import fit_policy, fuse, nll
from amf_nb.method.policy import create_policy, weights_from_scores
from amf_nb.test_utils import toy_dls, toy_images, toy_learner
from amf_nb.data.loaders import array_dls


@pytest.fixture(scope='module')
def run(tmp_path_factory):
    "(folder of pictures, checksum of the weights of a run, its seconds, where it is)"
    tmp = tmp_path_factory.mktemp('trust')
    folder = kills.make_folder(tmp / 'pictures', 60)
    return folder, *kills.reference(folder, tmp), tmp


def test_killed_and_resumed_runs_end_alike(run):
    folder, want, seconds, tmp = run
    rows = [kills.case(i, folder, want, seconds, tmp, seed=7) for i in range(2)]
    assert all(r['same'] for r in rows), rows


def test_the_command_in_config_json_repeats_a_run_bit_for_bit_in_a_fresh_process(run):
    folder, want, _, tmp = run
    command = shlex.split(json.loads((tmp / 'whole/config.json').read_text())['command'])
    assert command[0] == 'amf_train'
    kills.finish(kills.start(*command[1:], '--out', tmp / 'again'))
    assert kills.weights(tmp / 'again') == want


def _kill(*pids):
    "SIGKILL for the processes `pids` and all that they started; what goes with another is gone already."
    import psutil
    them = [p for pid in pids for p in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True))]
    for p in them:
        with contextlib.suppress(psutil.NoSuchProcess): p.kill()


def _launched(*args):
    "What `amf_train` says on two processes that a launcher starts, as a user does."
    launch = [sys.executable, '-W', 'ignore', '-m', 'torch.distributed.run', '--nproc_per_node', '2',
              str(Path(sys.executable).with_name('amf_train')), *map(str, args)]
    done = subprocess.run(launch, env={**os.environ, **kills.ENV}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def _two(*args):
    "Two processes with what a launcher tells them, on which `amf_train` begins."
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        at = dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(s.getsockname()[1]), WORLD_SIZE='2', LOCAL_WORLD_SIZE='2')
    return [kills.start(*args, **at, RANK=str(i), LOCAL_RANK=str(i)) for i in range(2)]


def test_two_processes_make_one_run_and_resume_it(run):
    pytest.importorskip('accelerate')
    folder, _, _, tmp = run
    said = _launched(folder, *kills.OPTIONS, '--out', tmp / 'two')
    assert said.count('Trained in') == 1 and said.count('oracle') == 1
    metrics, alone = (json.loads((tmp / r / 'metrics.json').read_text()) for r in ('two', 'whole'))
    assert metrics['images'] == alone['images'] and metrics['policy_fit']['images'] == alone['policy_fit']['images']
    pair, files = _two(folder, *kills.OPTIONS, '--out', tmp / 'cut'), tmp / 'cut.unfinished/checkpoints'
    while not any(files.glob('epoch-0003*')) and pair[0].poll() is None: time.sleep(0.01)
    _kill(*[p.pid for p in pair])
    for p in pair: p.communicate()
    for p in _two('--resume', tmp / 'cut'): kills.finish(p)
    assert kills.weights(tmp / 'cut') == kills.weights(tmp / 'two')


def test_a_class_with_a_single_image_among_hundreds():
    x, y = toy_images(120, seed=0)
    y = np.where(y == 2, 0, y)
    y[5] = 2
    learn = toy_learner(dls=array_dls(x[:90], y[:90], x[90:], y[90:], vocab=['red', 'green', 'blue'], size=32, bs=8, seed=0))
    learn.fine_tune(2, holdout=0.2)
    panel = learn.control_panel()
    assert np.isfinite(panel[['accuracy', 'nll']].values).all() and not learn.faults


def test_a_class_that_validation_has_and_training_has_not():
    x, y = toy_images(90, seed=0)
    keep = np.flatnonzero(y[:60] < 2)
    learn = toy_learner(dls=array_dls(x[keep], y[keep], x[60:], y[60:], vocab=['red', 'green', 'blue'], size=32, bs=8, seed=0))
    learn.fine_tune(2, holdout=0.2)
    assert np.isfinite(learn.control_panel().nll).all()


@pytest.mark.parametrize('size', [1e3, 1e6, 1e30])
def test_saturated_scores_give_weights_of_zero_and_one_and_a_finite_likelihood(size):
    g = torch.Generator().manual_seed(0)
    a, z, y = torch.randn(50, 3, generator=g) * size, torch.randn(50, 3, 4, generator=g), torch.randint(4, (50,), generator=g)
    w = weights_from_scores(a)
    assert torch.equal(w.argmax(1), a.argmax(1)) and torch.allclose(w.sum(1), torch.ones(50))
    for how in ('log_probs', 'probs'): assert nll(fuse(z, w, how), y).isfinite()


def test_a_policy_that_starts_saturated_is_shrunk_back():
    g = torch.Generator().manual_seed(0)
    feats, z, y = torch.randn(200, 6, generator=g), torch.randn(200, 3, 4, generator=g), torch.randint(4, (200,), generator=g)
    policy = create_policy('trunk', 3, 6)
    torch.nn.init.normal_(policy.scores.weight, std=1e4)
    fit = fit_policy(policy, feats, z, y)
    assert fit.strength == 0 and np.isfinite((fit.strength, fit.epochs, fit.gain, fit.se, fit.images)).all() # nothing to learn here, and it says so
