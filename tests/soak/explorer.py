"""How fast the explorer answers: moving a slider and choosing a class, with 10,000 images and 5 branches.

    python tests/soak/explorer.py --out bench/soak/explorer.json
"""
import argparse, json, time
from pathlib import Path

import numpy as np
import torch

from amf_nb.method.fusion import Parts
from amf_nb.use.explore import MODES, Explorer, Fusing
from amf_nb.use.interpret import AMFInterpretation


def made(n, K, C):
    "An explorer over random branches that are right more often than not."
    g = torch.Generator().manual_seed(0)
    y = torch.randint(C, (n,), generator=g)
    z = torch.randn(n, K, C, generator=g) + 2 * torch.nn.functional.one_hot(y, C)[:, None]
    parts = Parts(z, torch.randn(n, K, generator=g).softmax(1), targets=y)
    picture = lambda i: np.full((64, 64, 3), i % 250, np.uint8)
    return Explorer(Fusing(AMFInterpretation(parts, [f'b{k}' for k in range(K)], [f'c{c}' for c in range(C)], image=picture)))


def ms(f, *values):
    "Milliseconds of `f` for each of `values`."
    res = []
    for v in values:
        start = time.perf_counter()
        f(v)
        res.append(1000 * (time.perf_counter() - start))
    return dict(median=round(float(np.median(res)), 1), most=round(max(res), 1))


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--out', type=Path, default=None)
    out, res = p.parse_args().out, dict(command='python tests/soak/explorer.py', images=10_000, branches=5, threads=torch.get_num_threads(), milliseconds={})
    for C in (10, 100):
        e, rows = made(10_000, 5, C), {}
        for mode in MODES:
            e.mode.value = mode
            rows[f'slider, {MODES[mode]}'] = ms(lambda v: setattr(e.sliders[0], 'value', v), *[0.4, 0.5] * 8)
        rows['class'] = ms(lambda c: setattr(e.classes, 'value', c), *range(1, 8))
        res['milliseconds'][f'{C} classes'] = rows
    print(json.dumps(res, indent=1))
    if out: out.write_text(json.dumps(res, indent=1) + '\n')


if __name__ == '__main__': main()
