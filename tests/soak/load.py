"""How much the library carries: python tests/soak/load.py [--out bench/soak/load.json] [--images 10000] [--files 100000] [--profile]

predict: one process loads a model from disk and predicts many image files, in calls of 100 and then in one call; memory after the first tenth may not grow.
start: a folder with many small files becomes `DataLoaders` and a learner takes its first step; every part is timed, and for 10,000 files or more all of
it has a limit.
Each runs in a process of its own, single-threaded, on files that are generated from a seed. Exit code 1 if a limit is exceeded."""
import argparse
import cProfile
import io
import json
import os
import platform
import pstats
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

limits = dict(grown_mb=32, start_s_per_1000=0.6, one_call_mb=64)
classes = [f'class_{i:02}' for i in range(20)]


def write_images(folder, n, size, seed=0):
    "`n` small JPEG files, the same number in every class; noise about a colour of the class."
    rng = np.random.default_rng(seed)
    colours = rng.integers(40, 216, (len(classes), 3))
    files = []
    for c, name in enumerate(classes):
        (folder / name).mkdir(parents=True)
        kinds = []
        for noise in rng.normal(0, 25, (50, size, size, 3)):
            f = io.BytesIO()
            Image.fromarray((colours[c] + noise).clip(0, 255).astype(np.uint8)).save(f, 'JPEG')
            kinds.append(f.getvalue())
        for i in range(n // len(classes)):
            files.append(folder / name / f'{i:06}.jpg')
            files[-1].write_bytes(kinds[i % len(kinds)])
    return files


def rss_mb(): return int(Path('/proc/self/statm').read_text().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 2**20


class Peak:
    "The highest memory of this process within the block, looked at every 20 ms."
    def __enter__(self):
        self.mb, self.on = rss_mb(), True
        def look():
            while self.on:
                self.mb = max(self.mb, rss_mb())
                time.sleep(0.02)
        self.thread = threading.Thread(target=look)
        self.thread.start()
        return self

    def __exit__(self, *args):
        self.on = False
        self.thread.join()


def make_model(folder):
    "A small untrained model of three branches, saved."
    from amf_nb.core import amf_learner, image_dls
    write_images(folder / 'few', 80, 64)
    dls = image_dls(folder / 'few', size=64, bs=16, num_workers=0)
    learn = amf_learner(dls, 'test_efficientnet', pretrained=False, seed=0)
    learn.save_amf(folder / 'model')


def predict(folder, n):
    "Memory along the way of predicting `n` files, 100 at a time, and of one call for all of them."
    make_model(folder)
    files = write_images(folder / 'many', n, 64)
    from amf_nb.cli import predict_files, predict_table
    from amf_nb.core import load_amf
    learn = load_amf(folder / 'model')
    start, seen = time.perf_counter(), []
    for i in range(0, n, 100):
        assert len(predict_table(learn, files[i:i + 100])) == 100
        seen.append(round(rss_mb(), 1))
    seconds = time.perf_counter() - start
    before = rss_mb()
    with Peak() as peak: table = predict_files(folder / 'model', [folder / 'many'])
    assert len(table) == n
    settled = seen[len(seen) // 10:]
    return dict(images=n, seconds=round(seconds, 1), rss_mb=seen[::max(1, len(seen) // 20)], grown_mb=round(max(settled) - settled[0], 1),
                one_call_mb=round(peak.mb - before, 1))


def start(folder, n, profile=False):
    "Seconds from a folder of `n` files to the end of the first training step."
    write_images(folder / 'images', n, 32)
    from fastai.callback.core import CancelFitException, Callback
    from amf_nb.core import amf_learner, image_dls
    class First(Callback):
        def after_step(self): raise CancelFitException
    prof, times, t = cProfile.Profile(), {}, time.perf_counter()
    def lap(name):
        nonlocal t
        times[name], t = round(time.perf_counter() - t, 2), time.perf_counter()
    if profile: prof.enable()
    dls = image_dls(folder / 'images', size=32, bs=64, num_workers=0)
    lap('image_dls')
    dls.one_batch()
    lap('first_batch')
    learn = amf_learner(dls, 'test_efficientnet', pretrained=False, seed=0, cbs=First())
    lap('learner')
    with learn.no_bar(), learn.no_logging(): learn.fit(1)
    lap('first_step')
    if profile:
        prof.disable()
        pstats.Stats(prof).sort_stats('cumulative').print_stats(45)
    total = sum(times.values())
    return dict(files=n, seconds=times, total_s=round(total, 2), s_per_1000=round(1000 * total / n, 4), rss_mb=round(rss_mb()))


def run_part(part, n, profile):
    "What a process of its own says of `part`."
    env = os.environ | dict(OMP_NUM_THREADS='1', MKL_NUM_THREADS='1')
    command = [sys.executable, __file__, '--part', part, '--n', str(n), *(['--profile'] if profile else [])]
    out = subprocess.run(command, env=env, stdout=subprocess.PIPE, text=True, check=True)
    *text, last = out.stdout.strip().split('\n')
    if profile: print('\n'.join(text))
    return json.loads(last)


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('--out', default='bench/soak/load.json', type=Path)
    p.add_argument('--images', type=int, default=10_000)
    p.add_argument('--files', type=int, default=100_000)
    p.add_argument('--profile', action='store_true', help='show where the seconds of the start go; it makes them more')
    p.add_argument('--part', choices=['predict', 'start'], help=argparse.SUPPRESS)
    p.add_argument('--n', type=int, help=argparse.SUPPRESS)
    a = p.parse_args()
    if a.part:
        with tempfile.TemporaryDirectory() as tmp:
            print(json.dumps(predict(Path(tmp), a.n) if a.part == 'predict' else start(Path(tmp), a.n, a.profile)))
        return 0
    from amf_nb.study.cells import package_versions
    command = f'python tests/soak/load.py --images {a.images} --files {a.files}'
    res = dict(command=command, limits=limits, versions=package_versions(), machine=platform.machine(), threads=1,
               predict=run_part('predict', a.images, a.profile), start=run_part('start', a.files, a.profile))
    bad = [f'{k}: {v} is above {limits[k]}' for k, v in dict(grown_mb=res['predict']['grown_mb'], one_call_mb=res['predict']['one_call_mb'],
                                                          start_s_per_1000=res['start']['s_per_1000'] if a.files >= 10_000 else 0).items() if v > limits[k]]
    res['exceeded'] = bad
    a.out.parent.mkdir(parents=True, exist_ok=True)
    a.out.write_text(json.dumps(res, indent=1) + '\n')
    print(json.dumps(res, indent=1))
    return int(bool(bad))


if __name__ == '__main__': sys.exit(main())
