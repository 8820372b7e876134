"The property tests of tests/test_frozen.py on 500 random learners; writes what came of it."
import argparse
import json
import os
import re
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

if __name__ == '__main__':
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument('--out', default='bench/soak/frozen.json', help='file of the summary')
    out, test, start = Path(p.parse_args().out), Path(__file__).parents[1] / 'test_frozen.py', time.time()
    run = subprocess.run([sys.executable, '-m', 'pytest', '-q', '--hypothesis-show-statistics', str(test)], env={**os.environ, 'HYPOTHESIS_PROFILE': 'soak'}, capture_output=True, text=True)
    passing, failing = (sum(map(int, re.findall(rf'(\d+) {what}', run.stdout))) for what in ('passing', 'failing'))
    res = dict(command='python tests/soak/frozen.py', examples=passing + failing, violations=failing, outcome=run.stdout.strip().splitlines()[-1], seconds=round(time.time() - start),
               versions={'python': sys.version.split()[0], **{k: version(k) for k in ('hypothesis', 'torch', 'fastai', 'timm')}})
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(res, indent=1) + '\n')
    print(run.stdout if run.returncode else res)
    sys.exit(run.returncode)
