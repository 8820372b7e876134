"""Processes that begin with the library imported and nothing else done.

A server imports it once, in seconds; each process is a copy of the server, made in milliseconds. For claims
about another process than this one. Where the claim is how a process starts, a test starts one as a user does."""
import multiprocessing
import os
import sys
import tempfile
from pathlib import Path

import numpy as np

COPIES = 'forkserver' in multiprocessing.get_all_start_methods()  # elsewhere each process imports for itself
CONTEXT = multiprocessing.get_context('forkserver' if COPIES else 'spawn')
if COPIES: CONTEXT.set_forkserver_preload(['amf_nb.cli', 'amf_nb.test_utils'])


def _main(code, args, files, env, file_size, method):
    "What the process does: its streams are the two `files`, and it executes `code` as `python -c` would."
    for fd, file in enumerate(files, 1): os.dup2(os.open(file, os.O_WRONLY), fd)
    multiprocessing.set_start_method(method, force=True)  # the usual one, for the processes that this one starts
    os.environ.update(env)
    np.random.seed()  # as in a process of its own: no state of the server's
    sys.argv[:] = ['-c', *args]
    if file_size:
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_size, file_size))
    exec(compile(code, '<string>', 'exec'), {'__name__': '__main__'})


class Ready:
    "A process that executes `code` with the arguments `args`; no file that it writes grows beyond `file_size` bytes."
    def __init__(self, code, *args, env={}, file_size=None):
        self.files = []
        for _ in range(2):
            fd, file = tempfile.mkstemp()
            os.close(fd)
            self.files.append(file)
        given = code, [*map(str, args)], self.files, env, file_size, multiprocessing.get_start_method()
        self.process = CONTEXT.Process(target=_main, args=given)
        self.process.start()
        self.pid = self.process.pid

    def poll(self):
        "The exit status, or None while it runs."
        return self.process.exitcode

    def kill(self):
        "As a lack of memory would end it."
        self.process.kill()

    def communicate(self, timeout=None):
        "Wait for the end; the text of its output and of its error stream."
        self.process.join(timeout)
        if self.poll() is None: raise TimeoutError(f'no end in {timeout} s')
        said = [Path(f).read_text(encoding='utf-8') for f in self.files]
        for f in self.files: os.unlink(f)
        self.returncode, self.stdout, self.stderr = self.poll(), *said
        return self.stdout, self.stderr


def ready(code, *args, **kwargs):
    "The process, which has ended, with `returncode`, `stdout` and `stderr`."
    p = Ready(code, *args, **kwargs)
    p.communicate(300)
    return p
