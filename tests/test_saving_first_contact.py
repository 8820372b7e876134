"""Saving, loading and continuing as a stranger does it: any fastai loader, foreign pictures, full disks, renamed files."""
import json
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from fastai.callback.core import Callback
from fastai.data.all import CategoryBlock, DataBlock, RandomSplitter, get_image_files, parent_label
from fastai.data.transforms import IntToFloatTensor
from fastai.learner import Learner, load_learner
from fastai.vision.all import (CropPad, ImageBlock, ImageDataLoaders, PILImage, PILImageBW, RandomCrop, RandomResizedCrop,
                               RandomResizedCropGPU, RatioResize, Resize, TransformBlock, aug_transforms)
from PIL import Image
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from amf_nb.core import image_dls
from amf_nb.data.loaders import pair_dls
from amf_nb.files import file_digest
from amf_nb.use.saving import check_savable, load_amf
from amf_nb.use.export import to_onnx
from amf_nb.train.making import amf_learner, fuse_learners
from amf_nb.train.resume import Checkpoints, picture_identity
from amf_nb.use.routing import ByWeight, Cascade
from amf_nb.method.strategies import Strategy
from amf_nb.test_utils import toy_dls, toy_images, toy_learner


@pytest.fixture
def photos(tmp_path):
    "Two classes of wide pictures; some lie on their side by EXIF, some are transparent or grey."
    g = np.random.default_rng(0)
    for c in 'ab':
        (tmp_path / 'photos' / c).mkdir(parents=True)
        for i in range(6):
            im = Image.fromarray(g.integers(0, 256, (40, 64, 4), np.uint8), 'RGBA')
            exif = Image.Exif()
            if i % 3 == 0: exif[0x112] = 6
            im = im if i % 3 == 1 else im.convert('L' if i == 5 else 'RGB')
            im.save(tmp_path / 'photos' / c / f'{i}.png', exif=exif)
    return tmp_path / 'photos'


def blocks(item_tfms=None, batch_tfms=None, block=ImageBlock):
    def make(folder):
        made = DataBlock((block, CategoryBlock), get_items=get_image_files, get_y=parent_label,
                         splitter=RandomSplitter(0.5, seed=0), item_tfms=item_tfms, batch_tfms=batch_tfms)
        return made.dataloaders(folder, bs=4, num_workers=0)
    return make


def table(folder):
    files = sorted(get_image_files(folder))
    return pd.DataFrame(dict(name=[str(f.relative_to(folder)) for f in files], label=[f.parent.name for f in files],
                             is_valid=[i % 2 == 0 for i in range(len(files))]))


def from_csv(folder):
    table(folder).to_csv(folder / 'labels.csv', index=False)
    return ImageDataLoaders.from_csv(folder, fn_col='name', label_col='label', valid_col='is_valid', **_loaders)


_loaders = dict(bs=4, item_tfms=Resize(32), num_workers=0)
GREY = ImageBlock(PILImageBW)
WAYS = dict(
    from_folder=lambda d: ImageDataLoaders.from_folder(d, valid_pct=0.5, seed=0, **_loaders),
    from_name_func=lambda d: ImageDataLoaders.from_name_func(d, get_image_files(d), lambda n: 'ab'[int(n[0]) % 2], **_loaders),
    from_path_re=lambda d: ImageDataLoaders.from_path_re(d, get_image_files(d), r'/([ab])/', **_loaders),
    from_path_func=lambda d: ImageDataLoaders.from_path_func(d, get_image_files(d), parent_label, **_loaders),
    from_lists=lambda d: ImageDataLoaders.from_lists(d, get_image_files(d), [f.parent.name for f in get_image_files(d)], seed=0, **_loaders),
    from_df=lambda d: ImageDataLoaders.from_df(table(d), d, fn_col='name', label_col='label', valid_col='is_valid', **_loaders),
    from_csv=from_csv,
    ours=lambda d: image_dls(d, size=32, bs=4, seed=0, valid_pct=0.5),
    ours_grey=lambda d: image_dls(d, size=32, bs=4, seed=0, valid_pct=0.5, n_in=1),
    presized=blocks(Resize(48), aug_transforms(size=32)),
    presized_wide=blocks(Resize((40, 60)), aug_transforms(size=(24, 32))),
    augmented=blocks(Resize(32), aug_transforms()),
    random_crop=blocks(RandomCrop(32)),
    random_resized_crop=blocks(RandomResizedCrop(32)),
    random_resized_crop_gpu=blocks(Resize(48), RandomResizedCropGPU(32, valid_scale=0.9)),
    pad_zeros=blocks(Resize(32, 'pad', pad_mode='zeros')),
    pad_border=blocks(Resize((24, 40), 'pad', pad_mode='border')),
    squish=blocks(Resize((24, 40), 'squish')),
    nearest=blocks(Resize(32, resamples=(Image.NEAREST, Image.NEAREST))),
    crop_pad=blocks(CropPad(48)),
    crop_pad_border=blocks(CropPad((48, 72), pad_mode='border')),
    ratio_then_resize=blocks([RatioResize(48), Resize(32)]),
    ratio_only=blocks(RatioResize(32)),
    nothing=blocks(),
    grey=blocks(Resize(32), block=GREY),
    grey_presized=blocks(Resize(48), aug_transforms(size=32), block=GREY),
)


@pytest.mark.parametrize('way', WAYS)
def test_loaded_model_sees_what_training_saw(way, photos, tmp_path):
    "Inputs of a loaded model are those of validation, for every way of fastai to bring pictures to a model."
    dls = WAYS[way](photos)
    learn = toy_learner(1, dls=dls, n_in=1 if 'grey' in way else 3)
    check_savable(learn)
    back = load_amf(learn.save_amf(tmp_path / 'model'))
    files = sorted(get_image_files(photos))
    items = table(photos) if way in ('from_df', 'from_csv') else files
    told = learn.dls.test_dl(items, bs=12, num_workers=0).one_batch()[0]
    seen = back.dls.test_dl(files, bs=12, num_workers=0).one_batch()[0]
    assert seen.shape == told.shape
    assert torch.allclose(seen, told, atol=1e-6), (seen - told).abs().max()
    assert (back.save_amf(tmp_path / 'again') / 'config.json').read_text() == (tmp_path / 'model/config.json').read_text()
    assert back.predict(files[0])[0] in 'ab'


def test_who_opens_makes_a_difference(photos, tmp_path):
    "EXIF and transparency are treated as in training, by fastai's loaders or by ours."
    theirs = load_amf(toy_learner(1, dls=WAYS['from_folder'](photos)).save_amf(tmp_path / 'theirs'))
    ours = load_amf(toy_learner(1, dls=WAYS['ours'](photos)).save_amf(tmp_path / 'ours'))
    file = photos / 'a/0.png'                                         # lies on its side
    a, b = (l.dls.test_dl([file], with_labels=False).one_batch()[0] for l in (theirs, ours))
    assert (a - b).abs().max() > 0.1


@pytest.mark.parametrize('odd,say', [
    (blocks(RandomResizedCrop(32), block=TransformBlock(lambda p: PILImage.create(p), IntToFloatTensor)), 'no way that can be saved'),
    (lambda d: DataBlock((ImageBlock, CategoryBlock), get_items=get_image_files, get_y=parent_label, splitter=RandomSplitter(0.5),
                         get_x=lambda p: PILImage(PILImage.create(p).crop((0, 0, 20, 20))), item_tfms=Resize(32)).dataloaders(d, bs=4), 'make a picture by'),
    (blocks([Resize(32), lambda o: o]), 'change pictures by'),
])
def test_what_cannot_be_reproduced_is_refused_before_training(odd, say, photos, tmp_path):
    learn = toy_learner(1, dls=odd(photos))
    for call in (check_savable, lambda l: l.save_amf(tmp_path / 'model')):
        with pytest.raises(ValueError, match=say) as e: call(learn)
        assert 'learn.export()' in str(e.value)
    assert not (tmp_path / 'model').exists()


def named(*names, size=32, **kwargs):
    pairs = [(toy_images(1)[0][0], n) for n in names]
    dls = pair_dls(pairs * 2, pairs, names, Resize(size), [], bs=2, num_workers=0)
    return toy_learner(kwargs.pop('k', 1), dls=dls, **kwargs)


def costly():
    learn = named('a', 'b')
    slow = Strategy('slow', train_only='(a+)+b')
    learn.config['strategies'] = [slow]
    return learn


def of_four():
    "Loaders that claim four classes and name three."
    dls = toy_dls()
    dls.c = 4
    return dls


CANNOT = {
    'UTF-8': lambda: named('a', os.fsdecode(b'caf\xe9')),
    'vocab': lambda: toy_learner(dls=of_four()),
    'train_only': costly,
    'policy': lambda: toy_learner(2, policy=torch.nn.Flatten()),
    'amf_learner': lambda: fuse_learners([toy_learner(1), toy_learner(1, seed=1)], policy=None),
    'Learner': lambda: Learner(toy_dls(), torch.nn.Flatten(), loss_func=torch.nn.CrossEntropyLoss()),
}


@pytest.mark.parametrize('say', CANNOT)
def test_check_savable_says_what_saving_would(say, tmp_path):
    learn = CANNOT[say]()
    before = torch.get_rng_state()
    with pytest.raises(ValueError, match=say) as checked: check_savable(learn)
    assert torch.equal(torch.get_rng_state(), before)
    assert 'learn.export()' in str(checked.value)
    if not hasattr(learn, 'save_amf'): return
    with pytest.raises(ValueError) as saved: learn.save_amf(tmp_path / 'model')
    assert str(saved.value) == str(checked.value) and not (tmp_path / 'model').exists()


@pytest.mark.parametrize('policy', ['trunk', 'cnn'])
def test_one_strategy_with_a_policy_is_saved(policy, tmp_path):
    half = Strategy('half', freeze=0.5)  # so that there is a trunk for 'trunk'
    learn = amf_learner(toy_dls(), 'test_efficientnet', half, policy=policy, pretrained=False, seed=0)
    assert learn.model.policy is None
    check_savable(learn)
    assert load_amf(learn.save_amf(tmp_path / 'model')).model.names == learn.model.names


@pytest.mark.parametrize('make', [lambda: named('a' * 5000, '$5 \n <b> é 中'), lambda: named('a', 'b', size=6, arch='test_resnet'),
                                  lambda: named('a', 'b', size=(3, 5000), arch='test_resnet')], ids=['long names', 'small', 'strip'])
def test_needless_limits_are_gone(make, tmp_path):
    learn = make()
    check_savable(learn)
    back = load_amf(learn.save_amf(tmp_path / 'model'))
    assert list(back.dls.vocab) == list(learn.dls.vocab)
    im = toy_images(1)[0][0]
    assert torch.allclose(back.dls.test_dl([im]).one_batch()[0], learn.dls.test_dl([im]).one_batch()[0], atol=1e-6)


def older(folder, config):
    "Give the model in `folder` this description, and weights without a digest of theirs, as there was none."
    file = folder / config['weights']
    save_file(load_file(file), file)
    config['weights'] = f'weights-{file_digest(file)}.safetensors'
    file.rename(folder / config['weights'])
    (folder / 'config.json').write_text(json.dumps(config))


@pytest.mark.parametrize('rule', [None, dict(threshold=0.0, top_k=1), dict(confident=0.9, order=[2, 0, 1])])
def test_models_of_version_1_load(rule, tmp_path):
    "A folder as `save_amf` wrote it before this version, with a rule that was a dict."
    learn = toy_learner(3)
    folder = learn.save_amf(tmp_path / 'model')
    c = json.loads((folder / 'config.json').read_text())
    old = {k: v for k, v in c.items() if k != 'fit'} | dict(version=1, routing=rule)
    old['image'] = dict(size=[32, 32], method='squish', stats=c['image']['stats'])
    older(folder, old)
    back = load_amf(folder)
    x = toy_images(5, seed=3)[0]
    a, b = (l.dls.test_dl([*x]).one_batch()[0] for l in (learn, back))
    assert torch.allclose(a, b, atol=1e-6)
    want = {None: None, 'threshold': ByWeight(0.0, 1), 'confident': Cascade(0.9, (2, 0, 1))}
    assert back.model.routing == want[rule and next(iter(rule))]
    again = json.loads((back.save_amf(tmp_path / 'again') / 'config.json').read_text())
    assert again['version'] == 2 and again['routing'] == rule
    assert all(torch.equal(t, learn.model.state_dict()[name]) for name, t in back.model.state_dict().items())


def test_an_edited_description_is_refused(tmp_path):
    "A probe that reads at another size, or other names of the classes: the same numbers would answer otherwise."
    learn = amf_learner(toy_dls(), 'test_efficientnet', ['probe', 'standard'], pretrained=False, seed=0)
    folder = learn.save_amf(tmp_path / 'model')
    config = json.loads((folder / 'config.json').read_text())
    side = [dict(s, side=64) if s['probe'] else s for s in config['strategies']]
    for edited in (dict(strategies=side), dict(vocab=config['vocab'][::-1]), dict(fusion='probs')):
        (folder / 'config.json').write_text(json.dumps(config | edited))
        with pytest.raises(ValueError, match='was changed after the weights were written'): load_amf(folder)
    (folder / 'config.json').write_text(json.dumps(config, sort_keys=True))  # written in another way it is the same
    assert load_amf(folder).model.names == ['probe', 'standard']


PROCESS = """import json, os, sys
from pathlib import Path
from fastai.learner import load_learner
import numpy as np
import warnings; warnings.simplefilter('ignore')
x = np.load(sys.argv[1])

def say(export):
    assert not any(m.startswith('amf_nb') for m in sys.modules)
    learn = load_learner(export)
    said = [float(p) for p in learn.predict(x)[2]], str(learn.model.routing)
    for name in ('collapse', 'save_amf', 'to_onnx', 'costs', 'verdict', 'plan'): assert callable(getattr(learn, name)), name
    Path(export).with_suffix('.json').write_text(json.dumps(said))

for export in sys.argv[2:]:
    child = os.fork() if hasattr(os, 'fork') else 0
    if not child:
        say(export)
        os._exit(0)  # the next one knows nothing of this one's imports
    os.waitpid(child, 0)
"""
RULES = [dict(top_k=1), dict(confident=0.5), {}]


@pytest.fixture(scope='module')
def exported(tmp_path_factory):
    "For each of `RULES`, what the learner says, what the exported one says, and its rule."
    learn, tmp, wanted = toy_learner(3), tmp_path_factory.mktemp('exported'), []
    with learn.no_bar(): learn.fine_tune(1)
    x = toy_images(1, seed=9)[0][0]
    np.save(tmp / 'x.npy', x)
    learn.path = tmp
    files = [tmp / f'{i}.pkl' for i in range(len(RULES))]
    for rule, file in zip(RULES, files):
        rule = learn.route(**rule)
        wanted.append((learn.predict(x)[2], rule))
        learn.export(file.name)
    errors = ''
    for those in [files] if hasattr(os, 'fork') else [[f] for f in files]:
        args = [sys.executable, '-W', 'ignore', '-c', PROCESS, tmp / 'x.npy', *those]
        errors += subprocess.run([*map(str, args)], capture_output=True, text=True).stderr
    told = [f.with_suffix('.json') for f in files]
    return wanted, [json.loads(f.read_text()) if f.exists() else None for f in told], errors


@pytest.mark.parametrize('i', range(len(RULES)), ids=[str(r) for r in RULES])
def test_exported_learner_needs_no_import(i, exported):
    "`load_learner` in a process that imports nothing of ours predicts with the rule that was set."
    wanted, said, errors = exported
    assert said[i] is not None, errors[-2000:]
    (want, rule), (probs, name) = wanted[i], said[i]
    assert np.allclose(probs, want, atol=1e-6) and name == str(rule)


def test_exported_learner_carries_no_picture(tmp_path):
    probe = [Strategy('look', probe=True)]
    learn = amf_learner(toy_dls(), 'test_efficientnet', probe, pretrained=False, seed=0)
    learn.path = tmp_path
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(0)
    picture = np.asarray(learn.dls.train_ds.items[0][0]).tobytes()
    assert learn.solved.images is learn.dls.train_ds and len(picture) > 500
    learn.export('export.pkl')
    learn.save('whole')
    learn.load('whole')
    assert len(learn.dls.train_ds) == 64 and learn.validate()[1] > 0.4
    assert picture not in (tmp_path / 'export.pkl').read_bytes()
    assert load_learner(tmp_path / 'export.pkl').solved.images is None


@pytest.mark.parametrize('gone', ['all', 'top', 'look'])
def test_model_without_a_branch_is_saved(gone, tmp_path):
    "Also without the branch that froze most, whose trunk the policy goes on reading."
    strategies = [Strategy('all'), Strategy('top', freeze=0.6), Strategy('look', probe=True)]
    learn = amf_learner(toy_dls(), 'test_efficientnet', strategies, pretrained=False, seed=0)
    with learn.no_bar(), learn.no_logging(): learn.fine_tune(1, 1e-2, holdout=0.3)
    learn.core.strength.fill_(1.)
    depth = len(learn.core.trunk.stages)
    learn.drop_branches([gone])
    back = load_amf(learn.save_amf(tmp_path / 'model'))
    assert len(back.core.trunk.stages) == depth and back.core.names == learn.core.names
    want, got = (each.get_preds(dl=learn.dls.valid)[0] for each in (learn, back))
    assert torch.allclose(got, want, atol=1e-5)
    assert back.save_amf(tmp_path / 'again') and load_amf(tmp_path / 'again').core.names == back.core.names


def test_folder_of_a_run_names_its_model(tmp_path):
    learn = toy_learner(2)
    learn.save_amf(tmp_path / 'run/model')
    (tmp_path / 'run/config.json').write_text('{}')
    with pytest.raises(ValueError, match='folder of a run: its model is in .*run/model'): load_amf(tmp_path / 'run')


def test_what_a_second_fit_needs_comes_back(tmp_path):
    learn = toy_learner(3, policy='cnn')
    learn.fine_tune(2, 1e-2, holdout=0.3)
    learn.best_branch = 'top'
    back = load_amf(learn.save_amf(tmp_path / 'model'))
    for k in ('policy_fit', 'best_branch', 'seed', 'lr'): assert getattr(back, k) == getattr(learn, k), k
    assert back.trained is True
    assert back.policy_start.scores.weight.abs().sum() == 0, 'a loaded policy starts from the fitted one'
    state = torch.get_rng_state()
    twice = load_amf(tmp_path / 'model')
    assert torch.equal(torch.get_rng_state(), state), 'loading drew random numbers'
    for a, b in zip(back.policy_start.parameters(), twice.policy_start.parameters()): assert torch.equal(a, b)
    with pytest.raises(ValueError, match='fit_policy'): back.route(budget=1.2)
    assert (back.save_amf(tmp_path / 'again') / 'config.json').read_text() == (tmp_path / 'model/config.json').read_text()


def test_a_loaded_policy_starts_afresh(tmp_path):
    "`fit_policy` on a loaded model gives what it gives on the model that was saved."
    learn = toy_learner(3)
    learn.fine_tune(3, 1e-2, holdout=0.3)
    back = load_amf(learn.save_amf(tmp_path / 'model'))
    unseen = toy_dls(seed=7).valid_ds
    a, b = (l.fit_policy(learn.dls.valid.new(unseen), seed=1) for l in (learn, back))
    assert a.strength == b.strength and a.epochs == b.epochs
    assert torch.allclose(learn.model.policy.scores.weight, back.model.policy.scores.weight, atol=1e-5)


def test_new_pictures_for_a_loaded_model(tmp_path):
    "`learn.dls = ..` with loaders made by `image_dls` or fastai: normalised as the model expects, and saved again as it was."
    learn = toy_learner(3)
    learn.fine_tune(3, 1e-2)
    back = load_amf(learn.save_amf(tmp_path / 'model'))
    plain = toy_dls()                                                 # nobody has added a normalisation
    back.dls = plain
    assert torch.allclose(back.dls.valid.one_batch()[0], learn.dls.valid.one_batch()[0], atol=1e-6)
    assert back.control_panel().accuracy['policy'] == pytest.approx(learn.control_panel().accuracy['policy'], abs=1e-6)
    config = [json.loads((l.save_amf(tmp_path / n) / 'config.json').read_text()) for n, l in (('a', learn), ('b', back))]
    assert config[0]['image'] == config[1]['image'] and config[0]['vocab'] == config[1]['vocab']


def full_disk(*args, **kwargs): raise SafetensorError('Error while serializing: I/O error: No space left on device (os error 28)')


def test_full_disk_is_one_sentence(tmp_path, monkeypatch):
    learn = toy_learner(2)
    folder = learn.save_amf(tmp_path / 'model')
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    monkeypatch.setitem(type(learn).save_amf.__globals__, 'save_file', full_disk)
    with pytest.raises(OSError, match='No space left') as e: learn.save_amf(folder)
    assert '\n' not in str(e.value) and str(folder) in str(e.value)
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    monkeypatch.setitem(Checkpoints.after_epoch.__globals__, 'save_file', full_disk)
    with pytest.raises(OSError, match='No space left') as e: learn.fit(1, cbs=Checkpoints(tmp_path / 'checkpoints'))
    assert '\n' not in str(e.value) and not list((tmp_path / 'checkpoints').iterdir())


@pytest.fixture
def tiny_disk(tmp_path):
    "A disk of 64 kB, if this process may make one."
    where = tmp_path / 'tiny'
    where.mkdir()
    try: made = subprocess.run(['mount', '-t', 'tmpfs', '-o', 'size=64k', 'tmpfs', str(where)], capture_output=True).returncode == 0
    except OSError: made = False
    if not made: pytest.skip('needs the right to mount a disk')
    yield where
    subprocess.run(['umount', str(where)])


def test_a_disk_that_is_really_full(tiny_disk):
    learn = toy_learner(2)
    with pytest.raises(OSError) as e: learn.save_amf(tiny_disk / 'model')
    assert '\n' not in str(e.value)
    with pytest.raises(OSError) as e: learn.fit(1, cbs=Checkpoints(tiny_disk / 'checkpoints'))
    assert '\n' not in str(e.value)
    assert not [f for f in tiny_disk.rglob('*') if f.is_file()]


class Stop(Callback):
    "Interrupt in epoch `at`, as a user does."
    order = 1
    def __init__(self, at): self.at = at
    def before_validate(self):
        if self.epoch == self.at: raise KeyboardInterrupt


def run_on(folder, where, resume=False, stop=None, prepare=None):
    learn = toy_learner(2, dls=image_dls(folder, size=32, bs=4, seed=1, valid_pct=0.4, num_workers=0))
    learn.seed = 1
    cbs = [Checkpoints(where, resume=resume)] + ([Stop(stop)] if stop is not None else [])
    try: learn.fine_tune(3, cbs=cbs, holdout=0.)
    except KeyboardInterrupt: pass
    return learn


def rename(folder): (folder / 'a/0.png').rename(folder / 'a/zz.png')
def grow(folder): (folder / 'a/2.png').write_bytes((folder / 'a/2.png').read_bytes() + b' ')
def swap(folder):
    for f, t in (('a', 'c'), ('b', 'a'), ('c', 'b')): (folder / f).rename(folder / t)
def replace(folder): Image.fromarray(np.zeros((40, 64, 3), np.uint8)).save(folder / 'a/1.png')


@pytest.mark.parametrize('change', [rename, grow, swap, replace])
def test_other_pictures_are_another_fit(change, photos, tmp_path):
    run_on(photos, tmp_path / 'run', stop=1)
    change(photos)
    with pytest.raises(ValueError, match='is of another fit .*pictures|is of another fit .*labels'): run_on(photos, tmp_path / 'run', resume=True)


def test_the_same_pictures_elsewhere_are_the_same_fit(photos, tmp_path):
    run_on(photos, tmp_path / 'run', stop=1)
    photos.rename(tmp_path / 'moved')
    learn = run_on(tmp_path / 'moved', tmp_path / 'run', resume=True)
    assert len(learn.recorder.values) == 3


def test_classes_in_another_order_are_another_fit(tmp_path):
    x, y = toy_images(24)
    def fit(vocab, resume, **kwargs):
        pairs = [(i, 'rgb'[c]) for i, c in zip(x, y)]
        learn = toy_learner(1, dls=pair_dls(pairs[:16], pairs[16:], vocab, Resize(32), [], bs=4, seed=0, num_workers=0))
        learn.fit(2, cbs=[Checkpoints(tmp_path / 'run', resume=resume), *kwargs.values()])
    with pytest.raises(KeyboardInterrupt): fit('rgb', False, stop=Stop(1))
    with pytest.raises(ValueError, match='classes or their order'): fit('bgr', True)


@pytest.mark.parametrize('way', ['from_folder', 'from_df', 'from_lists', 'ours'])
def test_every_kind_of_loader_tells_its_pictures(way, photos):
    first = [picture_identity(dl.dataset) for dl in WAYS[way](photos).loaders]
    assert [picture_identity(dl.dataset) for dl in WAYS[way](photos).loaders] == first
    rename(photos)
    assert [picture_identity(dl.dataset) for dl in WAYS[way](photos).loaders] != first


def test_checkpoints_of_before_are_continued(tmp_path):
    "A checkpoint whose identity says nothing of pictures and classes, as before this version."
    def fit(resume, *cbs):
        learn = toy_learner(2)
        learn.fit_one_cycle(3, cbs=[Checkpoints(tmp_path / 'run', resume=resume), *cbs])
        return learn
    class Older(Callback):
        order = Checkpoints.order + 1
        def before_fit(self):
            for k in ('pictures', 'classes'): del self.learn.checkpoints.identity[k]
    with pytest.raises(KeyboardInterrupt): fit(False, Older(), Stop(1))
    assert len(fit(True).recorder.values) == 3


@pytest.mark.parametrize('at', [1, 3])
def test_interrupted_and_continued_in_the_same_kernel(at, tmp_path):
    "Before and after the policy was fitted: the same learner goes on and ends as if it had not been interrupted."
    whole, cut = toy_learner(2), toy_learner(2)
    whole.fine_tune(4, 1e-2, holdout=0.25)
    with pytest.raises(KeyboardInterrupt): cut.fine_tune(4, 1e-2, holdout=0.25, cbs=[Checkpoints(tmp_path / 'run'), Stop(at)])
    cut.fine_tune(4, 1e-2, holdout=0.25, cbs=Checkpoints(tmp_path / 'run', resume=True))
    for k, v in whole.model.state_dict().items(): assert torch.equal(v, cut.model.state_dict()[k]), k
    assert cut.policy_fit == whole.policy_fit and cut.recorder.values == whole.recorder.values


def test_a_branch_dropped_since_the_checkpoint_trains_again(tmp_path):
    learn = toy_learner(3)
    class Drop(Callback):
        def before_validate(self):
            if self.epoch != 1: return
            self.learn.model.dropped.add(1)
            self.learn.model.branches[1].requires_grad_(False)
            raise KeyboardInterrupt
    with pytest.raises(KeyboardInterrupt): learn.fit_one_cycle(3, 1e-2, cbs=[Checkpoints(tmp_path / 'run'), Drop()])
    learn.fit_one_cycle(3, 1e-2, cbs=Checkpoints(tmp_path / 'run', resume=True))
    whole = toy_learner(3)
    whole.fit_one_cycle(3, 1e-2)
    assert learn.model.names == whole.model.names
    for k, v in whole.model.state_dict().items(): assert torch.equal(v, learn.model.state_dict()[k]), k


def test_joined_learners_say_what_they_cannot(tmp_path):
    "Loaded models joined: saved in parts, or exported."
    parts = [load_amf(toy_learner(k, seed=k).save_amf(tmp_path / str(k))) for k in (1, 2)]
    joined = fuse_learners(parts, policy=None)
    for say, call in {'save each of those': lambda: joined.save_amf(tmp_path / 'joined'), 'fit_policy': lambda: joined.route(budget=1)}.items():
        with pytest.raises(ValueError, match=say): call()
    pytest.importorskip('onnxruntime')
    assert to_onnx(joined, tmp_path / 'joined.onnx').is_file()


def test_a_model_that_is_not_there_is_one_sentence(tmp_path):
    for wrong in (tmp_path / 'nowhere', tmp_path / 'nowhere/model', str(tmp_path / 'file')):
        (tmp_path / 'file').touch()
        with pytest.raises(FileNotFoundError) as e: load_amf(wrong)
        said = f'`path`={str(wrong)!r} is not a folder: give the folder that `learn.save_amf` wrote'
        assert str(e.value) == said
    with pytest.raises(FileNotFoundError, match='holds no `config.json`'): load_amf(tmp_path)
