"""`amf_train` on the shipped sample with one process and with two, each with one thread: time and accuracy. Keep the machine idle.

    python tests/soak/processes.py --seeds 0 1 2 --epochs 6 --out bench/soak/processes.json
"""
import argparse, json, os, subprocess, sys, tempfile
from pathlib import Path

TRAIN = str(Path(sys.executable).with_name('amf_train'))
ENV = dict(os.environ, OMP_NUM_THREADS='1')


def train(n, seed, epochs, tmp):
    "Seconds of training, and the accuracy of policy and plain average, with `n` processes."
    launch = ['-m', 'torch.distributed.run', '--nproc_per_node', str(n)] if n > 1 else []
    out = Path(tmp) / f'{n}-{seed}'
    subprocess.run([sys.executable, '-W', 'ignore', *launch, TRAIN, '--epochs', str(epochs), '--seed', str(seed), '--out', str(out), '--no_report'], env=ENV, check=True, stdout=subprocess.DEVNULL)
    m = json.loads((out / 'metrics.json').read_text())
    return dict(processes=n, seed=seed, seconds=m['seconds'], policy=m['panel']['policy']['accuracy'], uniform=m['panel']['uniform']['accuracy'],
                validation_images=m['images']['valid'], policy_images=m['policy_fit']['images'])


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--seeds', type=int, nargs='+', default=[0, 1, 2])
    p.add_argument('--epochs', type=int, default=6)
    p.add_argument('--out', type=Path, default=None)
    a = p.parse_args()
    with tempfile.TemporaryDirectory() as tmp: rows = [train(n, s, a.epochs, tmp) for s in a.seeds for n in (1, 2)]
    one, two = ([r for r in rows if r['processes'] == n] for n in (1, 2))
    times, points = [t['seconds'] / o['seconds'] for o, t in zip(one, two)], [100 * (t['policy'] - o['policy']) for o, t in zip(one, two)]
    res = dict(command='python tests/soak/processes.py --seeds ' + ' '.join(map(str, a.seeds)) + f' --epochs {a.epochs}', time_of_two_over_one=[round(t, 3) for t in times],
               points_two_minus_one=[round(d, 2) for d in points], mean_points=round(sum(points) / len(points), 2), rows=rows)
    print(json.dumps({k: v for k, v in res.items() if k != 'rows'}, indent=1))
    if a.out:
        a.out.parent.mkdir(parents=True, exist_ok=True)
        a.out.write_text(json.dumps(res, indent=1) + '\n')


if __name__ == '__main__': main()
