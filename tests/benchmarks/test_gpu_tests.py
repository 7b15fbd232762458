"""benchmarks/gpu_tests.py counts the tests in a report of pytest by backend."""
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / 'benchmarks'))
import gpu_tests  # noqa: E402
import record  # noqa: E402

REPORT = """<?xml version="1.0" encoding="utf-8"?>
<testsuites><testsuite tests="5" failures="1" errors="1" skipped="1">
<testcase classname="tests.ops.a" name="test_x[encode-triton-torch.float32]"/>
<testcase classname="tests.ops.a" name="test_x[encode-triton-torch.float16]">
<failure message="AssertionError: grad_x: 1.0&#10;assert">text</failure></testcase>
<testcase classname="tests.ops.a" name="test_x[encode-cuda]">
<skipped message="not built"/></testcase>
<testcase classname="tests.ops.a" name="test_y[torch.float32-upsampled_cross_entropy]"/>
<testcase classname="tests.ops.a" name="test_z[upsampled_cross_entropy-torch]">
<error message="RuntimeError: no memory"/></testcase>
</testsuite></testsuites>
"""


@pytest.fixture
def report(tmp_path):
    path = tmp_path / 'report.xml'
    path.write_text(REPORT)
    return path


def test_summary_counts_outcomes_and_keeps_first_lines(report):
    assert gpu_tests.summary(report) == dict(
        passed=2, failed=2, skipped=1, reasons_of_the_skipped={'not built': 1},
        backends_tested={
            'encode-triton': dict(passed=1, failed=1, skipped=0),
            'encode-cuda': dict(passed=0, failed=0, skipped=1),
            'upsampled_cross_entropy-torch': dict(passed=0, failed=1, skipped=0)},
        failures={
            'tests.ops.a.test_x[encode-triton-torch.float16]':
                'AssertionError: grad_x: 1.0',
            'tests.ops.a.test_z[upsampled_cross_entropy-torch]':
                'RuntimeError: no memory'})


def test_record_of_a_gpu_says_what_computes(monkeypatch):
    from mmseg_encstdc.ops import __main__ as table
    monkeypatch.setattr(table, 'rows', lambda: iter([
        ('operator', 'device', 'backend', 'state'), ('encode', 'cpu', 'torch', 'a'),
        ('encode', 'cuda:0', 'triton', 'b')]))
    assert record.backends() == [
        dict(operator='encode', device='cuda:0', backend='triton', state='b')]
    assert 'backends' not in record.origin(kind='cpu')
