"Mutated model folders, loaded by `load_amf`: each gives the model that was saved or one clear exception, and nothing else happens."
import copy
import hashlib
import json
import os
import pickle
import random
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from campaign import main

ARCHS = ['test_resnet', 'test_vit', 'resnet18', 'tf_efficientnet_lite0', 'vit_giant_patch14_224', 'eva_giant_patch14_560', 'torchvision/resnet18', 'torchvision/regnet_y_128gf',
         'torchvision/vit_h_14', 'hf-hub:timm/resnet18.a1_in1k', 'hf_hub:timm/resnet18', 'local-dir:/tmp', 'local-dir:.', 'timm/resnet18', '../resnet18', '/etc/passwd', 'resnet18.no_such_tag',
         'resnet18.a1_in1k', 'test_efficientnet.r160_in1k', 'test_еfficientnet', 'TEST_EFFICIENTNET', 'test_efficientnet\n', 'torchvision/get_model', 'torchvision/', '', ' ', '.', '__class__']
PATTERNS = ['(a+)+$', '(.*)*x', '(.|.)*.{200}', r'(\w+\.?)+!', '.*.*.*.*.*.*x', '.*.*.*x', '(?:(?:(?:a{1000}){1000}){1000})', 'a{99999999999}', '(' * 150, '[', '(?P<x>a)(?P=x)', '(s|t|a|g|e|\\.)+!',
            '(.?){50}x', '.*', 'norm', '^stages', '(?#', 'x' * 10_000, '\\', '(?<=a*)b']
TEXTS = ['', 'x', 'x' * 10**6, '\x00', '\ud800', '\u202e', 'é' * 300, '../../etc/passwd', '/dev/zero', 'weights', '\n', '%s%n', '{0.__class__}', '__reduce__', 'null', '🧵' * 500]
NUMBERS = [0, -1, 1, 2, 0.5, 1e-300, 1e300, -0.0, 2**31, 2**53 + 1, 2**63, 2**64, 10**400, True, 65, 4097, 100_001]
ODD = [None, [], {}, [[]], [None], {'a': None}, [[[[[]]]]], {'': ''}]
MARK = 'marker-of-code-that-ran'


class Harm:
    "An object whose unpickling makes a file."
    def __init__(self, root): self.file = root / MARK
    def __reduce__(self): return os.open, (str(self.file), os.O_CREAT)


def digest(data): return hashlib.sha256(data).hexdigest()[:16]


def flip(data, rng, most=8, upto=None):
    "`data` with a few bits changed."
    data = bytearray(data)
    for _ in range(rng.randint(1, most)): data[rng.randrange(upto or len(data))] ^= 1 << rng.randrange(8)
    return bytes(data)


def hostile(rng):
    "A JSON value that nobody expects."
    return copy.deepcopy(rng.choice([*TEXTS, *NUMBERS, *ODD, *ARCHS]))


def places(v, path=()):
    "The path of every value within the JSON value `v`."
    yield path
    for k in v if isinstance(v, dict) else range(len(v)) if isinstance(v, list) else (): yield from places(v[k], (*path, k))


def replace(v, path, new):
    "`v` with what is at `path` exchanged."
    if not path: return new
    at = v
    for k in path[:-1]: at = at[k]
    at[path[-1]] = new
    return v


class Model:
    "A saved model, as its parts."
    def __init__(self, folder):
        self.config = json.loads((folder / 'config.json').read_text())
        self.data = (folder / self.config['weights']).read_bytes()
        n = int.from_bytes(self.data[:8], 'little')
        self.head, self.body = json.loads(self.data[8:8 + n]), self.data[8 + n:]

    def write(self, folder, config=None, data=None, keep_name=False):
        "A folder with this model, or with another `config` (text, bytes or a value) or weights; their name fits them unless `keep_name`."
        folder.mkdir(exist_ok=True)
        config = copy.deepcopy(self.config) if config is None else config
        data = self.data if data is None else data
        name = self.config['weights'] if keep_name else f'weights-{digest(data)}.safetensors'
        if isinstance(config, dict) and config.get('weights') == self.config['weights']: config['weights'] = name
        if not isinstance(config, (str, bytes)): config = json.dumps(config)
        (folder / 'config.json').write_bytes(config if isinstance(config, bytes) else config.encode())
        (folder / name).write_bytes(data)
        return folder / name

    def packed(self, head, body=None):
        "The bytes of a safetensors file with this header."
        text = (head if isinstance(head, str) else json.dumps(head)).encode()
        return len(text).to_bytes(8, 'little') + text + (self.body if body is None else body)


# every mutation writes a folder and says whether a load may give other numbers than the original
def config_bits(m, f, rng, others): m.write(f, flip(json.dumps(m.config).encode(), rng))


def config_cut(m, f, rng, others):
    text = json.dumps(m.config, indent=1)
    m.write(f, text[:rng.randrange(len(text))])


def config_value(m, f, rng, others):
    c = copy.deepcopy(m.config)
    at = rng.choice(list(places(c)))
    m.write(f, replace(c, at, hostile(rng)))
    return at and at[0] in ('fusion', 'multilabel', 'strategies', 'image')


def config_keys(m, f, rng, others):
    c = copy.deepcopy(m.config)
    d = rng.choice([c, c, c['image'], rng.choice(c['strategies'])])
    k = rng.choice(list(d))
    how = rng.randrange(4)
    if how == 0: del d[k]
    if how == 1: d[rng.choice(TEXTS)] = hostile(rng)
    if how == 2: d[k.replace('a', 'а').replace('o', 'о').upper()] = d.pop(k)
    text = json.dumps(c)
    if how == 3: text = '{' + f'{json.dumps(k)}: {json.dumps(hostile(rng))}, ' + text[1:]
    m.write(f, text)
    return True # without a field that has a default


def config_numbers(m, f, rng, others):
    c = copy.deepcopy(m.config)
    number = [p for p in places(c) if isinstance(c if not p else eval('c' + ''.join(f'[{k!r}]' for k in p)), (int, float))]
    text = json.dumps(replace(c, rng.choice(number), 'HERE'))
    m.write(f, text.replace('"HERE"', rng.choice(['NaN', 'Infinity', '-Infinity', '1e999', '-1e999', '9' * 5000, '1' + '0' * 400, '1e-400', '0x10', '01', '+1', '1.', '.5', '1_0', '9' * 10**6])))
    return True


def config_text(m, f, rng, others):
    text = json.dumps(m.config)
    deep = rng.choice([10, 1000, 100_000, 1_000_000])
    m.write(f, rng.choice([
        lambda: b'\xef\xbb\xbf' + text.encode(), lambda: text.encode('utf-16'), lambda: text.encode('utf-32'), lambda: b'', lambda: b'\x00' * 100, lambda: text + text, lambda: text + '}',
        lambda: text[:-1] + ',}', lambda: '// comment\n' + text, lambda: "'" + text + "'", lambda: '[' * deep, lambda: '{"a":' * deep + '1' + '}' * deep, lambda: '[' * deep + ']' * deep,
        lambda: text[:-1] + ', "more": ' + '[' * deep + ']' * deep + '}', lambda: ' ' * rng.choice([1000, 6_000_000]) + text, lambda: '"' + 'x' * 3_000_000 + '"', lambda: rng.randbytes(2000),
        lambda: text.replace('"', '“'), lambda: text.encode('latin-1') + b'\xff', lambda: json.dumps([m.config]), lambda: 'null', lambda: text.replace('false', 'False'),
        lambda: json.dumps({**m.config, **{f'k{i}': i for i in range(100_000)}})])())


def config_version(m, f, rng, others):
    m.write(f, {**m.config, rng.choice(['version', 'format']): rng.choice([0, 2, 99, 1.0, True, '1', None, -1, [1], 'amf', 'AMF_NB', 10**30])})


def config_strategies(m, f, rng, others):
    c, name = copy.deepcopy(m.config), lambda n: dict(name=f's{n}')
    s = c['strategies']
    how = rng.randrange(7)
    if how == 0: rng.choice(s)['train_only'] = rng.choice(PATTERNS)
    if how == 1: rng.choice(s)[rng.choice(['freeze', 'scale', 'reinit', 'lr_mult', 'stage_decay', 'wd', 'l2_sp'])] = rng.choice([*NUMBERS, '1', None, 0.3, 3, 99])
    if how == 2: c['strategies'] = s + [name(n) for n in range(rng.choice([1, 20, 61, 64, 1000, 20_000]))]
    if how == 3: c['strategies'] = s + [dict(name(n), train_only=rng.choice(PATTERNS)) for n in range(rng.choice([1, 10, 60]))]
    if how == 4: c['strategies'] = s + s
    if how == 5: rng.shuffle(s)
    if how == 6: c['strategies'] = s[:rng.randrange(len(s))]
    m.write(f, c)
    return True # shuffled branches, or other scales


def config_arch(m, f, rng, others): m.write(f, {**m.config, 'arch': rng.choice(ARCHS)})


def config_sizes(m, f, rng, others):
    c, k = copy.deepcopy(m.config), rng.choice(['n_in', 'n_out', 'vocab', 'size', 'stats', 'p'])
    if k in ('n_in', 'n_out'): c[k] = rng.choice([*NUMBERS, 4, 64, 100_000])
    if k == 'vocab' or k == 'n_out' and rng.random() < 0.5: c['vocab'] = [str(i) for i in range(rng.choice([0, 1, 3, 4, 1000, 100_000]))]
    if k == 'n_out' and rng.random() < 0.5: c['n_out'] = len(c['vocab'])
    if k == 'size': c['image']['size'] = rng.choice([[1, 1], [8, 8], [4096, 4096], [10**6, 10**6], [32], [32, 32, 32], [-32, 32], ['32', 32], [32.5, 32], 32, [0, 0]])
    if k == 'stats': c['image']['stats'] = rng.choice([[[0.5] * 3, [0.] * 3], [[0.5] * 3], [[0.5] * 2, [0.5] * 2], [0.5, 0.5], [[1e300] * 3, [1] * 3], [['a'] * 3, [1] * 3], 'x', {}])
    if k == 'p': c['p'] = rng.choice(NUMBERS)
    m.write(f, c)
    return k == 'size'


def weights_bits(m, f, rng, others):
    where = rng.choice([None, None, 8, 8 + len(m.data) - len(m.body)])
    keep = rng.random() < 0.3
    m.write(f, data=flip(m.data, rng, upto=where), keep_name=keep)
    return not keep


def weights_cut(m, f, rng, others):
    n = rng.choice([0, 1, 7, 8, 9, 100, rng.randrange(len(m.data)), len(m.data) - 1, len(m.data) - 4])
    m.write(f, data=m.data[:n], keep_name=rng.random() < 0.3)


def weights_longer(m, f, rng, others):
    more = rng.randbytes(rng.choice([1, 4, 1000, 10**6]))
    m.write(f, data=rng.choice([m.data + more, more + m.data, m.data * 2]), keep_name=rng.random() < 0.3)


def header_length(m, f, rng, others):
    m.write(f, data=rng.choice([0, 1, 2**24, 2**31, 2**40, 2**63, 2**64 - 1, rng.randrange(len(m.data))]).to_bytes(8, 'little') + m.data[8:])


def header_shape(m, f, rng, others):
    head = copy.deepcopy(m.head)
    t = head[rng.choice([k for k in head if k != '__metadata__'])]
    t['shape'] = rng.choice([lambda: t['shape'][::-1], lambda: [*t['shape'], 1], lambda: [1, *t['shape']], lambda: [2**40, 2**40], lambda: [10**9] * 3, lambda: [-1], lambda: [2**63], lambda: [2**64 + 3],
                             lambda: [1] * 100_000, lambda: [0], lambda: [], lambda: 'ab', lambda: None, lambda: [1.5], lambda: ['3'], lambda: [[3]], lambda: [True], lambda: {}, lambda: [10**9]])()
    m.write(f, data=m.packed(head))
    return False


def header_huge(m, f, rng, others):
    head, k = copy.deepcopy(m.head), rng.choice(['branches.0.head.1.weight', 'static_K', 'trunk.x', 'new'])
    n = rng.choice([10**7, 10**10, 10**13, 2**60])
    head[k] = dict(dtype='F32', shape=[n], data_offsets=[len(m.body), len(m.body) + 4 * n])
    file = m.write(f, data=m.packed(head))
    if n <= 10**10:
        with open(file, 'r+b') as o: o.truncate(len(m.packed(head)) + 4 * n) # the file has that length and takes no room


def header_dtype(m, f, rng, others):
    head = copy.deepcopy(m.head)
    t = head[rng.choice([k for k in head if k != '__metadata__'])]
    t['dtype'] = rng.choice(['F64', 'F16', 'BF16', 'I32', 'U8', 'I64', 'BOOL', 'F8_E4M3', 'F4', 'C64', 'f32', 'O', '', None, 32, [], {}, 'F32' * 1000])
    m.write(f, data=m.packed(head))


def header_offsets(m, f, rng, others):
    head = copy.deepcopy(m.head)
    a, b = (head[k] for k in rng.sample([k for k in head if k != '__metadata__'], 2))
    how = rng.randrange(6)
    if how == 0: a['data_offsets'] = b['data_offsets']
    if how == 1: a['data_offsets'] = a['data_offsets'][::-1]
    if how == 2: a['data_offsets'] = rng.choice([[0, 2**63], [-4, 0], [0, 0], [2**64, 2**65], [0], [0, 4, 8], 'ab', None, [0.5, 4.5], {}])
    if how == 3: a['data_offsets'] = [o + rng.choice([-4, 1, 4, 10**9]) for o in a['data_offsets']]
    if how == 4 and a['shape'] != b['shape']: a['data_offsets'], b['data_offsets'] = b['data_offsets'], a['data_offsets']
    if how == 5: del a['data_offsets']
    m.write(f, data=m.packed(head))
    return how == 4 # two scalars


def header_names(m, f, rng, others):
    head = copy.deepcopy(m.head)
    a, b = rng.sample([k for k in head if k != '__metadata__'], 2)
    how = rng.randrange(6)
    if how == 0: head[a + rng.choice(['x', '\x00', '/../', 'é'])] = head.pop(a)
    if how == 1: head['x' * 10**6] = head.pop(a)
    if how == 2: head['__metadata__'] = rng.choice([{'a': 1}, [], 'x', None, {'a': {'b': 'c'}}, {str(i): 'x' for i in range(50_000)}])
    if how == 3: head[a], head[b] = head[b], head[a]
    if how == 4: head |= {f'x{i}': dict(dtype='F32', shape=[0], data_offsets=[len(m.body)] * 2) for i in range(rng.choice([1, 1000, 50_000]))}
    if how == 5: del head[a]
    m.write(f, data=m.packed(head))
    return how == 3 # two tensors of one shape have changed places


def header_text(m, f, rng, others):
    text, deep = json.dumps(m.head), rng.choice([100, 100_000, 1_000_000])
    k = rng.choice([k for k in m.head if k != '__metadata__'])
    m.write(f, data=m.packed(rng.choice([
        lambda: '[' * deep, lambda: text[:-1] + ', "x": ' + '[' * deep + ']' * deep + '}', lambda: '{' + f'"{k}": {json.dumps(m.head[k])}, ' + text[1:], lambda: 'null', lambda: '[]', lambda: '{}', lambda: '"x"',
        lambda: text.replace('"F32"', '1e999', 1), lambda: text.replace(': [', ': [NaN, ', 1), lambda: ' ' * rng.choice([10, 20_000_000]) + text, lambda: text + ' ' * 64, lambda: text.replace('"', "'")])()))


def weights_swapped(m, f, rng, others):
    other = rng.choice(others)
    m.write(f, data=other.data, keep_name=rng.random() < 0.3)


def config_swapped(m, f, rng, others):
    other = rng.choice(others)
    m.write(f, {**other.config, 'weights': m.config['weights']})


def pickled(m, f, rng, others):
    import torch
    root = f.parent.parent
    harm = rng.choice([Harm(root), {'state': Harm(root)}, [Harm(root)] * 3])
    where = rng.choice(['weights', 'config', 'beside', 'after the header'])
    data = pickle.dumps(harm, protocol=rng.randrange(6))
    if rng.random() < 0.3:
        torch.save(harm, f.parent / 'harm')
        data = (f.parent / 'harm').read_bytes()
    if where == 'weights': m.write(f, data=data)
    if where == 'config': m.write(f, data)
    if where == 'after the header': m.write(f, data=m.packed(m.head, data + m.body[len(data):]))
    if where == 'beside':
        m.write(f)
        for n in ('model.pkl', 'export.pkl', 'config.pkl', 'weights.pth'): (f / n).write_bytes(data)
    return where == 'after the header'


def weights_name(m, f, rng, others):
    m.write(f)
    shutil.copytree(f, f.parent / 'else')
    own = next(p.name for p in f.glob('weights-*'))
    c = {**m.config, 'weights': rng.choice([
        f'../else/{own}', f'{f.parent}/else/{own}', f'./{own}', f'{own}/', f'{own}\x00', f'{own}\n', own.upper(), own.replace('weights', 'WEIGHTS'), f'x/../{own}', f'\\{own}', '.', '..', '', '/', '/dev/zero',
        'config.json', own[:-1], 'weights-0123456789abcdef.safetensors', f'file://{f}/{own}', '~/x', '\uff0e\uff0e/x', own.replace('-', '\u2010'), 'con', 'x' * 10**5, None, 7, [own], {own: own}])}
    (f / 'config.json').write_text(json.dumps(c))


def special_file(m, f, rng, others):
    weights = m.write(f)
    shutil.copytree(f, f.parent / 'else')
    file = rng.choice([weights, f / 'config.json'])
    real = f.parent / 'else' / file.name
    file.unlink()
    how = rng.randrange(9)
    if how == 0: file.mkdir()
    if how == 1: os.mkfifo(file)
    if how == 2: file.symlink_to(rng.choice(['/dev/zero', '/dev/random', '/dev/full', '/dev/stdin', '/proc/self/mem', '/proc/kmsg', '/etc/passwd', '/etc/shadow', '/']))
    if how == 3: file.symlink_to(real)
    if how == 4: file.symlink_to(os.path.relpath(real, f))
    if how == 5: file.symlink_to(file.name)
    if how == 6: file.symlink_to('nowhere')
    if how == 7: shutil.copy(real, f / 'inside'); file.symlink_to('inside') # allowed
    if how == 8: file.touch()


def folder_itself(m, f, rng, others):
    how = rng.randrange(5)
    if how == 0: f.write_text('a file')
    if how == 1: m.write(f.parent / 'else'); f.symlink_to('else') # allowed
    if how == 2: f.symlink_to(f.name)
    if how == 3: os.mkfifo(f)
    if how == 4: f.mkdir()


def untouched(m, f, rng, others): m.write(f)


MUTATIONS = [config_bits, config_cut, config_value, config_value, config_keys, config_numbers, config_text, config_version, config_strategies, config_arch, config_sizes, weights_bits, weights_bits,
             weights_cut, weights_longer, header_length, header_shape, header_huge, header_dtype, header_offsets, header_names, header_text, weights_swapped, config_swapped, pickled, weights_name,
             special_file, folder_itself, untouched]


def register_tiny():
    "Make a network known to timm that is built in a few milliseconds."
    from timm.models import build_model_with_cfg, register_model
    from timm.models.resnet import BasicBlock, ResNet

    @register_model
    def fuzz_tiny(pretrained=False, **kwargs):
        cfg = dict(input_size=(3, 32, 32), mean=(0.5,) * 3, std=(0.5,) * 3, num_classes=10, pool_size=(1, 1), first_conv='conv1', classifier='fc')
        kwargs |= dict(pretrained_cfg=cfg, block=BasicBlock, layers=(1, 1, 1, 1), channels=(4, 4, 8, 8), stem_width=4)
        return build_model_with_cfg(ResNet, 'fuzz_tiny', pretrained, **kwargs)


def prepare(root, seed):
    "Save three small models and return what makes case number i of them."
    import warnings
    warnings.filterwarnings('ignore')
    import torch
    from amf_nb.core import load_amf
    register_tiny()
    from amf_nb.test_utils import toy_learner
    torch.set_num_threads(1)
    for name, kwargs in dict(a=dict(k=3, arch='fuzz_tiny'), b=dict(k=2, arch='fuzz_tiny', policy='cnn', fusion='probs'), c=dict(k=1)).items():
        if (root / name).exists(): continue
        learn = toy_learner(**kwargs)
        for p in learn.model.parameters(): torch.nn.init.normal_(p, 0, 0.1) if p.ndim < 2 else None
        learn.save_amf(root / name)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    says = lambda learn: learn.model.eval()(x).detach()
    models = {n: Model(root / n) for n in 'abc'}
    right = {n: says(load_amf(root / n)) for n in 'abc'}

    def case(i, where):
        rng = random.Random(f'{seed}-{i}')
        n, mutate, folder = rng.choice('aaaabbbbc'), MUTATIONS[i % len(MUTATIONS)], where / 'model'
        other = mutate(models[n], folder, rng, [models[o] for o in 'abc' if o != n])

        def judge(learn):
            got = says(learn)
            if not other and not torch.equal(got, right[n]): return 'wrong outputs', f'{got} instead of {right[n]}'
            if mutate is untouched and len(learn.dls.vocab) != 3: return 'wrong outputs', str(learn.dls.vocab)
        return mutate.__name__, folder, load_amf, judge
    return case


if __name__ == '__main__':
    main(prepare, __doc__, 'bench/soak/models.json', 20_000, 1024, ['torch', 'timm', 'fastai', 'safetensors'])
