"""Python that rounds like another processor: start it with `PYTHONPATH=tests/rounding`.
Random numbers begin elsewhere too, at `TORCH_SEED`: where one process runs several notebooks, the
networks of one depend on what ran before.

Convolutions, matrix products of layers and matrix multiplications get a relative error of the size that
kernels of different processors differ by. The error follows from the shape of the input, so the
same images in the same batch give the same numbers, bit for bit, and in another batch they do not."""
import os

import torch

SIZE = 3e-7 # about five times the rounding of a single-precision number
_errors = {}
torch.manual_seed(int(os.environ.get('TORCH_SEED', 1)))


def error_of(out):
    "Factors near 1, equal for equal shapes."
    if out.shape not in _errors:
        seed = hash(tuple(out.shape)) % 2**31
        noise = torch.randn(out.shape, generator=torch.Generator().manual_seed(seed))
        _errors.clear() if len(_errors) > 200 else None
        _errors[out.shape] = 1 + SIZE * noise
    return _errors[out.shape]


def rounded(function):
    "`function` with an error on what it returns, where that is single precision on the CPU."
    def with_error(*args, **kwargs):
        out = function(*args, **kwargs)
        plain = out.dtype == torch.float32 and out.device.type == 'cpu' and out.numel()
        return out * error_of(out) if plain else out
    return with_error


for module, name in ((torch.nn.functional, 'conv2d'), (torch.nn.functional, 'linear')):
    setattr(module, name, rounded(getattr(module, name)))
