"Cells on a Ray cluster of several worker processes, one of them killed: what comes back equals what one process computes."
import json
import os
import signal
import sys
import threading
import time
import warnings
from pathlib import Path

import pytest
import torch

ray = pytest.importorskip('ray')

from amf_nb.study.cells import bench_cell, bench_cells, read_predictions, run_bench, run_cells_ray
from amf_nb.study.methods import register_method, standard_method

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
    os.environ |= {'RAY_USAGE_STATS_ENABLED': '0'}
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

