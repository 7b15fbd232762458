"""Define building blocks of both networks, which know nothing of heads."""
from .dropout import build_dropout
from .encoding import ContextEncoding, Encoding

__all__ = ['ContextEncoding', 'Encoding', 'build_dropout']
