"A few hundred hostile model folders and image files; tests/soak holds the whole campaigns."
import json
import subprocess
import sys
from pathlib import Path

import pytest

SOAK = Path(__file__).parent / 'soak'


@pytest.mark.parametrize('what, n', [('models', 300), ('images', 150)])
def test_hostile_files(what, n, tmp_path):
    "Each is loaded right or refused with an exception that names it; nothing runs, hangs, crashes or is written."
    run = subprocess.run([sys.executable, '-W', 'ignore', SOAK / f'fuzz_{what}.py', '--n', str(n), '--seed', '7', '--out', tmp_path / 'out.json'], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    res = json.loads((tmp_path / 'out.json').read_text())
    assert res['cases'] == n and res['violations'] == 0
    assert res['outcomes']['loaded'] > n // 20 and res['outcomes']['ValueError'] > n // 5


def test_the_campaign_sees_what_goes_wrong(tmp_path):
    "A loader that unpickles, writes, hangs, dies, lies or takes all memory is found out."
    code = f'''
import sys
sys.path.insert(0, {str(SOAK)!r})
import campaign
campaign.HANG = 1
def prepare(root, seed):
    import os, pickle, time
    faults = dict(pickle=lambda p: pickle.loads(b"cos\\ngetpid\\n."), write=lambda p: (root / "stray").write_text("x"), sleep=lambda p: time.sleep(1.5), stuck=lambda p: time.sleep(60), die=lambda p: os.abort(),
                  lie=lambda p: 2, type=lambda p: {{}}[str(p)], unnamed=lambda p: int("x"), memory=lambda p: bytes(10**9), fine=lambda p: 1, refused=lambda p: int(str(p)))
    def case(i, where):
        kind = [*faults][i]
        return kind, where / "file", faults[kind], lambda got: None if got == 1 else ("wrong outputs", str(got)[:9])
    return case
if __name__ == "__main__": campaign.main(prepare, "", "out.json", 11, 300, [])
'''
    (tmp_path / 'faults.py').write_text(code)
    run = subprocess.run([sys.executable, 'faults.py'], cwd=tmp_path, capture_output=True, text=True)
    kinds = {k: next(iter(c)) for k, c in json.loads((tmp_path / 'out.json').read_text())['kinds'].items()}
    assert run.returncode == 1
    assert kinds == dict(pickle='code run or file written', write='code run or file written', sleep='hang', stuck='hang', die='crash', lie='wrong outputs', type='KeyError', unnamed='unnamed file',
                         memory='MemoryError', fine='loaded', refused='ValueError')
