"""What a network sees, drawn."""
from .overlay import colorize, contact_sheet, legend, overlay

__all__ = ['colorize', 'contact_sheet', 'legend', 'overlay']
