"Folders, tables and pictures as strangers bring them: used right, or refused before training with the remedy."
import io
import os
import subprocess
import sys
import unicodedata
import warnings
import zlib

import numpy as np
import pytest
import torch
from fastai.torch_core import default_device
from PIL import Image

from amf_nb.core import array_dls, check_images, image_dls, load_image
from amf_nb.test_utils import toy_images
from amf_nb.data.loaders import OpenImage, label_of
from amf_nb.data.images import find_images
from amf_nb.test_utils import toy_learner


@pytest.fixture(autouse=True)
def on_cpu():
    default_device(False)
    torch.set_num_threads(1)


def picture(file, seed=0, fmt='JPEG'):
    "A small picture of its own colour."
    file.parent.mkdir(parents=True, exist_ok=True)
    color = np.random.default_rng([seed, zlib.crc32(os.fsencode(file))]).integers(0, 255, 3)
    Image.new('RGB', (20, 16), tuple(color.tolist())).save(file, fmt)
    return file


def folders(root, names, n=4, ending='.jpg'):
    "`n` pictures in each of the folders `names` below `root`."
    for k, name in enumerate(names):
        for i in range(n): picture(root / name / f'{i}{ending}', 10 * k + i)
    return root


def loaders(path, *args, **kwargs):
    "`image_dls`, and its warnings as one text."
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter('always')
        dls = image_dls(path, *args, size=32, num_workers=0, **kwargs)
    return dls, ' | '.join(str(w.message) for w in seen if 'jit' not in str(w.message))


def used(dls): return sorted(str(f) for f, _ in [*dls.train_ds.items, *dls.valid_ds.items])


def sizes(dls): return len(dls.train_ds), len(dls.valid_ds), list(dls.vocab)


# batches

@pytest.mark.parametrize('n', [8, 20, 36, 70])
def test_a_training_loader_has_a_batch(n, tmp_path):
    dls, _ = loaders(folders(tmp_path, ['cat', 'dog'], n // 2))
    assert len(dls.train) >= 1 and len(dls.train.new(dls.train.dataset)) >= 1
    x = np.zeros((n, 8, 8), np.uint8)
    assert len(array_dls(x, np.arange(n) % 2, x, np.arange(n) % 2, ['a', 'b'], size=32, bs=256).train) == 1


def test_few_pictures_train_and_are_scored(tmp_path):
    dls, _ = loaders(folders(tmp_path, ['cat', 'dog', 'fox'], 12))
    learn = toy_learner(dls=dls)
    learn.fine_tune(1)
    assert len(learn.recorder.losses) > 0 and np.isfinite(learn.recorder.losses).all()
    assert np.isfinite(learn.validate()).all() and len(learn.get_preds()[0]) == len(dls.valid_ds)


# splits

@pytest.mark.parametrize('train, held', [
    ('train', 'valid'), ('Train', 'Test'), ('TRAIN', 'VAL'), ('Training', 'Testing'), ('train_images', 'val_images'), ('train', 'dev'),
    ('training_set', 'test_set'), ('train', 'validation'), ('trainset', 'holdout'), ('train2017', 'val2017'), ('Train Data', 'Hold-Out'),
    ('images-train', 'images-test'), ('cars_train', 'cars_test'), ('asl_alphabet_train', 'asl_alphabet_val'), ('train', 'eval')])
def test_every_usual_name_of_a_split(train, held, tmp_path):
    folders(tmp_path, [f'{train}/cat', f'{train}/dog'], 5)
    folders(tmp_path, [f'{held}/cat', f'{held}/dog'], 2)
    dls, text = loaders(tmp_path)
    assert sizes(dls) == (10, 4, ['cat', 'dog']) and text == ''
    assert all(held in f.parts for f, _ in dls.valid_ds.items)


def test_a_test_folder_beside_a_validation_folder_is_left_alone_aloud(tmp_path):
    folders(tmp_path, [f'{s}/{c}' for s in ('train', 'val', 'test') for c in ('cat', 'dog')])
    dls, text = loaders(tmp_path)
    assert sizes(dls) == (8, 8, ['cat', 'dog']) and "left out, neither learned from nor scored on: 'test'" in text
    assert not any('test' in f.relative_to(tmp_path).parts for f, _ in dls.valid_ds.items)
    dls, text = loaders(tmp_path, 'test')
    assert all('test' in f.relative_to(tmp_path).parts for f, _ in dls.valid_ds.items) and "'val'" in text


@pytest.mark.parametrize('names', [
    ['cat', 'dog', 'test/cat', 'test/dog'], ['train/cat', 'train/dog', 'fox'], ['train/cat', 'train/dog', 'test'], ['train', 'test'],
    ['train/cat', 'train/dog', 'val/cat', 'valid/cat'], ['train/cat', 'Train/dog', 'val/cat'], ['cat', 'dog', 'validation'],
    ['train/cat', 'train/dog', 'val/cat', 'Single_Prediction/cat']])
def test_half_a_split_is_refused(names, tmp_path):
    if len(os.listdir(folders(tmp_path, names))) < len({n.split('/')[0] for n in names}): pytest.skip('capitals are one here')
    with pytest.raises(ValueError, match='in several ways.*`valid`'): loaders(tmp_path)


@pytest.mark.parametrize('names', [['cat/train', 'cat/test', 'dog/train', 'dog/test'], ['images/train/cat', 'images/val/cat']])
def test_a_split_further_down_is_refused(names, tmp_path):
    with pytest.raises(ValueError, match='is split into'): loaders(folders(tmp_path, names))


def test_classes_that_sound_like_splits(tmp_path):
    dls, text = loaders(folders(tmp_path, ['train', 'train station', 'test tube', 'valley', 'data']))
    assert list(dls.vocab) == ['data', 'test tube', 'train', 'train station', 'valley'] and text == ''


# links

def test_links_are_followed(tmp_path):
    away, here = folders(tmp_path / 'away', ['cat', 'more']), folders(tmp_path / 'here', ['dog'])
    os.symlink(away / 'cat', here / 'cat')
    os.symlink(away / 'more', here / 'dog' / 'more')
    picture(tmp_path / 'one.png', 99)
    os.symlink(tmp_path / 'one.png', here / 'dog' / 'one.jpg')
    os.symlink(here, here / 'dog' / 'loop')
    dls, text = loaders(here)
    assert sizes(dls)[2] == ['cat', 'dog'] and len(used(dls)) == 4 + 4 + 4 + 1 and text == ''


def test_dead_links_are_named(tmp_path):
    here = folders(tmp_path, ['cat', 'dog'])
    os.symlink(tmp_path / 'gone', here / 'cat' / 'x.jpg')
    with pytest.raises(ValueError, match='x.jpg .a link that leads nowhere'): loaders(here)
    assert 'left out 1 of 9 images' in loaders(here, skip_bad=True)[1]
    os.symlink(tmp_path / 'gone', here / 'fox')
    with pytest.raises(FileNotFoundError, match='fox .a link that leads nowhere.. Mend or delete'): loaders(here, skip_bad=True)


def test_one_file_is_used_once(tmp_path):
    here = folders(tmp_path, ['cat', 'dog'])
    os.link(here / 'cat' / '0.jpg', here / 'cat' / 'again.jpg')
    dls, text = loaders(here)
    assert len(used(dls)) == 8 and 'left out 1 second names' in text
    os.symlink(here / 'cat' / '0.jpg', here / 'dog' / 'too.jpg')
    with pytest.raises(ValueError, match="one file in two classes"): loaders(here)


def test_a_file_on_both_sides_of_a_split_is_refused(tmp_path):
    folders(tmp_path, [f'{s}/{c}' for s in ('train', 'val') for c in ('cat', 'dog')])
    os.symlink(tmp_path / 'train/cat/0.jpg', tmp_path / 'val/cat/same.jpg')
    with pytest.raises(ValueError, match='learned from as well'): loaders(tmp_path)


# endings

def test_without_a_mime_table(tmp_path):
    "Training and predicting find the same files on a machine that knows no kinds of files."
    for i, end in enumerate(('.jpg', '.JPG', '.jpeg', '.JPEG', '.jfif', '.png', '.PNG', '.bmp', '.webp', '.tif', '.gif', '.ppm')):
        for c in ('cat', 'dog'): picture(tmp_path / c / f'{i}{end}', i, {'.webp': 'WEBP', '.gif': 'GIF'}.get(end, 'PNG'))
    code = '''
import mimetypes, sys, warnings
warnings.simplefilter('ignore')
mimetypes.knownfiles, mimetypes._types_map_default, mimetypes.types_map = [], {}, {}
mimetypes.init = lambda files=None: None
mimetypes._db = mimetypes.MimeTypes(); mimetypes._db.types_map = ({}, {}); mimetypes.inited = True
from fastai.data.transforms import image_extensions
from amf_nb.core import image_dls
from amf_nb.data.images import find_images
dls = image_dls(sys.argv[1], size=32, num_workers=0)
print(len(image_extensions), len(dls.train_ds) + len(dls.valid_ds), len(find_images(sys.argv[1])))'''
    run = subprocess.run([sys.executable, '-c', code, str(tmp_path)], capture_output=True, text=True)
    assert run.stdout.split()[-2:] == ['24', '24'], run.stdout + run.stderr
    assert int(run.stdout.split()[0]) < 5, 'the table was not empty'


def test_what_is_no_image_is_said(tmp_path):
    here = folders(tmp_path, ['cat', 'dog'])
    (here / 'cat' / 'notes.txt').write_text('x')
    (here / 'dog' / 'a.jpg_large').write_bytes(b'x')
    picture(here / 'loose.jpg')
    _, text = loaders(here)
    assert 'left out 2 files' in text and 'notes.txt' in text and 'a.jpg_large' in text and 'left out 1 images' in text
    (here / 'fox').mkdir()
    with pytest.raises(ValueError, match='fox holds no image, nothing'): loaders(here)
    (here / 'fox' / 'a.raw').touch()
    with pytest.raises(ValueError, match='fox holds no image, only a.raw'): loaders(here)


def test_what_systems_put_there_is_no_class(tmp_path):
    here = folders(tmp_path, ['cat', 'dog', '.ipynb_checkpoints', '__MACOSX', 'cat/@eaDir'])
    for f in (here / 'cat' / 'Thumbs.db', here / 'dog' / 'desktop.ini', here / 'dog' / '.DS_Store'): f.touch()
    dls, text = loaders(here)
    assert list(dls.vocab) == ['cat', 'dog'] and len(used(dls)) == 8 == len(find_images(here)) and text == ''


# tables

@pytest.fixture
def table(tmp_path):
    "A folder of ten pictures, and a function that writes a CSV of them from rows."
    for i in range(10): picture(tmp_path / f'{i}.jpg', i)
    rows = [(f'{i}.jpg', ('cat', 'dog')[i % 2]) for i in range(10)]

    def write(header, row=lambda i, f, l: f'{f},{l}', end='\n', coding='utf-8'):
        lines = [*([header] if header else []), *(row(i, f, l) for i, (f, l) in enumerate(rows))]
        (tmp_path / 'labels.csv').write_bytes((end.join(lines) + end).encode(coding))
        return tmp_path
    return write


def whole(dls):
    "Were all ten pictures used, each with its own label?"
    items = [*dls.train_ds.items, *dls.valid_ds.items]
    return sorted((f.stem, c) for f, c in items) == [(str(i), ('cat', 'dog')[i % 2]) for i in range(10)]


@pytest.mark.parametrize('header, row, kwargs', [
    ('file,label', lambda i, f, l: f'{f},{l}', {}),
    ('', lambda i, f, l: f'{f},{l}', {}),
    (',file,label', lambda i, f, l: f'{i},{f},{l}', {}),
    ('', lambda i, f, l: f'{i},{f},{l}', {}),
    ('"file","label"', lambda i, f, l: f'"{i+1}","{f}","{l}"', {}),
    ('label,file', lambda i, f, l: f'{l},{f}', {}),
    ('id,file,width,label', lambda i, f, l: f'7,{f},20,{l}', {}),
    ('a,b,c', lambda i, f, l: f'7,{l},{f}', dict(fn_col='c', label_col='b')),
    ('a,b,c', lambda i, f, l: f'7,{l},{f}', dict(fn_col=2, label_col=1)),
    ('file;label', lambda i, f, l: f'{f};{l}', {}),
    ('file\tlabel', lambda i, f, l: f'{f}\t{l}', {}),
    ('file,label,', lambda i, f, l: f'{f},{l},', {}),
    ('file,label', lambda i, f, l: f'{f},{l},,', {}),
    ('file,label', lambda i, f, l: f'\n{f} , {l} \n', {}),
    ('file,label', lambda i, f, l: f'"{f}", "{l}"', {}),
    ('file,label', lambda i, f, l: f'.\\{f},{l}', {}),
    ('\nfile,label', lambda i, f, l: f'./{f},{l}', {})])
@pytest.mark.parametrize('end', ['\n', '\r\n'])
def test_tables_of_every_kind(table, header, row, kwargs, end):
    dls, text = loaders(table(header, row, end), csv='labels.csv', **kwargs)
    assert whole(dls) and text == ''


@pytest.mark.parametrize('coding', ['utf-8', 'utf-8-sig', 'utf-16', 'cp1252'])
def test_encodings(table, coding):
    dls, text = loaders(table('file,läbel', lambda i, f, l: f'{f},{l} é', coding=coding), csv='labels.csv')
    assert list(dls.vocab) == ['cat é', 'dog é'] and ('Western European' in text) == (coding == 'cp1252')


@pytest.mark.parametrize('yes, no', [('1.0', '0.0'), ('1', '0'), ('True', 'False'), ('yes', 'no'), ('valid', 'train'), ('TEST', 'Training')])
@pytest.mark.parametrize('name, kwargs', [('is_valid', {}), ('held', dict(valid='held')), ('split', dict(valid=2))])
def test_a_column_that_marks(table, yes, no, name, kwargs):
    path = table(f'file,label,{name}', lambda i, f, l: f'{f},{l},{yes if i > 6 else no}')
    dls, text = loaders(path, csv='labels.csv', **kwargs)
    assert sorted(f.stem for f, _ in dls.valid_ds.items) == ['7', '8', '9'] and whole(dls) and text == ''


def test_three_parts_in_a_column(table):
    path = table('file,split,label', lambda i, f, l: f'{f},{("train", "val", "test")[max(0, i - 7)]},{l}')
    dls, text = loaders(path, csv='labels.csv')
    assert [f.stem for f, _ in dls.valid_ds.items] == ['8'] and len(dls.train_ds) == 8 and 'left out 1 images that the CSV marks as test' in text


def test_where_a_table_lies(table, tmp_path, monkeypatch):
    path = table('file,label')
    work = tmp_path / 'work'
    work.mkdir()
    monkeypatch.chdir(work)
    assert whole(loaders(path, csv='labels.csv')[0])
    (path / 'labels.csv').rename(work / 'mine.csv')
    assert whole(loaders(path, csv='mine.csv')[0]) and whole(loaders(path, csv=work / 'mine.csv')[0])
    (path / 'mine.csv').write_text('file,label\n')
    with pytest.raises(ValueError, match='in `path` and in the present directory'): loaders(path, csv='mine.csv')


@pytest.mark.parametrize('data, error, match', [
    (b'', ValueError, 'is empty'), (b'\n\n', ValueError, 'is empty'), (b',,\n', ValueError, 'is empty'),
    (b'PK\3\4' + bytes(99), ValueError, 'save the table as CSV'), (b'\xd0\xcf\x11\xe0' + bytes(99), ValueError, 'save the table as CSV'),
    (b'file,label\n', FileNotFoundError, 'no column of the CSV names image files'),
    (b'file\n0.jpg\n', ValueError, 'one column'),
    (b'file,label\n0.jpg,cat\n\n\n1.jpg,\n', ValueError, 'no label on 1 lines of the CSV: 5'),
    (b'file,label\n\n0.jpg,cat\n77.jpg,dog\n', FileNotFoundError, '77.jpg.* on 1 lines of the CSV: 4'),
    (b'77.jpg,cat\n0.jpg,dog\n', FileNotFoundError, '77.jpg.* on 1 lines of the CSV: 1'),
    (b'file,label\n0.jpg,cat\n0.jpg,dog\n', ValueError, 'more than once on 2 lines of the CSV: 2, 3'),
    (b'file,label\n0.jpg,cat\n1.jpg,dog, big\n', ValueError, 'more values than the 2 .* on 1 lines of the CSV: 3'),
    (b'file,label\n0.jpg,"cat\n1.jpg,dog\n', ValueError, 'line 2 of the CSV'),
    (b'file,label\n0.jpg,"cat\n1.jpg,dog"\n', ValueError, 'line break')])
def test_tables_that_are_refused(table, data, error, match):
    path = table('')
    (path / 'labels.csv').write_bytes(data)
    with pytest.raises(error, match=match): loaders(path, csv='labels.csv')


def test_several_labels_with_the_separator_of_the_table(table):
    path = table('file,label', lambda i, f, l: f'{f},"{l},{"big" if i % 3 else "old"}"')
    dls, _ = loaders(path, csv='labels.csv', label_delim=',')
    assert list(dls.vocab) == ['big', 'cat', 'dog', 'old']


def numbered(root, n=10, ending='.jpg', where='train'):
    "Pictures `train/ID.jpg` and a table of their ids and labels, as competitions give them."
    for i in range(n): picture(root / where / f'{i}{ending}', i)
    rows = [f'{i},{("cat", "dog")[i % 2]}' for i in range(n)]
    (root / 'train.csv').write_text('\n'.join(['id,label', *rows]))
    return root


@pytest.mark.parametrize('ending', ['.jpg', '.JPEG', '.png'])
@pytest.mark.parametrize('where', ['train', '', 'train/images'])
@pytest.mark.parametrize('kwargs', [{}, dict(fn_col='id'), dict(fn_col=0, label_col=1)])
def test_names_without_endings(ending, where, kwargs, tmp_path):
    dls, text = loaders(numbered(tmp_path, ending=ending, where=where), csv='train.csv', **kwargs)
    assert whole(dls)
    first = '/'.join([*where.split('/'), f'0{ending}']).lstrip('/')
    assert text == (f"file names in the CSV have no endings: '0' is read as {first}, "
                    "and the others likewise")


def test_names_without_endings_that_fit_two_files(tmp_path):
    numbered(tmp_path)
    picture(tmp_path / 'train/3.png', 3)
    with pytest.raises(ValueError, match="'3' in the CSV has no ending and can be train/3.jpg, train/3.png"):
        loaders(tmp_path, csv='train.csv')
    (tmp_path / 'train/3.png').unlink()
    picture(tmp_path / 'test/5.jpg', 3)
    with pytest.raises(ValueError, match="'5' .* can be test/5.jpg, train/5.jpg"):
        loaders(tmp_path, csv='train.csv')
    assert whole(loaders(tmp_path / 'train', csv=tmp_path / 'train.csv')[0])


def test_names_without_endings_that_fit_none_or_in_two_columns(tmp_path):
    numbered(tmp_path)
    (tmp_path / 'train/4.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'\(4\), on 1 lines of the CSV: 6'): loaders(tmp_path, csv='train.csv')
    twice = [f'{i},{9 - i},cat' for i in range(10) if i not in (4, 5)]
    (tmp_path / 'train.csv').write_text('\n'.join(['a,b,label', *twice]))
    with pytest.raises(ValueError, match="several columns .*: 'a', 'b'. `fn_col` says which"):
        loaders(tmp_path, csv='train.csv')


def test_names_whose_folder_was_left_out(tmp_path):
    numbered(tmp_path)
    text = (tmp_path / 'train.csv').read_text()
    (tmp_path / 'train.csv').write_text(text.replace(',cat', '.jpg,cat').replace(',dog', '.jpg,dog'))
    with pytest.raises(FileNotFoundError, match=r'There is .*train.0\.jpg: give the folder that the names start from'):
        loaders(tmp_path, csv='train.csv')


LABELS = {'two': ['cat dog', 'dog bird', 'cat bird'], 'three': ['a b c', 'b c', 'c a', 'a b'],
          'mostly': ['cat{}dog', 'dog{}cat', 'bird{}cat', 'dog{}bird', 'bird{}dog'] * 3 + ['cat']}


def labelled(table, labels, n):
    "`n` pictures, and a table that gives them `labels` in turn."
    path = table('')
    for i in range(n): picture(path / f'{i}.jpg', i)
    rows = [f'{i}.jpg,"{labels[i % len(labels)]}"' for i in range(n)]
    (path / 'labels.csv').write_text('\n'.join(['file,label', *rows]))
    return path


@pytest.mark.parametrize('mark', [' ', ';', '; ', '|', '/', '+'])
@pytest.mark.parametrize('labels', LABELS)
def test_several_labels_without_label_delim_are_told(table, mark, labels):
    given = [v.replace(' ', mark).replace('{}', mark) for v in LABELS[labels]]
    path = labelled(table, given, 40)
    _, text = loaders(path, csv='labels.csv')
    assert f'give `label_delim`={(mark.strip() or mark)!r}' in text and repr(given[0]) in text
    assert loaders(path, csv='labels.csv', label_delim=mark.strip() or mark)[1] == ''


@pytest.mark.parametrize('names', [
    ['ice cream', 'hot dog'], ['A-1', 'A-2', 'B-1', 'B-2'], ['red apple', 'green apple', 'red pear', 'green pear'],
    ['golden retriever', 'labrador retriever', 'irish setter'], ['cat', 'dog', 'cat dog'], ['1', '2'],
    ['a photo of a cat', 'a photo of a dog'], ['New York', 'York', 'New Delhi'], ['T-shirt/top', 'Sandal/boot']])
def test_names_of_classes_are_no_lists_of_labels(table, names):
    path = labelled(table, names, 20)
    assert loaders(path, csv='labels.csv')[1] == ''


# names

def test_names_of_every_spelling_train(tmp_path):
    names = ['$5 bill', '  spaced  ', 'two\nlines', '100%', "it's", 'a,b;c', 'x' * 200, 'ünïcode', '日本', '🐈', '-rf', '{brace}', 'a_b^c\\d']
    here = folders(tmp_path, names, 3)
    for name in names: picture(here / name / (name[:100] + '.jpg'), 5)
    dls, text = loaders(here)
    assert sorted(dls.vocab) == sorted(' '.join(n.split()) for n in names) and text == ''
    learn = toy_learner(dls=dls)
    learn.fine_tune(1)
    assert learn.predict(here / '$5 bill' / '$5 bill.jpg')[0] in dls.vocab


def test_two_forms_of_unicode_are_one_class(tmp_path):
    forms = [unicodedata.normalize(f, 'café') for f in ('NFC', 'NFD')]
    folders(tmp_path, [f'train/{forms[0]}', 'train/tea', f'val/{forms[1]}', 'val/tea'])
    dls, _ = loaders(tmp_path)
    assert sizes(dls) == (8, 8, [forms[0], 'tea'])
    (tmp_path / 'labels.csv').write_text('\n'.join(f'train/{forms[1]}/{i}.jpg,a' for i in range(4)) + '\nval/tea/0.jpg,b\nval/tea/1.jpg,b\n')
    assert len(used(loaders(tmp_path, csv='labels.csv')[0])) == 6


def test_classes_that_differ_in_capitals_are_told(tmp_path):
    here = folders(tmp_path, ['Cat', 'cat', 'dog'])
    if len(os.listdir(here)) < 3: pytest.skip('capitals are one here')
    assert loaders(here)[1].count("'Cat' and 'cat'") == 1


@pytest.mark.parametrize('name, match', [(b'caf\xe9/0.jpg', 'class names that are not UTF-8'), (b'cat/caf\xe9.jpg', '1 file names that are not UTF-8')])
def test_names_that_are_not_utf8_are_refused(name, match, tmp_path):
    here = folders(tmp_path, ['cat', 'dog'])
    try: picture(here / os.fsdecode(name))
    except OSError: pytest.skip('this file system takes UTF-8 only')
    with pytest.raises(ValueError, match=match) as e: loaders(here)
    str(e.value).encode()                                        # and the message itself can be printed


def test_a_label_that_is_a_novel_is_refused(table):
    path = table('file,label', lambda i, f, l: f'{f},{l * 400}')
    with pytest.raises(ValueError, match='more than 1000 characters'): loaders(path, csv='labels.csv')


# pictures

def jpeg(*args, **kwargs):
    file = io.BytesIO()
    Image.fromarray(np.arange(48 * 64, dtype=np.uint32).reshape(48, 64).astype(np.uint8)).save(file, 'JPEG', *args, **kwargs)
    return file.getvalue()


@pytest.mark.parametrize('progressive', [False, True])
def test_a_video_behind_a_photograph(progressive, tmp_path):
    rng = np.random.default_rng(0)
    video = b'\0\0\0\x18ftypmp42' + rng.integers(0, 256, 2_000_000).astype(np.uint8).tobytes() + b'\xff\xda' * 200
    plain = jpeg(progressive=progressive)
    assert np.array_equal(load_image(plain + video), load_image(plain))
    (tmp_path / 'motion.jpg').write_bytes(plain + video)
    assert check_images([tmp_path / 'motion.jpg'])[1] == []


def test_a_file_of_many_pictures(tmp_path):
    frames = [Image.new('RGB', (16, 16), (3 * i, 9, 9)) for i in range(80)]
    frames[0].save(tmp_path / 'burst.jpg', 'MPO', save_all=True, append_images=frames[1:])
    assert np.asarray(load_image(tmp_path / 'burst.jpg'))[0, 0, 0] < 10


def test_too_many_scans_are_still_refused():
    data = jpeg(progressive=True)
    scan = data[data.rindex(b'\xff\xda'):-2]
    for many in (data[:-2] + scan * 100 + data[-2:], data[:-2] + (b'\xff' * 9 + scan) * 100):
        with pytest.raises(ValueError, match='more than 64 scans'): load_image(many)
    with pytest.raises(ValueError, match='more than 20000 segments'): load_image(data[:2] + b'\xff\xe1\0\2' * 10**6 + data[2:])


def test_grey_pictures(tmp_path):
    here = folders(tmp_path, ['cat', 'dog'])
    dls, _ = loaders(here, n_in=1)
    xb, _ = dls.one_batch()
    assert xb.shape[1:] == (1, 32, 32)
    dls.show_batch(show=False)
    file = here / 'cat' / '0.jpg'
    grey = np.asarray(Image.open(file).convert('L'))
    for o in (file, str(file), file.read_bytes(), Image.open(file), np.asarray(Image.open(file)), (file, 'cat')):
        assert np.array_equal(np.asarray(OpenImage(1)(o)), grey)
    x = np.random.default_rng(0).integers(0, 256, (8, 32, 32)).astype(np.uint8)
    dls = array_dls(x, np.arange(8) % 2, x, np.arange(8) % 2, ['a', 'b'], size=32, bs=4, augs=[], n_in=1)
    assert np.array_equal((next(iter(dls.valid))[0] * 255).round().numpy().astype(np.uint8)[:, 0], x[:4])
    assert {label_of(o) for o in dls.train_ds.items} == {'a', 'b'}
    for n in (0, 2, 4):
        with pytest.raises(ValueError, match=f'`n_in`={n}'): load_image(file, n_in=n)


# a second stranger

def test_a_hidden_class_folder_is_told(tmp_path):
    assert '.hid' in loaders(folders(tmp_path, ['cat', 'dog', '.hid']))[1]


@pytest.mark.parametrize('args, error, match', [
    (dict(path=None), TypeError, '`path`=None'), (dict(csv=object()), TypeError, '`csv` is a object'),
    (dict(valid=['a']), TypeError, r"`valid`=\['a'\]"), (dict(size='224'), TypeError, "`size`='224'"), (dict(size=0), ValueError, '`size`=0'),
    (dict(bs='8'), TypeError, "`bs`='8'"), (dict(batchsize=3), TypeError, '`batchsize`=3 .*`batch_size`'),
    (dict(valid_pc=.3), TypeError, '`valid_pct`'), (dict(augs=[], batch_tfms=[]), ValueError, 'both given')])
def test_arguments_that_are_refused(tmp_path, args, error, match):
    with pytest.raises(error, match=match): image_dls(**{'path': folders(tmp_path, ['cat', 'dog']), 'num_workers': 0, **args})


def test_transforms_of_fastai(tmp_path):
    from fastai.vision.augment import Resize, aug_transforms
    dls = image_dls(folders(tmp_path, ['cat', 'dog']), item_tfms=Resize(48), batch_tfms=aug_transforms(), num_workers=0)
    assert [next(iter(dl))[0].shape[-2:] for dl in dls] == [(48, 48)] * 2


# copies

def test_copies_are_told(tmp_path):
    "The same bytes under two labels, and on both sides of a split; nothing is left out."
    split = folders(tmp_path / 'split', ['train/cat', 'train/dog', 'valid/cat', 'valid/dog'])
    _, said = loaders(split)
    assert said == ''
    (split / 'valid/cat/new.jpg').write_bytes((split / 'train/cat/0.jpg').read_bytes())
    dls, said = loaders(split)
    assert sizes(dls) == (8, 9, ['cat', 'dog'])
    assert 'equal pictures to learn from and to score on (1)' in said and 'labels' not in said
    own = folders(tmp_path / 'own', ['cat', 'dog'])
    (own / 'dog/new.jpg').write_bytes((own / 'cat/0.jpg').read_bytes())
    dls, said = loaders(own)
    assert len(used(dls)) == 9 and f"{own}/cat/0.jpg and {own}/dog/new.jpg" in said
    assert 'equal pictures with different labels (1)' in said


def test_a_file_is_decoded_once_from_the_check_to_the_panel(tmp_path, monkeypatch):
    from amf_nb.core import amf_learner
    from amf_nb.data import images
    for i, (image, number) in enumerate(zip(*toy_images(60))):
        file = tmp_path / 'abc'[number] / f'{i}.jpg'
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(image).resize((300, 200)).save(file)
    decoded, decode = [], images._decode
    monkeypatch.setattr(images, '_decode', lambda src, *args: decoded.append(src) or decode(src, *args))
    learn = amf_learner(image_dls(tmp_path, size=64, bs=8, num_workers=0), 'test_efficientnet', pretrained=False, seed=0)
    with learn.no_bar(), learn.no_logging():
        learn.fine_tune(0)
        learn.fine_tune(1)
        learn.control_panel()
    assert {str(src) for src in decoded} == {str(file) for file in tmp_path.rglob('*.jpg')}
    assert len(decoded) <= 60 + 2 # fastai opens one or two to see what a batch is


@pytest.mark.parametrize('workers', [0, 2])
def test_a_picture_that_is_written_anew_is_read_anew(tmp_path, workers):
    for i in range(12):
        file = tmp_path / 'ab'[i % 2] / f'{i}.png'
        file.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((96, 96, 3), 180 * (i % 2) + 5 * i, np.uint8)).save(file)
    dl = image_dls(tmp_path, size=32, bs=4, num_workers=workers).valid
    mean = lambda: torch.cat([x for x, _ in dl]).mean((1, 2, 3))
    before = mean()
    for path, _ in dl.items: Image.fromarray(255 - np.asarray(Image.open(path))).save(path)
    assert torch.allclose(mean(), 1 - before, atol=1e-3)


@pytest.mark.parametrize('cache', [False, 1, 'no'])
def test_what_is_no_cache_is_told_before_a_picture_is_opened(tmp_path, cache):
    with pytest.raises(TypeError, match='`cache`=.*`mb=0`'): image_dls(tmp_path, cache=cache, csv=None)
