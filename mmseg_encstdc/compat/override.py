"""Read whether this package replaces classes of MMSegmentation."""
import os

from .versions import StackError

__all__ = ['OVERRIDE', 'replaces_stock']

# Environment variable; 0 keeps MMSegmentation's classes.
OVERRIDE = 'MMSEG_ENCSTDC_OVERRIDE'


def replaces_stock() -> bool:
    """Return whether our classes replace MMSegmentation's of the same name.

    Raises:
        StackError: unless the variable is unset, empty, 0 or 1.
    """
    asked = os.environ.get(OVERRIDE) or '1'
    if asked not in ('0', '1'):
        raise StackError(f'{OVERRIDE}={asked} is not known; give 1 to replace '
                         "MMSegmentation's entries, which is the default, or 0")
    return asked == '1'
