"README.md and the modules are what the notebooks say."
import subprocess
import sys
from pathlib import Path

from ready import ready

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "bench"))


def test_readme_is_made_from_the_index():
    from readme import readme
    assert (ROOT / "README.md").read_text() == readme(), "run `make readme`"


def test_a_command_starts_and_prints_nothing_else():
    out = subprocess.run([script("amf_train"), "--help"], capture_output=True, text=True)
    assert (out.returncode, out.stderr) == (0, "") and "usage: amf_train" in out.stdout
    assert "--valid-pct" in out.stdout


def test_the_script_of_another_command():
    code = "import runpy, sys; sys.argv[:] = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__')"
    out = ready(code, script("amf_predict"), "--help")
    assert out.returncode == 0 and "usage: amf_predict" in out.stdout


def script(command): return Path(sys.executable).with_name(command)


def test_star_import_brings_only_public_names_and_prints_nothing_else():
    code = "before = set(dir()); from amf_nb.core import *; import amf_nb.core as c; print(set(dir()) - before - {'before', 'c'} == set(c.__all__))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (out.stdout.strip(), out.stderr) == ("True", "")
