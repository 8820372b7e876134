"""Kill `amf_train` at random moments, resume it, and compare the weights with those of an uninterrupted run.

    python tests/soak/kills.py --n 30 --seed 0 --out bench/soak/kills.json
"""
import argparse, json, os, random, shutil, subprocess, sys, tempfile, time
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).parents[1]))
from ready import Ready

OPTIONS = '--arch test_resnet --scratch --epochs 6 --size 32 --bs 8 --lr 0.01 --seed 1 --no_report'.split()
ENV = dict(OMP_NUM_THREADS='1')


def make_folder(folder, n=180):
    "Three classes of small noisy pictures."
    g = np.random.default_rng(0)
    for i in range(n):
        x, c = g.integers(0, 120, (40, 40, 3)).astype(np.uint8), i % 3
        x[..., c] += 60
        file = folder / ['red', 'green', 'blue'][c] / f'{i}.png'
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(x).save(file)
    return folder


def start(*args, **env):
    "`amf_train` in a process that need not import it first."
    code = 'import warnings; warnings.simplefilter("ignore"); from amf_nb.cli import amf_train; amf_train()'
    return Ready(code, *args, env={**ENV, **env})


def start_anew(*args):
    "`amf_train` as a user starts it."
    code = 'from amf_nb.cli import amf_train; amf_train()'
    command = [sys.executable, '-W', 'ignore', '-c', code, *map(str, args)]
    return subprocess.Popen(command, env={**os.environ, **ENV}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(p):
    _, err = p.communicate(timeout=300)
    if p.returncode: raise RuntimeError(err[-2000:])
    return err


def weights(run): return json.loads((run / 'model/config.json').read_text())['weights']


def reference(folder, tmp):
    "Name (a checksum) of the weights of a run in one piece, and the seconds between its first trace and its end."
    p, work = start_anew(folder, *OPTIONS, '--out', tmp / 'whole'), tmp / 'whole.unfinished/checkpoints'
    while not work.exists() and p.poll() is None: time.sleep(0.01)
    began = time.perf_counter()
    finish(p)
    return weights(tmp / 'whole'), time.perf_counter() - began


def kill_once(p, work, rng, seconds):
    "Kill `p` somewhere in its run, or while it writes; returns how, or None if it was done before."
    while not (work / 'checkpoints').exists() and p.poll() is None: time.sleep(0.005)
    if rng.random() < 0.4:
        how, nth = 'writing', rng.randint(1, 4)
        while p.poll() is None and nth:
            if any(work.glob('checkpoints/.*.part')):
                nth -= 1
                if not nth: break
                while any(work.glob('checkpoints/.*.part')) and p.poll() is None: pass
            time.sleep(0.0002)
    else:
        how, until = 'anywhere', time.perf_counter() + 0.7 * rng.random() * seconds
        while p.poll() is None and time.perf_counter() < until: time.sleep(0.002)
    done = p.poll() is not None
    p.kill()
    p.communicate()
    return None if done else how


def case(i, folder, want, seconds, tmp, seed):
    "One run with one to three kills, sometimes with its newest checkpoint cut short."
    rng, out, log = random.Random(f'{seed} {i}'), tmp / f'run{i}', []
    work, args = out.with_name(f'{out.name}.unfinished'), (folder, *OPTIONS, '--out', out)
    kills = rng.randint(1, 3)
    while kills:
        how = kill_once(start(*args), work, rng, seconds)
        if how is None and log: break # a resumed run that got to its end
        if how is None:
            shutil.rmtree(out)
            continue
        kills -= 1
        log.append(how)
        if not work.exists(): continue # killed before it had begun: the same command again
        args, files = ('--resume', out), sorted(work.glob('checkpoints/epoch-*'))
        if len(files) > 1 and rng.random() < 0.4:
            os.truncate(files[-1], rng.randrange(files[-1].stat().st_size))
            log.append('newest file cut short')
    done = len([*work.glob('checkpoints/epoch-*')])
    if not out.exists(): finish(start(*args))
    same, left = weights(out) == want, [*tmp.glob(f'run{i}.unfinished'), *out.glob('checkpoints')]
    shutil.rmtree(out)
    return dict(case=i, events=log, checkpoints=done, same=same and not left)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--n', type=int, default=30)
    p.add_argument('--seed', type=int, default=0)
    p.add_argument('--out', type=Path, default=None)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp:
        tmp, began = Path(tmp), time.perf_counter()
        folder = make_folder(tmp / 'pictures')
        want, seconds = reference(folder, tmp)
        rows = []
        for i in range(a.n):
            rows.append(case(i, folder, want, seconds, tmp, a.seed))
            print(json.dumps(rows[-1]), flush=True)
    res = dict(command=f'python tests/soak/kills.py --n {a.n} --seed {a.seed}', cases=len(rows), same=sum(r['same'] for r in rows),
               kills=sum(e != 'newest file cut short' for r in rows for e in r['events']), seconds=round(time.perf_counter() - began), rows=rows)
    if a.out:
        a.out.parent.mkdir(parents=True, exist_ok=True)
        a.out.write_text(json.dumps(res, indent=1) + '\n')
    print({k: v for k, v in res.items() if k != 'rows'})
    return res['same'] != res['cases']


if __name__ == '__main__': sys.exit(main())
