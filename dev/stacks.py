#!/usr/bin/env python
"""Run all tests with the libraries of this environment, and record the outcome.

.venv/bin/python dev/stacks.py stack
.venv-fork/bin/python dev/stacks.py fork
.venv-full/bin/python dev/stacks.py full

The argument names a file in requirements/, whose versions must be installed. The
outcome replaces a row of benchmarks/results/stacks.json. Without an argument, print
the table of docs/versions.md.
"""
import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from importlib import metadata
from pathlib import Path
from typing import List
from xml.etree import ElementTree

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'benchmarks'))
import record  # noqa: E402

STACKS = ('stack', 'full', 'fork')


def pins(stack: str) -> List[str]:
    """Return the requirements of a stack, NAME==VERSION each.

    Ends the program with one line if another version is installed, or none.
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


def counts(report: Path) -> dict:
    """Count the tests of a JUnit report by outcome, and the reasons of skips."""
    suite = ElementTree.parse(report).getroot().find('testsuite')
    failed = int(suite.get('failures')) + int(suite.get('errors'))
    skipped = int(suite.get('skipped'))
    reasons = Counter(skip.get('message') for skip in suite.iter('skipped'))
    return dict(
        passed=int(suite.get('tests')) - failed - skipped, failed=failed,
        skipped=skipped, reasons_of_the_skipped=dict(reasons.most_common()))


def table(rows: dict) -> str:
    """Format the rows as a table in Markdown."""
    lines = ['| installed | Python | PyTorch | passed | failed | skipped | date |',
             '|---|---|---|---|---|---|---|']
    for row in rows.values():
        cells = [', '.join(pin.replace('==', ' ') for pin in row['installed']),
                 row['versions']['python'], row['versions']['torch'],
                 row['passed'], row['failed'], row['skipped'], row['date']]
        lines.append('| ' + ' | '.join(map(str, cells)) + ' |')
    return '\n'.join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
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
        status = subprocess.run(
            [sys.executable, '-m', 'pytest', f'--junitxml={report}'],
            cwd=ROOT).returncode
        if not report.exists():
            return status
        row = dict(installed=installed, **origin, **counts(report))
    rows = json.loads(path.read_text()) if path.exists() else {}
    rows[stack] = row
    record.save('stacks', {name: rows[name] for name in STACKS if name in rows})
    return status


if __name__ == '__main__':
    sys.exit(main())
