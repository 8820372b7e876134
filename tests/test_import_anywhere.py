"The library is imported and trains where modules of Unix are missing, as on Windows."
import subprocess
import sys

# what the library must do without; torch and fastai do without them as well
MISSING = ['fcntl', 'resource', 'pwd', 'grp', 'termios']
SCRIPT = '''
import sys
for name in {missing!r}: sys.modules[name] = None  # an import of it raises ImportError from now on
import importlib, pkgutil
import amf_nb
from amf_nb.core import *
for m in pkgutil.walk_packages(amf_nb.__path__, 'amf_nb.'): importlib.import_module(m.name)

from amf_nb.files import locked, peak_memory_mb
from amf_nb.test_utils import toy_learner
import tempfile, pathlib
folder = pathlib.Path(tempfile.mkdtemp())
with locked(folder / 'a') as mine: assert mine
assert peak_memory_mb() is None
learn = toy_learner(2)
learn.fit(1, 1e-2)
learn.save_amf(folder / 'model')
load_amf(folder / 'model')
print('trained', len(learn.recorder.values))
'''


def test_without_the_modules_of_unix():
    code = SCRIPT.format(missing=MISSING)
    res = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert res.returncode == 0, res.stderr[-3000:]
    assert res.stdout.strip() == 'trained 1'
