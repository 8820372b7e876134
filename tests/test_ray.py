"""A Ray cluster of several worker processes, one of them killed: what comes back equals what one process computes.
Of cells of a comparison, and of the pass over the training images for heads that are solved.

Not among what `make test` installs: `make ray` installs ray and runs this file."""
import json
import os
import signal
import shutil
import sys
import threading
import time
import warnings
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import torch
from fastai.vision.core import PILImage
from fasttransform import Transform
from PIL import Image

ray = pytest.importorskip('ray')

from amf_nb.study.cells import bench_cell, bench_cells, read_predictions, run_bench, run_cells_ray
from amf_nb.study.methods import register_method, standard_method
from amf_nb.cli import train_run
from amf_nb.test_utils import toy_images
from amf_nb.core import Strategy, amf_learner, image_dls
from amf_nb.train import sharing
from amf_nb.train.sharing import read_on_ray

ray.cloudpickle.register_pickle_by_value(sys.modules[__name__]) # workers cannot import this file
small = dict(arch='test_efficientnet', pretrained=False, data_options=dict(n=40, n_test=50, size=32, bs=8), epochs=1)


@register_method('ray-first-waits')
def first_waits(data, seed, epochs, lr=None, note=None, **kwargs):
    "Standard fine-tuning, which the first time leaves its process number in the file `note` and then waits for its end."
    with open(note, 'a') as f: f.write(f'{os.getpid()}\n')
    if len(Path(note).read_text().split()) == 1: time.sleep(300)
    return standard_method(data, seed, epochs, lr, **kwargs)


@register_method('ray-always-dies')
def always_dies(data, seed, epochs, lr=None, note=None, **kwargs):
    with open(note, 'a') as f: f.write(f'{os.getpid()}\n')
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.fixture(scope='module')
def address():
    "A cluster on this machine, with room for two workers."
    from ray.cluster_utils import Cluster
    os.environ |= {'RAY_USAGE_STATS_ENABLED': '0', 'RAY_worker_niceness': '0'} # other tests may run beside them
    cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=2, object_store_memory=100 * 2**20, include_dashboard=False))
    yield cluster.address
    cluster.shutdown()


def kill_first(note, killed, within=200):
    "Send SIGKILL to the first process that `note` names."
    end = time.time() + within
    while time.time() < end:
        if note.exists() and note.read_text().endswith('\n'):
            killed.append(int(note.read_text().split()[0]))
            return os.kill(killed[0], signal.SIGKILL)
        time.sleep(0.05)


def told(out):
    "The records in `out` by cell, without what depends on the time and the process."
    rows = [json.loads(l) for l in (out / 'records.jsonl').read_text().splitlines()]
    drop = lambda r: r | dict(info={k: v for k, v in r['info'].items() if 'seconds' not in k and 'memory' not in k})
    return {r['key']: drop(r) for r in rows}


def test_a_killed_worker(address, tmp_path):
    "One of two workers is killed while it trains; its cell is run again elsewhere, and all records and predictions are those of one process."
    note, killed = tmp_path / 'note', []
    cells = [bench_cell('sample', 'ray-first-waits', 5, note=str(note), **small), *bench_cells(['sample'], ['amf', 'standard'], 2, **small)]
    killer = threading.Thread(target=kill_first, args=(note, killed))
    killer.start()
    frame = run_bench(cells, tmp_path / 'ray', bar=False, ray=address)
    killer.join()
    pids = [int(p) for p in note.read_text().split()]
    assert killed == pids[:1] and len(pids) == 2 and pids[1] != pids[0], 'the cell of the killed worker was not run again by another one'
    assert frame.key.nunique() == len(cells) == 5
    assert not ray.is_initialized() and not (tmp_path / 'ray/errors.jsonl').exists()

    before = torch.get_num_threads()
    torch.set_num_threads(1) # as a worker has
    run_bench(cells, tmp_path / 'one', bar=False)
    torch.set_num_threads(before)
    there, here = told(tmp_path / 'ray'), told(tmp_path / 'one')
    assert there == here
    for key in here:
        a, b = (read_predictions(tmp_path / d, key) for d in ('ray', 'one'))
        assert a.keys() == b.keys() and all((a[k] == b[k]).all() for k in a)


def test_a_cell_that_kills_every_worker(address, tmp_path):
    "It is given up after four workers and reported, and the others are done."
    note = tmp_path / 'note'
    cells = [bench_cell('sample', 'ray-always-dies', note=str(note), **small), bench_cell('sample', 'standard', **small)]
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        frame = run_bench(cells, tmp_path / 'out', bar=False, ray=address)
    assert frame.method.unique().tolist() == ['standard']
    assert len(note.read_text().split()) == 4
    assert any('ray-always-dies, seed 0 failed: WorkerCrashedError' in str(w.message) for w in seen), [str(w.message) for w in seen]


def test_an_error_of_a_method(address, tmp_path):
    "An error in a worker is a failed cell with its trace, as in one process; nothing is tried again."
    cell = bench_cell('sample', 'standard', no_such_option=1, **small)
    run_cells_ray([cell], tmp_path, address)
    (e,) = [json.loads(l) for l in (tmp_path / 'errors.jsonl').read_text().splitlines()]
    assert 'no_such_option' in e['error'] and 'standard_method' in e['trace']



class FirstWaits(Transform):
    "Leaves the first worker that reads a picture in the file `note`, and lets it wait for its end."
    def __init__(self, note): self.note, self.driver = note, os.getpid()
    def encodes(self, im:PILImage):
        if os.getpid() != self.driver and not self.note.exists():
            with open(self.note, 'a') as f: f.write(f'{os.getpid()}\n')
            time.sleep(300)
        return im


def solver(folder, *transforms):
    "A learner with a probe, over the pictures in `folder`."
    dls = image_dls(folder, size=32, bs=8, seed=0, num_workers=0)
    for dl in dls.loaders: dl.after_item.add(transforms)
    strategies = [Strategy('look', probe=True), Strategy('top', freeze=0.6)]
    learn = amf_learner(dls, 'test_efficientnet', strategies, pretrained=False, seed=0)
    learn.no_bar().__enter__()
    return learn


@pytest.fixture(scope='module')
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp('pictures')
    for i, (image, number) in enumerate(zip(*toy_images(60))):
        file = folder / 'abc'[number] / f'{i}.png'
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image).save(file)
    return folder


def test_images_read_by_workers_one_of_which_is_killed(address, pictures, tmp_path, monkeypatch):
    "Heads and honest answers are those of one process, to rounding."
    monkeypatch.setattr(sharing, 'BLOCK', 10)
    here, there = solver(pictures), solver(pictures, FirstWaits(tmp_path / 'note'))
    there.reader = partial(read_on_ray, address=address)
    here.fine_tune(0)
    killed = []
    killer = threading.Thread(target=kill_first, args=(tmp_path / 'note', killed))
    killer.start()
    there.fine_tune(0)
    killer.join()
    assert killed and killed[0] != os.getpid()
    for known in ('targets_N', 'groups_N'): assert (getattr(here.solved, known) == getattr(there.solved, known)).all()
    assert torch.allclose(here.honest[0], there.honest[0], atol=1e-3)
    (a, b), (c, d) = ([p for p in learn.model.branches[0].head.parameters()] for learn in (here, there))
    assert torch.allclose(a, c, atol=1e-3) and torch.allclose(b, d, atol=1e-3)


def test_a_file_that_is_gone_is_told_as_ever(address, pictures, tmp_path):
    shutil.copytree(pictures, tmp_path / 'copy')
    learn = solver(tmp_path / 'copy')
    learn.reader = partial(read_on_ray, address=address)
    gone = Path(learn.dls.train.items[3][0])
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=gone.name): learn.fine_tune(0)


def test_the_command(address, pictures, tmp_path, monkeypatch):
    "The run that it leaves is that of one process; relative names of folders are understood by the workers."
    monkeypatch.chdir(pictures.parent)
    given = dict(arch='test_efficientnet', scratch=True, epochs=0, size=32, bs=8, no_report=True)
    panels = []
    for name, ray_address in (('there', address), ('here', None)):
        out = train_run(pictures.name, out=str(tmp_path / name), ray=ray_address, **given)
        panels.append(pd.read_csv(out / 'control_panel.csv', index_col=0))
    pd.testing.assert_frame_equal(*panels, atol=1e-3)
    for refused, address in ((ConnectionError, '127.0.0.1:9'), (ImportError, 'auto')):
        if address == 'auto': monkeypatch.setitem(sys.modules, 'ray', None)
        with pytest.raises(refused, match='`ray`='): train_run(pictures.name, out=str(tmp_path / 'none'), ray=address, **given)
        assert not [*tmp_path.glob('none*')]
