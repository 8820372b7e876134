"""Python that rounds like another processor: start it with `PYTHONPATH=tests/rounding`.
Random numbers begin elsewhere too, at `TORCH_SEED`: where one process runs several notebooks, the
networks of one depend on what ran before.

Convolutions, matrix products of layers and matrix multiplications get a relative error of the size that
kernels of different processors differ by. The error follows from the shape of the input, so the
same images in the same batch give the same numbers, bit for bit, and in another batch they do not.
All of this begins when torch is imported, for some programs here show that they need none."""
import importlib.util
import os
import sys

SIZE = 3e-7 # about five times the rounding of a single-precision number
_errors = {}


def error_of(torch, out):
    "Factors near 1, equal for equal shapes."
    if out.shape not in _errors:
        seed = hash(tuple(out.shape)) % 2**31
        noise = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
        if len(_errors) > 200: _errors.clear()
        _errors[out.shape] = 1 + SIZE * noise
    return _errors[out.shape]


def rounded(torch, function):
    "`function` with an error on what it returns, where that is single precision on the CPU."
    def with_error(*args, **kwargs):
        out = function(*args, **kwargs)
        known = all(isinstance(side, int) for side in out.shape) # not so while a graph is made
        plain = known and out.dtype == torch.float32 and out.device.type == 'cpu' and out.numel()
        return out * error_of(torch, out) if plain else out
    return with_error


def change(torch):
    torch.manual_seed(int(os.environ.get('TORCH_SEED', 1)))
    layers = torch.nn.functional
    for name in ('conv2d', 'linear'): setattr(layers, name, rounded(torch, getattr(layers, name)))


class WhenImported:
    "Calls `change` as soon as torch is there."
    def find_spec(self, name, path=None, target=None):
        if name != 'torch': return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec('torch')
        run = spec.loader.exec_module
        def exec_module(module):
            run(module)
            change(module)
        spec.loader.exec_module = exec_module
        return spec


sys.meta_path.insert(0, WhenImported())
