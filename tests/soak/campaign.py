"""Run many hostile cases in a worker process that is watched: what it opens, how long it takes, how much memory it has, whether it lives."""
import argparse
import gc
import json
import multiprocessing
import os
import resource
import shlex
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from importlib.metadata import version
from pathlib import Path

HANG = 5  # seconds, without those in which other jobs had the processor
FINE = ('loaded', 'ValueError', 'FileNotFoundError', 'OSError')
WATCHED = {'pickle.find_class', 'socket.connect', 'socket.getaddrinfo', 'subprocess.Popen', 'os.system', 'os.exec', 'os.posix_spawn', 'os.fork',
           'os.remove', 'os.rename', 'os.mkdir', 'os.rmdir', 'os.symlink', 'os.link', 'os.truncate', 'os.chmod', 'shutil.rmtree'}


def clock():
    "Seconds that this thread has worked or waited for something, but not for its turn on a processor."
    turn = Path('/proc/thread-self/schedstat')
    waited = int(turn.read_text().split()[1]) / 1e9 if turn.exists() else 0.
    return time.perf_counter() - waited


class Watch:
    "Within the `with` block, `events` collects whatever the interpreter reports of unpickling, writing, connecting and starting programs."
    def __init__(self): self.on, self.events = False, []; sys.addaudithook(self.note)

    def note(self, event, args):
        if not self.on: return
        writes = event == 'open' and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
        if writes or event in WATCHED: self.events.append(f'{event} {str(args[:2])[:200]}')

    def __enter__(self): self.on, self.events = True, []; return self
    def __exit__(self, *exc): self.on = False


def listing(root):
    "Every file, folder and link under `root`, with size and time of change."
    res, todo = {}, [str(root)]
    while todo:
        for e in os.scandir(todo.pop()):
            s = e.stat(follow_symlinks=False)
            res[e.path] = s.st_size, s.st_mtime_ns, s.st_ino
            if e.is_dir(follow_symlinks=False): todo.append(e.path)
    return res


def used_mb():
    "Private writable memory of this process, which RLIMIT_DATA bounds."
    return int(next(l for l in open('/proc/self/status') if l.startswith('VmData')).split()[1]) / 1024


def worker(conn, prepare, root, seed, limit_mb):
    "Answer case numbers with (kind, outcome, text, seconds, peak memory)."
    sys.dont_write_bytecode = True
    for d in ('home', 'tmp', 'cwd', 'case'): (root / d).mkdir(exist_ok=True)
    os.environ.update({k: str(root / 'home') for k in ('HOME', 'XDG_CACHE_HOME', 'HF_HOME', 'TORCH_HOME')}, TMPDIR=str(root / 'tmp'))
    tempfile.tempdir = str(root / 'tmp')
    os.chdir(root / 'cwd')
    case, watch = prepare(root, seed), Watch()
    bound = int((used_mb() + limit_mb) * 2**20)
    resource.setrlimit(resource.RLIMIT_DATA, (bound, bound))
    gc.collect()
    gc.freeze() # what was imported need not be looked at again
    conn.send('ready')
    while (i := conn.recv()) is not None:
        shutil.rmtree(root / 'case')
        (root / 'case').mkdir()
        kind, target, load, judge = case(i, root / 'case')
        conn.send(kind)
        before, start = listing(root), clock()
        with watch:
            try: outcome, got, text = 'loaded', load(target), ''
            except BaseException as e: outcome, got, text = type(e).__name__, e, str(e)
        seconds = max(getattr(load, 'times', None) or [clock() - start])
        if watch.events: outcome, text = 'code run or file written', watch.events[0]
        elif listing(root) != before: outcome, text = 'stray file', str({*listing(root).items()} ^ {*before.items()})[:300]
        elif seconds > HANG: outcome, text = 'hang', f'{seconds:.1f} s'
        elif outcome == 'loaded': outcome, text = judge(got) or ('loaded', '')
        elif isinstance(got, OSError) and outcome != 'FileNotFoundError': outcome = 'OSError'
        if outcome in FINE[1:]:
            cause = got.__cause__
            if isinstance(cause, MemoryError) or 'alloc' in f'{text}{cause}'.lower(): outcome = 'memory'
            elif str(target) not in text: outcome, text = 'unnamed file', text[:300]
        del got
        conn.send((outcome, text[:300], seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


class Workers:
    "One worker at a time, started again when it dies or hangs."
    def __init__(self, *args): self.args, self.proc = args, None

    def start(self):
        ctx = multiprocessing.get_context('spawn')
        self.conn, there = ctx.Pipe()
        self.proc = ctx.Process(target=worker, args=(there, *self.args), daemon=True)
        self.proc.start()
        there.close()
        if not self.conn.poll(300) or self.conn.recv() != 'ready': raise RuntimeError('the worker does not start')

    def ask(self, i):
        "(kind, outcome, text, seconds, MB) of case `i`."
        if self.proc is None: self.start()
        kind = 'making the case'
        try:
            self.conn.send(i)
            if not self.conn.poll(60): return self.stop(kind, 'hang', 'no case in 60 s')
            kind = self.conn.recv()
            if not self.conn.poll(4 * HANG): return self.stop(kind, 'hang', f'no answer in {4 * HANG} s')
            return (kind, *self.conn.recv())
        except (EOFError, ConnectionError): return self.stop(kind, 'crash', '')

    def stop(self, kind, outcome, text):
        self.proc.kill()
        self.proc.join()
        text, self.proc = text or f'exit status {self.proc.exitcode}', None
        return kind, outcome, text, 0., 0.


def main(prepare, doc, out, n, limit_mb, packages):
    "The command: run `n` cases, print and write a summary; the exit status is 1 if any case ended in another way than it may."
    p = argparse.ArgumentParser(description=doc)
    p.add_argument('--n', type=int, default=n, help='cases')
    p.add_argument('--seed', type=int, default=0, help='of the mutations')
    p.add_argument('--out', default=out, help='file of the summary')
    p.add_argument('--only', type=int, help='run this one case and say what came of it')
    a = p.parse_args()
    root = Path(tempfile.mkdtemp(prefix='fuzz'))
    workers, kinds, odd, slow, peak, start = Workers(prepare, root, a.seed, limit_mb), defaultdict(Counter), [], (0., ''), 0., time.time()
    for i in range(a.n) if a.only is None else [a.only]:
        kind, outcome, text, seconds, mb = workers.ask(i)
        if a.only is not None: print(kind, outcome, text, f'{seconds:.3f} s')
        kinds[kind][outcome] += 1
        slow, peak = max(slow, (seconds, f'{kind}, case {i}')), max(peak, mb)
        if outcome not in FINE:
            odd.append(dict(case=i, kind=kind, outcome=outcome, text=text.replace(str(root), '.')))
            print('case', i, kind, outcome, text, flush=True)
    if workers.proc: workers.conn.send(None); workers.proc.join()
    shutil.rmtree(root, ignore_errors=True)
    res = dict(command=shlex.join(['python', os.path.relpath(sys.argv[0]), '--n', str(a.n), '--seed', str(a.seed)]), cases=sum(sum(c.values()) for c in kinds.values()), seed=a.seed,
               violations=len(odd), outcomes=dict(sum(kinds.values(), Counter()).most_common()), kinds={k: dict(c.most_common()) for k, c in sorted(kinds.items())},
               slowest_seconds=round(slow[0], 3), slowest_case=slow[1], peak_memory_mb=round(peak), memory_bound_mb=f'{limit_mb} above what the started worker has',
               hang_bound_seconds=HANG, seconds=round(time.time() - start), versions={'python': sys.version.split()[0], **{k: version(k) for k in packages}}, examples=odd[:20])
    if a.only is None:
        Path(a.out).parent.mkdir(parents=True, exist_ok=True)
        Path(a.out).write_text(json.dumps(res, indent=1) + '\n')
    print({k: res[k] for k in ('cases', 'violations', 'outcomes', 'slowest_seconds', 'slowest_case', 'peak_memory_mb', 'seconds')})
    sys.exit(bool(odd))
