"""Define the Encoding layer, the context encoding module and dropout."""
from .dropout import build_dropout
from .encoding import ContextEncoding, Encoding

__all__ = ['ContextEncoding', 'Encoding', 'build_dropout']
