"""Let a config inherit this package's configs by name."""
from ..config_files import config_file

__all__ = ['find_own_configs']

PACKAGE = __package__.split('.')[0]


def find_own_configs() -> None:
    """Let ``_base_`` name a config of this package: ``mmseg_encstdc::NAME.py``.

    MMEngine accepts only packages of its own table, names with a folder, and
    installed packages. The types of such a config belong to the scope ``mmseg``,
    whatever the default scope of the inheriting config.
    """
    from mmengine.config import Config
    stock = Config._get_cfg_path
    if getattr(stock, 'finds', None) == PACKAGE:
        return

    def get_cfg_path(cfg_path, filename):
        package, mark, name = cfg_path.partition('::')
        if mark and package == PACKAGE:
            return config_file(name), 'mmseg'
        return stock(cfg_path, filename)

    get_cfg_path.finds = PACKAGE
    Config._get_cfg_path = staticmethod(get_cfg_path)
