"""What the libraries print, and what of it is left out."""
from plugin_scripts import run_script

from mmseg_encstdc.compat import notices


def test_the_import_prints_nothing(root, tmp_path):
    assert run_script(root, tmp_path, 'import mmseg_encstdc') == []


def test_only_the_notices_are_left_out_of_what_is_printed(capsys):
    with notices.without_notices():
        print(notices.NOTICES[0])
        print('kept')
    assert capsys.readouterr().out == 'kept\n'
