"Mutated image files through `load_image`, `check_images` and `image_dls`: each is an image or one clear error that names the file, and what is called good loads."
import gzip
import io
import os
import pickle
import random
import struct
import sys
import warnings
import zlib
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from campaign import clock, main

MARK = 'marker-of-code-that-ran'
SUFFIXES = ['.png', '.jpg', '.gif', '.tif', '.webp', '.bmp', '.ico', '.ppm', '.avif', '.heic', '.JPEG', '.xpm']


class Harm:
    "An object whose unpickling makes a file."
    def __init__(self, root): self.file = root / MARK
    def __reduce__(self): return os.open, (str(self.file), os.O_CREAT)


def originals():
    "Small pictures in every format that is met, as (suffix, bytes)."
    import numpy as np
    from PIL import Image
    g = np.random.default_rng(0)
    rgb = Image.fromarray((g.integers(0, 60, (48, 60, 3)) + np.linspace(0, 190, 60)[:, None]).astype(np.uint8))
    rgba, palette, deep = rgb.convert('RGBA'), rgb.quantize(16), Image.fromarray(np.linspace(0, 65535, 48 * 60).reshape(48, 60).astype(np.uint16))
    rgba.putalpha(rgb.convert('L'))
    exif = Image.Exif()
    exif[0x0112], exif[0x010e] = 6, 'a picture'
    frames = dict(save_all=True, append_images=[rgb.rotate(a) for a in (90, 180)])
    kinds = [(rgb, '.png', {}), (rgba, '.png', {}), (rgb.convert('L'), '.png', {}), (rgb.convert('LA'), '.png', {}), (palette, '.png', dict(transparency=3)), (deep, '.png', {}), (rgb.convert('1'), '.png', {}),
             (rgb, '.png', dict(exif=exif)), (rgb, '.png', frames), (rgb, '.jpg', {}), (rgb, '.jpg', dict(progressive=True)), (rgb, '.jpg', dict(exif=exif)), (rgb.convert('CMYK'), '.jpg', {}),
             (rgb.convert('L'), '.jpg', {}), (rgb, '.jpg', dict(icc_profile=b'x' * 300)), (palette, '.gif', {}), (palette, '.gif', dict(transparency=2)), (rgb, '.gif', frames), (rgb, '.tif', {}), (rgb, '.tif', frames),
             (rgb, '.tif', dict(compression='tiff_lzw')), (rgb, '.tif', dict(compression='tiff_adobe_deflate')), (rgb, '.tif', dict(compression='jpeg')), (rgb.convert('1'), '.tif', dict(compression='group4')),
             (deep, '.tif', {}), (rgb.convert('CMYK'), '.tif', {}), (rgb.convert('F'), '.tif', {}), (rgba, '.webp', {}), (rgb, '.webp', dict(lossless=True)), (rgb, '.webp', dict(exif=exif)), (rgb, '.webp', frames),
             (rgb, '.bmp', {}), (palette, '.bmp', {}), (rgba, '.ico', {}), (rgb, '.ppm', {}), (rgb, '.tga', {}), (rgb, '.jp2', {}), (rgb, '.avif', {}), (rgb, '.pcx', {}), (rgba, '.icns', {}), (rgb, '.sgi', {})]
    res = []
    for im, suffix, kwargs in kinds:
        file = io.BytesIO()
        fmt = Image.registered_extensions()[suffix]
        im.save(file, fmt, **kwargs)
        res.append((suffix, file.getvalue()))
    return res


def chunk(kind, data): return struct.pack('>I', len(data)) + kind + data + struct.pack('>I', zlib.crc32(kind + data))


def png(w, h, bits=8, colour=2, data=b'', *more):
    "A PNG that claims to be `w` by `h`."
    return b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', struct.pack('>IIBBBBB', w, h, bits, colour, 0, 0, 0)) + b''.join(more) + chunk(b'IDAT', zlib.compress(data)) + chunk(b'IEND', b'')


def bombs(rng):
    "Small files that claim, or unpack to, far more than they hold."
    w, h = rng.choice([(50_000, 50_000), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (90_000_000, 1), (12_000, 12_000), (65_535, 65_535)])
    zeros = zlib.compress(bytes(rng.choice([10**6, 10**8])), 9)
    jpeg = lambda w, h: b'\xff\xd8\xff\xc0' + struct.pack('>HBHHB', 11, 8, h, w, 1) + b'\x01\x11\x00' + b'\xff\xda\x00\x08\x01\x01\x00\x00\x3f\x00' + bytes(50) + b'\xff\xd9'
    ifd = lambda *tags: struct.pack('<2sHIH', b'II', 42, 8, len(tags)) + b''.join(struct.pack('<HHII', *t) for t in sorted(tags)) + bytes(4)
    fits = b''.join(s.ljust(80).encode() for s in ('SIMPLE  =                    T', 'BITPIX  =                    8', 'NAXIS   =                    2',
                                                   'NAXIS1  =                  100', 'NAXIS2  =                  100', 'END')).ljust(2880)
    return rng.choice([
        lambda: png(w, h), lambda: png(w, h, 1, 0), lambda: png(w, h, 8, 6, bytes(10**6)), lambda: png(60, 48, 8, 2, bytes(10**8)), lambda: png(8, 8, 8, 2, bytes(200), chunk(b'zTXt', b'a\0\0' + zeros)),
        lambda: png(8, 8, 8, 2, bytes(200), *[chunk(b'zTXt', b'a\0\0' + zlib.compress(bytes(10**6)))] * 200), lambda: png(8, 8, 8, 2, bytes(200), chunk(b'iTXt', b'a\0\1\0\0\0' + zeros)),
        lambda: png(8, 8, 8, 2, bytes(200), chunk(b'iCCP', b'a\0\0' + zeros)), lambda: png(8, 8, 8, 2, bytes(200), chunk(b'eXIf', b'II*\0' + rng.randbytes(200))),
        lambda: png(8, 8, 8, 2, bytes(200), chunk(b'acTL', struct.pack('>II', 2**31 - 1, 0))), lambda: jpeg(65_500, 65_500), lambda: jpeg(9_000, 9_000), lambda: jpeg(0, 0),
        lambda: b'GIF89a' + struct.pack('<HHBBB', 65_535, 65_535, 0, 0, 0) + b',' + struct.pack('<HHHHB', 0, 0, 65_535, 65_535, 0) + b'\x08\x02\x00\x00\x00;',
        lambda: b'GIF89a' + struct.pack('<HHBBB', 10, 10, 0, 0, 0) + b',' + struct.pack('<HHHHB', 60_000, 60_000, 5_535, 5_535, 0) + b'\x08\x02\x00\x00\x00;',
        lambda: b'BM' + struct.pack('<IHHIIiiHHIIiiII', 54, 0, 0, 54, 40, rng.choice([w % 2**31, 30_000]), rng.choice([h % 2**31, -30_000]), 1, rng.choice([1, 8, 24, 32]), rng.choice([0, 1, 2]), 0, 0, 0, 0, 0),
        lambda: f'P{rng.choice("123456")}\n{w} {h}\n255\n'.encode() + bytes(1000), lambda: b'P6\n' + b'9' * 10**6 + b' 1\n255\n', lambda: b'P7\n# ' + b'x' * 10**6,
        lambda: ifd((256, 4, 1, w % 2**32), (257, 4, 1, h % 2**32), (258, 3, 1, 8), (259, 3, 1, rng.choice([1, 5, 7, 8])), (262, 3, 1, 1), (273, 4, 1, 8), (278, 4, 1, h % 2**32), (279, 4, 1, 2**31)),
        lambda: ifd((256, 4, 1, 9000), (257, 4, 1, 9000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 2**30, 8), (278, 4, 1, 1), (279, 4, 2**30, 8)),
        lambda: b'RIFF' + struct.pack('<I', 50) + b'WEBPVP8X' + struct.pack('<I', 10) + b'\x02\0\0\0' + b'\xff' * 6 + bytes(40),
        lambda: b'\0\0\1\0\1\0' + struct.pack('<BBBBHHII', 0, 0, 0, 0, 1, 32, 10**6, 22) + png(w, h), lambda: fits.replace(b'NAXIS1', b'ZNAXIS1', 1),
        lambda: gzip.compress(bytes(10**8)), lambda: b'qoif' + struct.pack('>IIBB', w, h, 4, 0) + b'\xfd' * 200, lambda: b'\x0a\x05\x01\x08' + struct.pack('<HHHH', 0, 0, 65_535, 65_535) + bytes(120),
        lambda: b'8BPS\0\1' + bytes(6) + struct.pack('>HIIHH', 3, 30_000, 30_000, 8, 3) + bytes(14), lambda: b'DDS ' + struct.pack('<7I', 124, 0x1007, 60_000, 60_000, 0, 0, 0) + bytes(96),
    ])()


def scans(rng):
    "A progressive JPEG that paints itself again and again."
    from PIL import Image
    side, file = rng.choice([64, 1000, 4000]), io.BytesIO()
    Image.new('L', (side, side), 99).save(file, 'JPEG', progressive=True)
    data = file.getvalue()
    return data[:-2] + data[data.rindex(b'\xff\xda'):-2] * rng.choice([10, 50, 1000, 20_000]) + data[-2:]


def large(rng):
    "Pictures at the edge of what is allowed."
    from PIL import Image
    file, mode = io.BytesIO(), rng.choice(['1', 'L', 'RGB', 'RGBA', 'P', 'LA', 'I;16'])
    w, h = rng.choice([(9400, 9400), (9500, 9500), (1_000_000, 88), (1, 1), (60_000, 1400), (3000, 3000), (65_000, 10)])
    Image.new(mode, (w, h)).save(file, 'PNG' if w > 65_000 or mode != 'RGB' else rng.choice(['PNG', 'JPEG', 'TIFF', 'BMP']), **({} if mode == 'RGB' else dict(compress_level=1)))
    return file.getvalue()


def foreign(rng, root):
    "Files that are no pictures, some of them programs."
    eps = f'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n({root / MARK}) (w) file closefile\nshowpage\n'
    return rng.choice([
        lambda: eps.encode(), lambda: b'\xc5\xd0\xd3\xc6' + struct.pack('<6I', 30, len(eps), 0, 0, 0, 0) + bytes(2) + eps.encode(), lambda: pickle.dumps(Harm(root)), lambda: b'<html>404</html>',
        lambda: f'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><image href="file://{root}/x"/><script>1</script></svg>'.encode(), lambda: b'', lambda: bytes(1000), lambda: b'%PDF-1.7\n' + bytes(100),
        lambda: b'/* XPM */\nstatic char *x[] = {\n"60000 60000 2 1",\n"a c #000000",\n"b c #ffffff",\n' + b'"ab",\n' * 100 + b'};\n', lambda: b'#define x_width 60000\n#define x_height 60000\nstatic char x_bits[] = {0x00};\n',
        lambda: b'#!/bin/sh\ntouch ' + str(root / MARK).encode(), lambda: b'GRIB' + bytes(3) + b'\1' + bytes(50), lambda: b'\x89HDF\r\n\x1a\n' + bytes(90), lambda: b'\xd7\xcd\xc6\x9a\0\0' + bytes(60), lambda: rng.randbytes(3000)])()


def bits(data, rng): return flipped(data, rng, len(data))
def head_bits(data, rng): return flipped(data, rng, min(80, len(data)))


def flipped(data, rng, upto):
    data = bytearray(data)
    for _ in range(rng.randint(1, 12)): data[rng.randrange(upto)] ^= 1 << rng.randrange(8)
    return bytes(data)


def cut(data, rng): return data[:rng.choice([rng.randrange(len(data)), len(data) - 1, rng.randrange(40)])]


def numbers(data, rng):
    "Two or four bytes near the beginning become a number that is hard to digest."
    at, new = rng.randrange(min(200, len(data))), rng.choice([b'\xff' * 4, b'\x7f\xff\xff\xff', b'\xff\xff\xff\x7f', bytes(4), b'\x80\0\0\0', b'\xff\xff', b'\0\0', b'\xff\x7f', b'\0\1\0\0'])
    return data[:at] + new + data[at + len(new):]


def moved(data, rng):
    "A piece is taken out, doubled or put elsewhere."
    a, b = sorted(rng.randrange(len(data)) for _ in range(2))
    return rng.choice([data[:a] + data[b:], data[:b] + data[a:], data[:a] + rng.randbytes(20) + data[a:], data[b:] + data[:b], data + data[a:], data[:a] + bytes(b - a) + data[b:]])


def exif(data, rng):
    "Garbage where cameras write how they were held."
    from PIL import Image
    junk = b'Exif\0\0' + rng.choice([b'II*\0\x08\0\0\0', b'MM\0*\0\0\0\x08', b'XX', b'']) + rng.choice([rng.randbytes(300), b'\xff' * 300, b'\x01\x00\x12\x01\x03\x00\xff\xff\xff\xff' * 5, struct.pack('<HHHII', 1, 0x112, 3, 1, 99) + bytes(4), b''])
    file = io.BytesIO()
    Image.new('RGB', (60, 48), 'red').save(file, rng.choice(['JPEG', 'PNG', 'WEBP']), exif=junk if rng.random() < 0.5 else junk[6:])
    return file.getvalue()


def prepare(root, seed):
    "Return what makes case number i."
    warnings.filterwarnings('ignore')
    import torch
    from PIL import Image
    from fastai.vision.core import PILImage
    from amf_nb.core import check_images, image_dls, load_image
    torch.set_num_threads(1)
    Image.init()
    whole, last = originals(), []
    (root / 'good').mkdir(exist_ok=True)
    for i in range(4): Image.new('RGB', (40, 40), (60 * i, 9, 9)).save(root / 'good' / f'{i}.png')
    changed = dict(bits=bits, head_bits=head_bits, cut=cut, numbers=numbers, moved=moved)
    kinds = [*changed] * 4 + ['spliced', 'untouched', 'exif', 'bomb', 'bomb', 'scans', 'large', 'foreign', 'special', 'wrong_suffix']

    def make(i, where, rng):
        kind, (suffix, data) = kinds[i % len(kinds)], rng.choice(whole)
        if kind in changed: data = changed[kind](data, rng)
        if kind == 'spliced':
            other = rng.choice(whole)[1]
            data = data[:rng.randrange(len(data))] + other[rng.randrange(len(other)):]
        if kind == 'exif': data = exif(data, rng)
        if kind == 'bomb': data = bombs(rng)
        if kind == 'scans': data = scans(rng)
        if kind == 'large': data = large(rng)
        if kind == 'foreign': data = foreign(rng, root)
        file = where / f'picture{rng.choice(SUFFIXES) if kind not in ("untouched", "bits") or rng.random() < 0.3 else suffix}'
        if kind != 'special': file.write_bytes(data); return kind, file
        how = rng.randrange(8)
        if how == 0: file.mkdir()
        if how == 1: os.mkfifo(file)
        if how == 2: file.symlink_to(rng.choice(['/dev/zero', '/dev/random', '/proc/kmsg', '/dev/stdin', '/etc/passwd']))
        if how == 3: file.symlink_to(file.name)
        if how == 4: file.symlink_to('nowhere')
        if how == 5: file.touch()
        if how == 6: (where / 'real').write_bytes(data); file.symlink_to('real')                     # allowed
        return kind, file

    def folder_case(i, where, rng):
        "A folder of two classes with five hostile files in each: those that can be read are read, the others are named."
        for c in 'ab':
            for n in range(4): os.link(root / 'good' / f'{n}.png', (where / c).mkdir(exist_ok=True) or where / c / f'{n}.png')
            for n in range(5):
                (sub := where / f'{c}{n}').mkdir()
                _, file = make(rng.choice([j for j, k in enumerate(kinds) if k not in ('large', 'scans')]), sub, rng)
                if file.exists() or file.is_symlink(): file.rename(where / c / f'hostile{n}{file.suffix}')

        def load(target):
            files = [p for p in target.rglob('*') if p.suffix.lower() in SUFFIXES + ['.jp2', '.tga', '.jpeg'] and p.is_file() and p.parent.name in 'ab']
            good, bad = check_images(files)
            dls = image_dls(target, size=32, bs=8, skip_bad=True, num_workers=0, augs=[])
            n = sum(len(b[0]) for dl in (dls.train.new(shuffle=False, drop_last=False), dls.valid) for b in dl)
            try: image_dls(target, size=32, num_workers=0); said = ''
            except ValueError as e: said = str(e)
            return n, bad, said, len(good)

        def judge(res):
            n, bad, said, _ = res
            if n < 8: return 'images lost', f'{n} of 8'
            named = [p for p, _ in bad if p.suffix.lower() in ('.png', '.jpg', '.gif', '.webp', '.bmp', '.ppm')][:10]
            if bool(named) > bool(said) or named and not any(str(p) in said for p in named): return 'unnamed file', said[:200]
        return 'folder', where, load, judge

    def case(i, where):
        rng = random.Random(f'{seed}-{i}')
        if i % 25 == 24: return folder_case(i, where, rng)
        kind, file = make(i - i // 25, where, rng)

        times = []
        def timed(f, o):
            start = clock()
            try: return f(o)
            finally: times.append(clock() - start)

        def load(path):
            good, bad = timed(check_images, [path])
            try: im = timed(load_image, path)
            except Exception:
                if good: raise RuntimeError('`check_images` calls it good, and it does not load')
                raise
            return im, bad, im.size if kind == 'large' else timed(load_image, path.read_bytes()).size
        load.times = times

        def judge(res):
            im, bad, size = res
            if bad: return 'bad that loads', str(bad)
            if type(im) is not PILImage or im.mode != 'RGB' or im.width * im.height > Image.MAX_IMAGE_PIXELS or size != im.size: return 'wrong outputs', f'{im.mode} {im.size}'
        return kind, file, load, judge
    return case


if __name__ == '__main__':
    main(prepare, __doc__, 'bench/soak/images.json', 5_000, 2048, ['pillow', 'fastai', 'torch'])
