"README.md and the modules are what the notebooks say."
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "bench"))


def test_readme_is_made_from_the_index():
    from readme import readme
    assert (ROOT / "README.md").read_text() == readme(), "run `make readme`"


def test_commands_start():
    for command in ("amf_train", "amf_predict"):
        out = subprocess.run([Path(sys.executable).with_name(command), "--help"], capture_output=True, text=True)
        assert out.returncode == 0 and "usage: " + command in out.stdout


def test_star_import_brings_only_public_names():
    code = "before = set(dir()); from amf_nb.core import *; import amf_nb.core as c; print(set(dir()) - before - {'before', 'c'} == set(c.__all__))"
    assert subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True).stdout.strip() == "True"
