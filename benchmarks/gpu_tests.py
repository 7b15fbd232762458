#!/usr/bin/env python
"""Run the tests marked gpu and keep the outcome: benchmarks/gpu_tests.py NAME PATH...

Writes results/NAME_GPU.json: numbers of tests by outcome, in all and for each
backend of an operator, the reasons of the skipped ones, and the first line of what
each failed test says. The words after NAME are pytest's.
"""
import re
import subprocess
import sys
import tempfile
from collections import Counter, defaultdict
from pathlib import Path
from xml.etree import ElementTree

import record
import torch

# Matches the names that tests/ops/test_gpu_backends.py gives its tests.
BACKEND = re.compile(r'\[(\w+-(?:torch|triton|cuda))\b')
OUTCOMES = dict(failure='failed', error='failed', skipped='skipped')


def summary(report: Path) -> dict:
    """Return what the result has of a JUnit report."""
    total, reasons, failures = Counter(), Counter(), {}
    backends = defaultdict(lambda: dict(passed=0, failed=0, skipped=0))
    for case in ElementTree.parse(report).getroot().iter('testcase'):
        child = next((each for each in case if each.tag in OUTCOMES), None)
        outcome = 'passed' if child is None else OUTCOMES[child.tag]
        message = '' if child is None else (child.get('message') or '').split('\n')[0]
        total[outcome] += 1
        if outcome == 'skipped':
            reasons[message] += 1
        elif outcome == 'failed':
            failures[f'{case.get("classname")}.{case.get("name")}'] = message
        if name := BACKEND.search(case.get('name')):
            backends[name.group(1)][outcome] += 1
    return dict(**{key: total[key] for key in ('passed', 'failed', 'skipped')},
                reasons_of_the_skipped=dict(reasons.most_common()),
                backends_tested=dict(backends), failures=failures)


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    if not torch.cuda.is_available():
        sys.exit('error: there is no GPU')
    name, *words = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        status = subprocess.run(
            [sys.executable, '-m', 'pytest', f'--junitxml={report}', '-m', 'gpu', '-rs',
             *words], cwd=Path(__file__).resolve().parents[1]).returncode
        if not report.exists():
            return status or 1
        device = record.device_words(torch.device('cuda'))
        record.write('_'.join([name, *device]), summary(report))
    return status


if __name__ == '__main__':
    sys.exit(main())
