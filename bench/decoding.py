"""What JPEG photographs cost on their way to a network of 224 pixels: ways to decode one, and where an epoch goes.

python bench/decoding.py PHOTOS [--rounds 2] [--images 120] [--out bench/decoding.jsonl]

PHOTOS is a folder of photographs, here `nature` of Debian's package mate-backgrounds 1.26 (twelve JPEGs of 1280 x 1024 to
2560 x 1920; `apt-get download mate-backgrounds && dpkg -x mate-backgrounds_*.deb backgrounds`). From each a random part of
4:3 is brought to the size of a picture from the web, a tablet or a telephone, gets the noise of a sensor, which makes files as
large as those of cameras, and is written as JPEG. The ways take turns. An epoch is one of the default strategies of
`amf_learner`: a batch of 64 photographs of a tablet, and 24 to score on. Times are seconds of the processor, of one thread.
Six minutes."""
import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
import warnings
from itertools import chain
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
import torchvision.transforms.v2.functional as F
from fastai.vision.augment import Resize
from fastai.vision.core import PILImage
from PIL import Image, ImageOps
from torchvision.io import decode_image

from amf_nb.core import amf_learner, image_dls, load_image
from amf_nb.data import images
from amf_nb.data.decoding import ItemCache
from amf_nb.data.loaders import SeededDL, default_augs, pair_dls

SIDE = 224
SIZES = {'web': ((512, 384), 85, 24), 'tablet': ((1600, 1200), 88, 24), 'telephone': ((4000, 3000), 92, 12)}
CUT = Resize(SIDE)


def photograph(source, size, quality, rng):
    "The bytes of a JPEG of `size` from a random part of the image `source`."
    width, height = source.size
    k = min(width / 4, height / 3) * rng.uniform(0.6, 1)
    x, y = rng.uniform(0, width - 4 * k), rng.uniform(0, height - 3 * k)
    im = source.resize(size, Image.Resampling.LANCZOS, box=(x, y, x + 4 * k, y + 3 * k))
    noisy = np.asarray(im) + rng.normal(0, 2.5, (size[1], size[0], 1)).astype(np.float32)
    file = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).round().astype(np.uint8)).save(file, 'JPEG', quality=quality)
    return file.getvalue()


def photographs(sources, size, quality, n, seed=0):
    rng = np.random.default_rng(seed)
    return [photograph(sources[i % len(sources)], size, quality, rng) for i in range(n)]


def middle(width, height):
    side = min(width, height)
    return (width - side) // 2, (height - side) // 2, (width + side) // 2, (height + side) // 2


def walked(data):
    "The check for too many scans as it was until now: a walk through the whole file."
    return sum(1 for _ in images._segments(data))


def load_until_now(src, n_in=3, want=None):
    "`load_image` as it was until now, for a JPEG in RGB: all of its pixels, copied twice."
    data = src if isinstance(src, bytes) else Path(src).read_bytes()
    walked(data)
    return PILImage(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert('RGB'))


def by_torchvision(data):
    im = decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8))
    left, top, right, bottom = middle(im.shape[2], im.shape[1])
    return F.resize(im[:, top:bottom, left:right], [SIDE, SIDE], antialias=True).permute(1, 2, 0)


def by_pillow(data, times=None, gap=None):
    "Pillow alone, decoded at a scale at which `times` the pixels remain, or scaled with a `reducing_gap`."
    im = Image.open(io.BytesIO(data))
    box, width = middle(*im.size), im.width
    if times: im.draft(None, (times * SIDE, times * SIDE))
    box = [edge * im.width / width for edge in box]
    return im.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box, reducing_gap=gap)


def cut(im): return CUT(im, split_idx=1)


WAYS = {
    'fastai': lambda data: cut(PILImage.create(data)),
    'until now': lambda data: cut(load_until_now(data)),
    'load_image, all pixels': lambda data: cut(load_image(data)),
    'torchvision': by_torchvision,
    'Pillow, reducing_gap=2': lambda data: by_pillow(data, gap=2.0),
    'Pillow, draft with 1 times the pixels': lambda data: by_pillow(data, 1),
    'Pillow, draft with 4 times the pixels': lambda data: by_pillow(data, 4),
    'load_image, at scale': lambda data: cut(load_image(data, want=(SIDE, SIDE))),
}
CHECKS = {'checks until now': walked, 'checks': images._check_scans}


def cpu_seconds(f, *args):
    start = time.process_time()
    f(*args)
    return time.process_time() - start


def differences(way, files):
    "Grey levels between what `way` makes of `files` and what fastai makes of all pixels."
    gaps = [np.abs(np.asarray(way(f)).astype(int) - np.asarray(WAYS['fastai'](f))) for f in files]
    return dict(mean=float(np.mean(gaps)), worst_mean=float(max(g.mean() for g in gaps)), most=int(np.max(gaps)))


def pictures(sources, rounds):
    "A record for each kind of picture and way."
    for kind, (size, quality, n) in SIZES.items():
        files = photographs(sources, size, quality, n)
        ways, seconds = WAYS | CHECKS, {way: [] for way in WAYS | CHECKS}
        for _ in range(rounds):
            for way, f in ways.items(): seconds[way].append(cpu_seconds(lambda: [*map(f, files)]) / n)
        for way, each in seconds.items():
            about = dict(part='picture', kind=kind, width=size[0], height=size[1], kb=sum(map(len, files)) / 1000 / n)
            gap = differences(WAYS[way], files) if way in WAYS else {}
            yield about | dict(way=way, ms=1000 * statistics.median(each), low=1000 * min(each), high=1000 * max(each)) | gap


def folder_of(sources, folder, kind, n):
    "`n` photographs of the size of a `kind` in four class folders."
    size, quality, _ = SIZES[kind]
    for i, data in enumerate(photographs(sources, size, quality, n, seed=1)):
        file = folder / 'abcd'[i % len(sources) % 4] / f'{i:03}.jpg'
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(data)


def at_each_time(folder): return image_dls(folder, num_workers=0, cache=ItemCache(0))


def kept(folder): return image_dls(folder, num_workers=0)


def in_memory(folder):
    "The same loaders over pictures that are decoded already, and at the right scale."
    dls = at_each_time(folder)
    opened = lambda ds: [(load_image(path, want=(SIDE, SIDE)), label) for path, label in ds.items]
    train, valid = map(opened, (dls.train_ds, dls.valid_ds))
    return pair_dls(train, valid, dls.vocab, CUT, default_augs(SIDE, photo=True), seed=42, num_workers=0)


CASES = {'until now': (load_until_now, at_each_time), 'at scale': (load_image, at_each_time),
         'at scale, kept': (load_image, kept), 'in memory': (load_image, in_memory)}


class Clock(dict):
    "Seconds of the processor by name."
    def counting(self, name, f):
        "`f`, whose time is added to `name`."
        def counted(*args, **kwargs):
            start = time.process_time()
            try: return f(*args, **kwargs)
            finally: self[name] = self.get(name, 0) + time.process_time() - start
        return counted

    def batches(self, batches):
        "What the iterator `batches` gives; the time that takes is added to `loading`."
        following = self.counting('loading', batches.__next__)
        while True:
            try: yield following()
            except StopIteration: return


@contextlib.contextmanager
def parts_of(load):
    "Within the block files are opened by `load`; a `Clock` of loading, items and decoding."
    clock, batches = Clock(), SeededDL.__iter__
    new = {'amf_nb.data.decoding.load_image': clock.counting('decoding', load),
           'amf_nb.data.loaders.SeededDL.do_item': clock.counting('items', SeededDL.do_item),
           'amf_nb.data.loaders.SeededDL.__iter__': lambda dl: clock.batches(batches(dl))}
    with contextlib.ExitStack() as stack:
        for name, f in new.items(): stack.enter_context(mock.patch(name, f))
        yield clock



def seconds_of(f, *args):
    "Seconds of `f`, of the processor and by the clock."
    wall, start = time.perf_counter(), time.process_time()
    f(*args)
    return dict(seconds=time.process_time() - start, wall=time.perf_counter() - wall)


def an_epoch(learn, load):
    "Seconds of `learn.fit(1)` and of its parts."
    with parts_of(load) as clock, learn.no_bar(), learn.no_logging(): whole = seconds_of(learn.fit, 1)
    loading, items, decoding = (clock.get(k, 0.) for k in ('loading', 'items', 'decoding'))
    return whole | dict(decoding=decoding, cutting=items - decoding, augmentation=loading - items,
                        network=whole['seconds'] - loading)


def epochs(sources, kind, rounds, n):
    "A record for each round and case: an epoch, and how long it took to make the loaders."
    with tempfile.TemporaryDirectory() as folder:
        folder_of(sources, Path(folder), kind, n)
        learners, made = {}, {}
        for case, (load, loaders) in CASES.items():
            with mock.patch('amf_nb.data.decoding.load_image', load):
                start = time.process_time()
                dls = loaders(Path(folder))
                made[case] = time.process_time() - start
            learners[case] = amf_learner(dls, seed=0)
            an_epoch(learners[case], load) # probes are solved, memory is had
        for r in range(rounds):
            for case, learn in learners.items():
                about = dict(part='epoch', kind=kind, case=case, round=r, images=n, made=made[case])
                yield about | an_epoch(learn, CASES[case][0])


def main():
    p = argparse.ArgumentParser(description=__doc__.split('\n')[0])
    p.add_argument('photos', type=Path)
    p.add_argument('--rounds', type=int, default=2)
    p.add_argument('--images', type=int, default=120)
    p.add_argument('--out', type=Path, default=Path(__file__).with_suffix('.jsonl'))
    a = p.parse_args()
    warnings.simplefilter('ignore')
    torch.set_num_threads(1)
    sources = [Image.open(f).convert('RGB') for f in sorted(a.photos.glob('*.jpg'))]
    records = []
    with open(a.out, 'w') as file:
        for record in chain(pictures(sources, a.rounds), epochs(sources, 'tablet', a.rounds, a.images)):
            records.append(record)
            print(json.dumps(record), file=file, flush=True)
    table = pd.DataFrame(records)
    seen = table[table.part == 'picture'].set_index(['kind', 'way'])
    print(seen[['ms', 'low', 'high', 'mean', 'worst_mean', 'most']].round(2).to_string())
    parts = ['made', 'seconds', 'wall', 'decoding', 'cutting', 'augmentation', 'network']
    print(table[table.part == 'epoch'].groupby('case')[parts].median().round(2).to_string())


if __name__ == '__main__': main()
