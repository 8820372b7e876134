"A stranger's first hour with the commands: any name, any spelling, no foreign word, no work lost."
import contextlib
import json
import os
import shutil
import subprocess
import sys
import threading
from unittest.mock import patch

import pandas as pd
import pytest
from PIL import Image

from amf_nb.cli import TerminalProgress, amf_bench, amf_predict, amf_train, train_run
from amf_nb.use.interpret import AMFInterpretation
from amf_nb.use.report import report_notebook
from amf_nb.test_utils import toy_images, toy_learner
from ready import ready

CLASSES = ['$5 to $10', '_other^2 `|` <b>', '中文 🧦 עברית']
SMALL = '--arch test_resnet --strategies standard,head_only --scratch --size 32 --bs 8 --lr 1e-2'.split()
LITTLE = dict(arch='test_resnet', strategies='head_only', scratch=True, size=32, bs=8, epochs=2,
              no_report=True)


def pictures(folder, classes=CLASSES, n=36):
    "A folder of images for every class, which differ by colour."
    x, y = toy_images(n, size=40, n_classes=len(classes))
    for i, (img, c) in enumerate(zip(x, y)):
        file = folder / classes[c] / f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(img).save(file)
    return folder


def code_of(name): return f'from amf_nb.cli import {name}; {name}()'


def command_anew(name, *args, **env):
    "The command `name` as a user starts it, with the environment `env` besides this one."
    words = [sys.executable, '-c', code_of(name), *map(str, args)]
    return subprocess.run(words, capture_output=True, text=True, env={**os.environ, **env})


def command(name, *args, **kwargs):
    "The command `name` in a process of its own, which has imported the library."
    return ready(code_of(name), *args, **kwargs)


def refused(capsys, f, *args):
    "The one line with which the command `f` refuses `args`."
    capsys.readouterr()
    with pytest.raises(SystemExit) as e: f([*map(str, args)])
    said = capsys.readouterr().err.splitlines()
    assert e.value.code == 2 and len(said) == 1, said
    return said[0]


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    "(folder of pictures, the process that trained on them, the run)"
    tmp = tmp_path_factory.mktemp('first')
    foreign = tmp / 'jupyter/kernels/python3'  # another environment under the usual name
    foreign.mkdir(parents=True)
    spec = dict(argv=['/no/such/python'], display_name='Python 3', language='python')
    (foreign / 'kernel.json').write_text(json.dumps(spec))
    folder, run = pictures(tmp / 'pictures'), tmp / 'a $run$ of <b>'
    given = [folder, *SMALL, '--epochs', '2', '--out', run]
    return folder, command_anew('amf_train', *given, JUPYTER_PATH=str(tmp / 'jupyter')), run


def test_a_run_says_nothing_that_is_not_ours(made):
    _, done, run = made
    assert done.returncode == 0 and done.stderr == ''
    lines = done.stdout.splitlines()
    sizes = '30 training and 6 validation images, 3 classes'
    assert lines[0] == f'{sizes}; branches: standard, head_only'
    assert [l.split()[0] for l in lines[1:4]] == ['epoch', '0', '1']
    assert '\r' not in done.stdout and '\N{FULL BLOCK}' not in done.stdout


def test_a_run_is_whole_whatever_the_classes_are_called(made):
    _, _, run = made
    names = {p.name for p in run.iterdir()}
    assert names == {'config.json', 'control_panel.csv', 'leaning.png', 'learning_curves.png',
                     'metrics.json', 'model', 'parts.json', 'parts.safetensors', 'report.html',
                     'report.ipynb', 'weights_by_class.png'}
    interp = AMFInterpretation.from_run(run)
    assert sorted(interp.vocab) == sorted(CLASSES)
    ticks = [t.get_text() for t in interp.plot_class_weights().get_yticklabels()]
    assert ' _other^2 `|` <b>' in ticks and r'\$5 to \$10' in ticks


def test_the_report_shows_names_as_they_are(made):
    _, _, run = made
    html = (run / 'report.html').read_text(encoding='utf-8')
    assert 'Report on a $run$ of &lt;b&gt;</h1>' in html.replace('&#36;', '$')
    assert 'Traceback' not in html
    assert html.count('<img') > 8
    assert 'held out to the end' in report_notebook(run).cells[0].source  # what the weights were fitted on


def test_predicting_prints_and_writes_every_name(made, tmp_path):
    folder, _, run = made
    odd = tmp_path / os.fsdecode(b'no utf-8 \xff.png')
    source = next((folder / CLASSES[2]).glob('*.png'))
    odd.write_bytes(source.read_bytes())
    (tmp_path / 'photo[1].png').write_bytes(source.read_bytes())
    twice = [tmp_path / 'photo[1].png'] * 2
    files = [folder / CLASSES[2], odd, *twice, tmp_path / 'missing.png']
    given = [run, *files, '--csv', tmp_path / 'p.csv']
    done = command_anew('amf_predict', *given, PYTHONIOENCODING='ascii')
    assert done.returncode == 0, done.stderr
    again, missing = done.stderr.splitlines()
    assert 'files named again, each answered once: 1' in again and 'missing.png' in missing
    table = pd.read_csv(tmp_path / 'p.csv', encoding='utf-8')
    assert len(table) == 14 and set(table.label) <= set(CLASSES)
    assert len(done.stdout.splitlines()) == 15 and r'no utf-8 \udcff.png' in done.stdout


def test_nothing_that_was_computed_is_lost(made, tmp_path, capsys):
    folder, _, run = made
    picture = next(folder.rglob('*.png'))
    for csv in (tmp_path / 'no folder/p.csv', tmp_path):
        with patch('amf_nb.cli.load_amf', side_effect=AssertionError('work was done')):
            assert '--csv ' in refused(capsys, amf_predict, run, picture, '--csv', csv)

    def full(*args): raise OSError(28, 'No space left on device')
    with patch('amf_nb.cli.write_aside', full), pytest.raises(SystemExit) as e:
        amf_predict([str(run), str(picture), '--csv', str(tmp_path / 'p.csv')])
    said = capsys.readouterr()
    assert e.value.code == 2 and picture.name in said.out
    assert len(said.err.splitlines()) == 1


@pytest.mark.parametrize('option, value', [
    ('epochs', 0), ('bs', 0), ('size', 6), ('lr', 0), ('lr', 'nan'), ('valid_pct', 0), ('valid-pct', 1),
    ('seed', -1), ('seed', 2**40), ('views', -1), ('policy', 'trunck'), ('fusion', 'mean'),
    ('on-fault', 'ignore'), ('strategies', 'standart'), ('arch', 'test_resnett'),
    ('weights', 'nowhere.pth')])
def test_an_option_that_cannot_be_is_refused_before_an_image_is_read(made, tmp_path, capsys, option, value):
    given = [made[0], *SMALL, '--out', tmp_path / 'run', f'--{option}', value]
    with patch('amf_nb.cli.image_dls', side_effect=AssertionError('images were read')):
        said = refused(capsys, amf_train, *given)
    assert str(value) in said
    assert not list(tmp_path.iterdir())


def test_folders_that_are_none(made, tmp_path, capsys):
    (tmp_path / 'file').touch()
    (tmp_path / 'empty').mkdir()
    assert 'is not a folder' in refused(capsys, amf_train, tmp_path / 'file', '--scratch', *SMALL)
    assert 'is not a folder' in refused(capsys, amf_train, '', *SMALL)
    assert 'empty' in refused(capsys, amf_train, tmp_path / 'empty', *SMALL, '--out', tmp_path / 'run')
    assert '--out ' in refused(capsys, amf_train, made[0], *SMALL, '--out', tmp_path / 'file/run')
    assert sorted(p.name for p in tmp_path.iterdir()) == ['empty', 'file']


def test_what_cannot_be_saved_is_refused_before_training(tmp_path, capsys):
    pictures(tmp_path / 'pictures', ['red', 'green', os.fsdecode(b'bl\xff')])
    with patch('amf_nb.train.learner.AMFLearner.fine_tune', side_effect=AssertionError('it trains')):
        said = refused(capsys, amf_train, tmp_path / 'pictures', *SMALL, '--out', tmp_path / 'run')
    assert 'UTF-8' in said or 'save' in said
    assert not list(tmp_path.glob('run*'))


def interrupted_run(**kwargs):
    "A run that is interrupted in its second epoch."
    def killed(self):
        if self.epoch == 1: raise KeyboardInterrupt
    stop = patch('amf_nb.train.side_by_side.BranchLoss.before_validate', killed, create=True)
    with stop, contextlib.suppress(KeyboardInterrupt):
        train_run(**LITTLE, **kwargs)


@pytest.fixture(scope='module')
def begun(tmp_path_factory):
    "A folder with `run.unfinished`, begun from another folder under names that only hold there."
    tmp = tmp_path_factory.mktemp('begun')
    here, there = tmp / 'here', tmp / 'there'
    pictures(here / 'pictures', ['red', 'green', 'blue'], 24)
    names = [f.relative_to(here / 'pictures') for f in sorted((here / 'pictures').rglob('*.png'))]
    labels = pd.DataFrame(dict(name=names, label=[n.parent.name for n in names]))
    labels.to_csv(here / 'labels.csv', index=False)
    with contextlib.chdir(here): interrupted_run(folder='pictures', csv='labels.csv', out='../there/run')
    return there


@pytest.mark.parametrize('spelling', ['run', 'run/', './run', 'run.unfinished', 'run.unfinished/',
                                      '../there/run', 'link', 'linked/run'])
def test_a_run_goes_on_from_anywhere_however_it_is_written(begun, tmp_path, spelling):
    there = tmp_path / 'there'
    shutil.copytree(begun, there)
    assert (there / 'run.unfinished').is_dir()
    (there / 'link').symlink_to(there / 'run.unfinished')
    (there / 'linked').symlink_to(there)
    with contextlib.chdir(there): done = train_run(resume=spelling)
    assert (done / 'metrics.json').is_file() and done.resolve() == (there / 'run').resolve()
    assert not (there / 'run.unfinished').exists()


def test_an_unfinished_run_says_how_to_finish_it(made, tmp_path, capsys):
    interrupted_run(folder=str(made[0]), out=str(tmp_path / 'run'))
    picture = next(made[0].rglob('*.png'))
    for run in ('run', 'run/', 'run.unfinished'):
        said = refused(capsys, amf_predict, f'{tmp_path}/{run}', picture)
        assert said.endswith(f'`amf_train --resume {tmp_path / "run"}` finishes it')
    said = refused(capsys, amf_train, made[0], *SMALL, '--out', tmp_path / 'run')
    assert 'amf_train --resume' in said


def test_a_failure_on_resuming_deletes_nothing(made, tmp_path):
    interrupted_run(folder=str(made[0]), out=str(tmp_path / 'run'))
    for f in (tmp_path / 'run.unfinished/checkpoints').glob('epoch-*'): f.unlink()
    gone = patch('amf_nb.cli.image_dls', side_effect=OSError('the disk with the images is not there'))
    with gone, pytest.raises(OSError):
        train_run(resume=tmp_path / 'run')
    assert (tmp_path / 'run.unfinished/config.json').is_file()


@pytest.mark.skipif(sys.platform == 'win32', reason='there is no limit of the size of files to set')
def test_a_disk_that_is_full_is_a_line_and_no_trace(made, tmp_path):
    given = [made[0], *SMALL, '--epochs', '1', '--out', tmp_path / 'run']
    done = command('amf_train', *given, file_size=100_000)  # less than the weights
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert len([l for l in done.stderr.splitlines() if l.startswith('amf_train: ')]) == 1


def test_a_bench_writes_where_it_can(tmp_path, capsys):
    (tmp_path / 'file').touch()
    assert '--out ' in refused(capsys, amf_bench, 'run', 'quick', '--out', tmp_path / 'file')
    assert '--out ' in refused(capsys, amf_bench, 'speed', '--quick', '--out', tmp_path / 'file/speed')
    for figure in (tmp_path / 'no folder/a.png', tmp_path / 'a.txt', tmp_path):
        assert '--figure ' in refused(capsys, amf_bench, 'table', tmp_path, '--figure', figure)
        speed = ['speed', '--quick', '--out', tmp_path / 'speed']
        assert '--figure ' in refused(capsys, amf_bench, *speed, '--figure', figure)
    (tmp_path / 'cells.json').write_text('[{}]')
    assert 'is no list of cells' in refused(capsys, amf_bench, 'run', tmp_path / 'cells.json')


def test_the_bar_leaves_nothing_behind_in_a_narrow_terminal():
    pty = pytest.importorskip('pty')
    import fcntl
    import struct
    import termios
    main, other = pty.openpty()
    fcntl.ioctl(other, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 40, 0, 0))
    learn, said = toy_learner(1), []
    learn.logger = lambda *row: print(*row)  # on whatever is the output by then
    def read():
        with contextlib.suppress(OSError):
            while got := os.read(main, 65536): said.append(got)
    reader = threading.Thread(target=read)
    reader.start()
    with open(other, 'w') as tty, contextlib.redirect_stdout(tty), contextlib.redirect_stderr(tty):
        learn.fit(2, 1e-2, cbs=TerminalProgress())
    reader.join()
    said = b''.join(said)
    lines = [on_screen(l) for l in said.decode().replace('\r\n', '\n').split('\n')]
    assert [l.split()[0] for l in lines if l] == ['epoch', '0', '1'], lines
    bars = [part for part in said.decode().split('\r') if '%' in part]
    assert bars and all(len(part) <= 40 for part in bars)  # a longer one would wrap, and stay


def on_screen(line):
    "What a terminal shows of `line` when it has obeyed the carriage returns."
    shown = []
    for part in line.replace('\x1b[A', '').split('\r'): shown[:len(part)] = part
    return ''.join(shown).rstrip()


# messages in the words of the one who typed

@pytest.mark.parametrize('options, said', [
    ('--bs 0', '--bs 0: give at least 1'), ('--valid-pct 2', '--valid-pct 2.0: give a share'),
    ('--csv none.csv', "--csv 'none.csv' is no file, neither in folder "),
    ('--csv l.csv --label-col kind', "--label-col 'kind' is no column"),
    ('--csv l.csv --fn_col kind', "--fn-col 'kind' is no column"),
    ('--csv l.csv', 'repair'), ('--strategies standard --epochs 0', '--epochs 0 solves probes'),
    ('--views 1', '--views 1, but training pictures change'), ('--size 9 --arch test_vit', '--size 160'),
    ('--resume nowhere --bs 3', '--resume takes everything else from the run itself: leave out --bs')])
def test_messages_name_options_as_they_are_typed(made, tmp_path, capsys, options, said):
    folder = pictures(tmp_path / 'a b', ['red', 'green', 'blue'], 24)
    names = [f.relative_to(folder) for f in sorted(folder.rglob('*.png'))]
    if said == 'repair': (folder / names[3]).write_bytes(b'no image')
    pd.DataFrame(dict(name=names, label=[n.parent.name for n in names])).to_csv(folder / 'l.csv', index=False)
    given = [] if '--resume' in options else [folder, *SMALL, '--out', tmp_path / 'run']
    line = refused(capsys, amf_train, *given, *options.split())
    assert line.startswith('amf_train: ') and '`' not in line
    assert said in line or said == 'repair' and line.endswith('leave them out with --skip-bad')


def test_warnings_are_lines_in_the_same_words(tmp_path):
    folder = pictures(tmp_path / 'all', ['x'], 30)
    names = [f.relative_to(folder) for f in sorted(folder.rglob('*.png'))]
    labels = [('cat dog', 'dog bird', 'cat bird')[i % 3] for i in range(30)]
    pd.DataFrame(dict(name=names, label=labels)).to_csv(folder / 'l.csv', index=False)
    small = '--arch test_resnet --strategies probe --scratch --size 32 --bs 8 --no-report --epochs 0'
    done = command('amf_train', folder, *small.split(), '--csv', 'l.csv', '--out', tmp_path / 'run')
    assert done.returncode == 0
    assert done.stderr == ("amf_train: labels such as 'cat dog' are read as one class each: if they are several "
                           "labels of one image, give --label-delim ' '\n")


# without an epoch

@pytest.mark.parametrize('strategies', ['probe', 'standard,probe', 'head_only,probe,last_half'])
def test_a_run_without_an_epoch_is_a_whole_run(made, tmp_path, capsys, strategies):
    given = [made[0], *SMALL, '--strategies', strategies, '--epochs', 0, '--out', tmp_path / 'run']
    capsys.readouterr()
    amf_train([*map(str, given)])
    said = capsys.readouterr()
    assert said.err == '' and 'Nothing was trained; probe solved in ' in said.out
    assert not {'standard', 'head_only'} & {l.split()[0] for l in said.out.splitlines()[2:] if l}
    assert {'model', 'metrics.json', 'control_panel.csv', 'report.html'} <= {p.name for p in (tmp_path / 'run').iterdir()}
    html = (tmp_path / 'run/report.html').read_text(encoding='utf-8')
    assert 'Traceback' not in html
    amf_predict([str(tmp_path / 'run'), str(made[0] / CLASSES[0])])
    table = capsys.readouterr().out.splitlines()
    assert len(table) == 13
    with pytest.raises(SystemExit): amf_train(['--resume', str(tmp_path / 'run')])
    assert 'is finished' in capsys.readouterr().err


# what is left out, and what has changed

def test_files_that_are_no_images_are_counted(made, tmp_path, capsys):
    folder = tmp_path / 'mixed'
    shutil.copytree(made[0], folder)
    for name in ('a.txt', 'b.TXT', 'c.pdf', 'README', '.hidden'): (folder / name).touch()
    amf_predict([str(made[2]), str(folder)])
    said = capsys.readouterr()
    assert len(said.out.splitlines()) == 37
    line, = said.err.splitlines()
    assert line.startswith(f'left out 4 files in {folder} without the ending of an image: 2 .txt, ')
    assert '1 .pdf' in line and '1 without an ending' in line and f'"{folder}/*"' in line
    (tmp_path / 'none').mkdir()
    (tmp_path / 'none/a.txt').touch()
    with pytest.raises(SystemExit): amf_predict([str(made[2]), str(tmp_path / 'none')])
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith('left out 1 files in ') and said[1].startswith('amf_predict: images names no image file')


@pytest.mark.parametrize('change', ['renamed', 'other', 'moved', 'gone'])
def test_a_run_with_other_pictures_is_refused_before_a_word_is_said(tmp_path, capsys, change):
    folder = pictures(tmp_path / 'pictures', ['red', 'green', 'blue'], 36)
    interrupted_run(folder=str(folder), out=str(tmp_path / 'run'))
    picture = sorted((folder / 'red').glob('*.png'))[0]
    whole = picture.read_bytes()
    if change == 'renamed': picture.rename(picture.with_name('z.png'))
    if change == 'other': Image.new('RGB', (40, 40), 'black').save(picture)
    if change == 'moved': picture.rename(folder / 'green/z.png')
    if change == 'gone': picture.unlink()
    capsys.readouterr()
    with pytest.raises(SystemExit): amf_train(['--resume', str(tmp_path / 'run')])
    said = capsys.readouterr()
    assert said.out == '' and len(said.err.splitlines()) == 1
    assert 'was begun with other images' in said.err and 'goes on' not in said.err
    for f in folder.rglob('z.png'): f.unlink()
    picture.write_bytes(whole)
    assert (train_run(resume=tmp_path / 'run') / 'metrics.json').is_file()


def test_what_can_be_mended_is_said_with_the_way_to_go_on(tmp_path, capsys):
    folder = pictures(tmp_path / 'pictures', ['red', 'green', 'blue'], 36)
    interrupted_run(folder=str(folder), out=str(tmp_path / 'run'))
    assert 'goes on\n' in capsys.readouterr().err
    picture = next((folder / 'red').glob('*.png'))
    whole = picture.read_bytes()
    picture.write_bytes(b'no image')
    with pytest.raises(SystemExit): amf_train(['--resume', str(tmp_path / 'run')])
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2 and said[0].endswith('goes on once what follows is mended')
    picture.write_bytes(whole)
    assert (train_run(resume=tmp_path / 'run') / 'metrics.json').is_file()
