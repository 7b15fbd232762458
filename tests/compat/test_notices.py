"""Test which output of the libraries is suppressed."""
from plugin_scripts import run_script

from mmseg_encstdc.compat import notices


def test_import_prints_nothing(root, tmp_path):
    assert run_script(root, tmp_path, 'import mmseg_encstdc') == []


def test_without_notices_removes_only_notices(capsys):
    with notices.without_notices():
        print(notices.NOTICES[0])
        print('kept')
    assert capsys.readouterr().out == 'kept\n'
