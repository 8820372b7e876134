"fastai's ordinary ways to make image DataLoaders, each through amf_learner, fine_tune and predict."
import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.progress import ProgressCallback
from fastai.torch_core import default_device, set_seed
from fastai.vision.all import (CategoryBlock, ColReader, ColSplitter, DataBlock, GrandparentSplitter,
                               ImageBlock, ImageDataLoaders, MultiCategoryBlock, RandomSplitter, Resize,
                               get_image_files, parent_label)
from PIL import Image

from amf_nb.train.making import amf_learner

COLOURS = dict(red=(200, 40, 40), green=(40, 200, 40), blue=(40, 40, 200))
SMALL = dict(item_tfms=Resize(32), bs=8, num_workers=0)
TABLE = dict(valid_pct=0.25, seed=0, **SMALL)


@pytest.fixture(autouse=True)
def on_cpu():
    default_device(False)
    torch.set_num_threads(1)


@pytest.fixture(scope='module')
def photos(tmp_path_factory):
    "36 pictures in train/CLASS and valid/CLASS, and CSVs of all with one label and with two."
    root, rng, rows = tmp_path_factory.mktemp('photos'), np.random.default_rng(0), []
    for i in range(36):
        name = [*COLOURS][i % 3]
        file = root / ('valid' if i % 4 == 3 else 'train') / name / f'{name}_{i:02}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = rng.integers(-30, 30, (40, 40, 3))
        Image.fromarray((np.array(COLOURS[name]) + noise).clip(0, 255).astype(np.uint8)).save(file)
        rows.append((str(file.relative_to(root)), name, f'{name} {("dark", "light")[i % 2]}', i % 4 == 3))
    frame = pd.DataFrame(rows, columns=['file', 'label', 'tags', 'held'])
    frame.to_csv(root / 'labels.csv', index=False)
    frame[['file', 'tags']].to_csv(root / 'tags.csv', index=False)
    return root


def files(root): return get_image_files(root)


def frame(root): return pd.read_csv(root / 'labels.csv')


def colour(file): return str(file).replace('\\', '/').split('/')[-1].split('_')[0]


def tags_of(row): return row['tags'].split(' ')


single = dict(
    from_folder=lambda r: ImageDataLoaders.from_folder(r, **SMALL),
    from_folder_drawn=lambda r: ImageDataLoaders.from_folder(r / 'train', valid_pct=0.25, seed=0, **SMALL),
    from_name_func=lambda r: ImageDataLoaders.from_name_func(r, files(r), colour, **TABLE),
    from_path_func=lambda r: ImageDataLoaders.from_path_func(r, files(r), colour, **TABLE),
    from_name_re=lambda r: ImageDataLoaders.from_name_re(r, files(r), r'(.+)_\d+.png$', **TABLE),
    from_path_re=lambda r: ImageDataLoaders.from_path_re(r, files(r), r'/([^/]+)_\d+.png$', **TABLE),
    from_df=lambda r: ImageDataLoaders.from_df(frame(r), r, **TABLE),
    from_df_named=lambda r: ImageDataLoaders.from_df(frame(r), r, fn_col='file', label_col='label', valid_col='held', **SMALL),
    from_csv=lambda r: ImageDataLoaders.from_csv(r, 'labels.csv', **TABLE),
    from_lists=lambda r: ImageDataLoaders.from_lists(r, files(r), [colour(f) for f in files(r)], **TABLE),
    datablock=lambda r: DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                                  splitter=GrandparentSplitter(), item_tfms=Resize(32)).dataloaders(r, bs=8, num_workers=0),
    datablock_frame=lambda r: DataBlock((ImageBlock, CategoryBlock), get_x=ColReader('file', pref=r), get_y=ColReader(1),
                                        splitter=ColSplitter('held'), item_tfms=Resize(32)).dataloaders(frame(r), bs=8, num_workers=0))

several = dict(
    from_df=lambda r: ImageDataLoaders.from_df(frame(r)[['file', 'tags']], r, label_delim=' ', **TABLE),
    from_csv=lambda r: ImageDataLoaders.from_csv(r, 'tags.csv', label_delim=' ', **TABLE),
    from_csv_blocks=lambda r: ImageDataLoaders.from_csv(r, 'tags.csv', label_delim=' ', y_block=MultiCategoryBlock, **TABLE),
    from_lists=lambda r: ImageDataLoaders.from_lists(r, [r / f for f in frame(r).file], [t.split(' ') for t in frame(r).tags],
                                                     y_block=MultiCategoryBlock, **TABLE),
    datablock=lambda r: DataBlock((ImageBlock, MultiCategoryBlock), get_x=ColReader(0, pref=r), get_y=tags_of,
                                  splitter=RandomSplitter(0.25, seed=0), item_tfms=Resize(32)).dataloaders(frame(r), bs=8, num_workers=0))


def tuned(dls):
    set_seed(0)
    learn = amf_learner(dls, 'test_efficientnet', ['standard', 'last_half'], pretrained=False, seed=0)
    learn.logger = lambda *_: None
    learn.remove_cbs(ProgressCallback)
    learn.fine_tune(1)
    assert np.isfinite(learn.recorder.losses).all() and len(learn.recorder.losses) > 0
    return learn


@pytest.mark.parametrize('way', single)
def test_one_label(way, photos):
    dls = single[way](photos)
    assert list(dls.vocab) == sorted(COLOURS)
    file = photos / 'train' / 'red' / 'red_00.png'
    label, i, probs = tuned(dls).predict(file)
    assert label == dls.vocab[int(i)] and probs.shape == (3,)
    assert abs(float(probs.sum()) - 1) < 1e-5


@pytest.mark.parametrize('way', several)
def test_several_labels(way, photos):
    dls = several[way](photos)
    assert set(dls.vocab) == {*COLOURS, 'dark', 'light'}
    labels, picked, probs = tuned(dls).predict(photos / 'train' / 'red' / 'red_00.png')
    assert probs.shape == (5,) and 0 <= probs.min() and probs.max() <= 1
    assert list(labels) == [v for v, p in zip(dls.vocab, picked) if p]
