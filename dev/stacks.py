#!/usr/bin/env python
"""Run the tests on the stack of this environment and keep the outcome.

.venv/bin/python dev/stacks.py stack
.venv-fork/bin/python dev/stacks.py fork
.venv-full/bin/python dev/stacks.py full

The word is that of a file in requirements/, whose versions must be installed.
benchmarks/results/stacks.json has a row of each, which this replaces. The table of
docs/versions.md is printed by it without a word.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'benchmarks'))
import record  # noqa: E402

STACKS = ('stack', 'full', 'fork')


def pins(stack: str) -> list:
    """The requirements of a stack, NAME==VERSION each.

    Exits with one line where another version is installed, or none.
    """
    lines = (ROOT / 'requirements' / f'{stack}.txt').read_text().splitlines()
    wanted = [line.split()[0] for line in lines if not line.startswith('#')]
    for pin in wanted:
        name, version = pin.split('==')
        try:
            found = metadata.version(name)
        except metadata.PackageNotFoundError:
            found = 'none'
        if found != version:
            sys.exit(f'error: {stack} is {pin}, found {found}; run this with the '
                     f'Python of the environment that make setup STACK={stack} '
                     'makes')
    return wanted


def run_tests(report: Path) -> int:
    """Run all tests; pytest's exit status."""
    return subprocess.run([sys.executable, '-m', 'pytest', f'--junitxml={report}'],
                          cwd=ROOT).returncode


def counts(report: Path) -> dict:
    """Numbers of tests by outcome, and the reasons of the skipped ones."""
    suite = ElementTree.parse(report).getroot().find('testsuite')
    failed = int(suite.get('failures')) + int(suite.get('errors'))
    skipped = int(suite.get('skipped'))
    reasons = Counter(skip.get('message') for skip in suite.iter('skipped'))
    return dict(
        passed=int(suite.get('tests')) - failed - skipped, failed=failed,
        skipped=skipped, reasons_of_the_skipped=dict(reasons.most_common()))


def table(rows: dict) -> str:
    """The rows in Markdown."""
    lines = ['| installed | Python | PyTorch | passed | failed | skipped | date |',
             '|---|---|---|---|---|---|---|']
    for row in rows.values():
        cells = [', '.join(pin.replace('==', ' ') for pin in row['installed']),
                 row['versions']['python'], row['versions']['torch'],
                 row['passed'], row['failed'], row['skipped'], row['date']]
        lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
    return '\n'.join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0])
    parser.add_argument('stack', choices=STACKS, nargs='?')
    stack = parser.parse_args().stack
    path = record.RESULTS / 'stacks.json'
    if stack is None:
        print(table(json.loads(path.read_text())))
        return 0
    installed = pins(stack)
    origin = record.origin()
    origin['versions'].update(numpy=np.__version__, opencv=cv2.__version__)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        status = run_tests(report)
        if not report.exists():
            return status
        row = dict(installed=installed, **origin, **counts(report))
    rows = json.loads(path.read_text()) if path.exists() else {}
    rows[stack] = row
    record.save('stacks', {name: rows[name] for name in STACKS if name in rows})
    return status


if __name__ == '__main__':
    sys.exit(main())
