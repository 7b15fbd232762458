"""Draw label maps, legends and sheets of pictures."""
from .overlay import colorize, contact_sheet, legend, overlay

__all__ = ['colorize', 'contact_sheet', 'legend', 'overlay']
