"""Let MMEngine find this package's configs: ``mmseg_encstdc::NAME.py``."""
from ..config_files import config_file

__all__ = ['find_own_configs']

PACKAGE = __package__.split('.')[0]


def find_own_configs() -> None:
    """Let ``_base_`` name a config of this package: ``mmseg_encstdc::NAME.py``.

    MMEngine looks up the packages of a table of its own, takes names in a
    folder only, and finds none in a checkout that is merely on the path. What
    such a config defines is looked up in MMSegmentation's registries, whatever
    the inheriting one has as its default scope.
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
