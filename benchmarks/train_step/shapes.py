"""The shape of a batch."""
from typing import NamedTuple

from mmseg_encstdc.errors import InputError

__all__ = ['Shape']

LARGEST = 2**16  # of the numbers of a shape


class Shape(NamedTuple):
    """Images (B, 3, H, W) with labels (B, H, W)."""
    batch: int
    height: int
    width: int

    @classmethod
    def parse(cls, text: str) -> 'Shape':
        """The shape written as BxHxW.

        Raises:
            InputError: when it is not written so, or a number is not accepted.
        """
        words = text.split('x')
        if len(words) == 3 and all(
                word.isascii() and word.isdecimal() and len(word) <= 5
                for word in words):
            shape = cls(*map(int, words))
            if 1 <= min(shape) and max(shape) <= LARGEST:
                return shape
        raise InputError(
            f'--shape {text} is no shape; give BxHxW, whole numbers of at least '
            f'1 and at most {LARGEST}, such as 2x512x1024')

    def __str__(self) -> str:
        return 'x'.join(map(str, self))

    @property
    def pixels(self) -> int:
        """H W, of one image."""
        return self.height * self.width
