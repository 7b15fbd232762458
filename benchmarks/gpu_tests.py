#!/usr/bin/env python
"""Run the tests marked gpu and keep the outcome: benchmarks/gpu_tests.py NAME PATH...

Writes results/NAME_GPU.json: numbers of tests by outcome, in all and for each
backend of an operator, and the first line of what each failed test says. The words
after NAME are pytest's.
"""
import re
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from xml.etree import ElementTree

import record
import stacks
import torch

# Matches the names that tests/ops/test_gpu_backends.py gives its tests.
BACKEND = re.compile(r'\[(\w+-(?:torch|triton|cuda))\b')


def outcome(case: ElementTree.Element) -> str:
    """Return passed, failed or skipped of a test case of a JUnit report."""
    kinds = {child.tag for child in case}
    if kinds & {'failure', 'error'}:
        return 'failed'
    return 'skipped' if 'skipped' in kinds else 'passed'


def by_backend(report: Path) -> dict:
    """Return numbers of tests by backend of an operator and by outcome."""
    found = defaultdict(lambda: dict(passed=0, failed=0, skipped=0))
    for case in ElementTree.parse(report).getroot().iter('testcase'):
        name = BACKEND.search(case.get('name'))
        if name:
            found[name.group(1)][outcome(case)] += 1
    return dict(found)


def messages(report: Path) -> dict:
    """Return the first line of what each failed test says, by its name."""
    return {
        f'{case.get("classname")}.{case.get("name")}':
        (child.get('message') or '').split('\n')[0]
        for case in ElementTree.parse(report).getroot().iter('testcase')
        for child in case if child.tag in ('failure', 'error')}


def main() -> int:
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    name, *words = sys.argv[1:]
    words = ['-m', 'gpu', '-rs', *words]
    if not torch.cuda.is_available():
        sys.exit('error: there is no GPU')
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / 'report.xml'
        status = subprocess.run(
            [sys.executable, '-m', 'pytest', f'--junitxml={report}', *words],
            cwd=stacks.ROOT).returncode
        if not report.exists():
            return status or 1
        device = record.device_words(torch.device('cuda'))
        record.write('_'.join([name, *device]), dict(
            **stacks.counts(report), backends_tested=by_backend(report),
            failures=messages(report)))
    return status


if __name__ == '__main__':
    sys.exit(main())
