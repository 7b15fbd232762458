"""Draw label maps, legends and grids of images."""
from .overlay import colorize, contact_sheet, legend, overlay

__all__ = ['colorize', 'contact_sheet', 'legend', 'overlay']
