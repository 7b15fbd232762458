"""Count which classes occur in the labels of a data loader."""
from collections import Counter
from typing import Iterable, List, Sequence

from .pair_reader import Pair, PairReader

__all__ = ['LabelCounts']

SHOWN = 10
# Above this, training sees next to no labelled pixel.
LARGEST_IGNORED = 0.99


class LabelCounts:
    """Hold the number of pixels of each id in a set of labels.

    Attributes:
        read: number of labels that were read.
        total: number of labels of the set.
        raw: number of pixels of each id in the files.
        classes: the same of each class id after loading.
        ignored: class ids of ignored pixels.
        exact: whether these are the classes that training sees; see PairReader.
        reduced: whether the data set has ``reduce_zero_label``.
    """

    def __init__(self):
        self.read = self.total = 0
        self.raw, self.classes = Counter(), Counter()
        self.ignored = set()
        self.exact, self.reduced = True, False

    def add_set(self, reader: PairReader, samples: Iterable[dict]) -> None:
        """Note a data set, before its pairs."""
        self.total += sum(bool(sample.get('seg_map_path')) for sample in samples)
        self.ignored |= reader.ignored
        self.exact &= reader.exact
        self.reduced |= reader.reduces_zero

    def add(self, pair: Pair) -> None:
        """Count the pixels of a pair."""
        if pair.classes is not None:
            self.read += 1
            self.raw.update(pair.raw)
            self.classes.update(pair.classes)

    def missing(self, num_classes: int) -> List[int]:
        """Return the classes without a pixel."""
        return [i for i in range(num_classes) if not self.classes[i]]

    def ignored_share(self) -> float:
        """Return the fraction of pixels that are ignored, 0 to 1."""
        ignored = sum(self.classes[i] for i in self.ignored)
        return ignored / max(sum(self.classes.values()), 1)

    def is_ignored(self) -> bool:
        """Return whether nearly all pixels are ignored."""
        return self.ignored_share() > LARGEST_IGNORED

    def complaint(self, loader: str, names: Sequence[str]) -> str:
        """Return one line if a class is missing or nearly all is ignored, or ''.

        It names the ids in the files, and a remedy.

        Args:
            loader: key of the data loader.
            names: of all classes.
        """
        missing = self.missing(len(names))
        if not self.read or not (missing or self.is_ignored()):
            return ''
        labels = (f'{self.read} labels' if self.read == self.total else
                  f'{self.read} of {self.total} labels that were read')
        if self.is_ignored():
            share = percent(self.ignored_share())
            fault = f'{share} of all pixels are ignored in the {labels}'
        else:
            fault = f'{_listed(missing, names)} in none of the {labels}'
        return (f'{loader}: {fault}, whose files hold the values {self.shares()}; '
                f'{self._remedy(len(names))}')

    def shares(self) -> str:
        """Return the most frequent ids in the files, each with its share of pixels."""
        total = max(sum(self.raw.values()), 1)
        shown = sorted(value for value, _ in self.raw.most_common(SHOWN))
        more = len(self.raw) - len(shown)
        return ', '.join(f'{value} ({percent(self.raw[value] / total)})'
                         for value in shown) + (f' and {more} others' if more else '')

    def _remedy(self, num_classes: int) -> str:
        """Return what is probably meant, judged by the ids in the files."""
        found = sorted(self.raw)
        classes = list(range(num_classes))
        if self.reduced and set(classes) <= set(found) <= {*classes, 255}:
            return ('set reduce_zero_label=False in the data set, if 0 is a class and '
                    'not to be ignored')
        if len(found) == num_classes and found != classes:
            mapped = ', '.join(f'{raw}: {i}' for i, raw in enumerate(found))
            reduced = (', and set reduce_zero_label=False in the data set'
                       if self.reduced else '')
            return ('if these are the classes in this order, load the labels with '
                    f'LoadSegAnnotations(values={{{mapped}}}){reduced}')
        if found == [0, 255]:
            return ('255 is ignored; if these are masks of one object, load them with '
                    'LoadSegAnnotations(values={0: 0, 255: 1}), give the data set two '
                    'classes and set num_classes=2')
        return 'add labels with what is missing'


def percent(share: float) -> str:
    """Return a share of 0 to 1 in percent, with two digits after the point."""
    if 0 < share < 5e-5:
        return '< 0.01 %'
    return f'{100 * share:.2f} %'


def _listed(missing: List[int], names: Sequence[str]) -> str:
    """Return such as 'class 1 (sky) occurs', with at most five classes."""
    shown = ', '.join(f'{i} ({names[i]})' for i in missing[:5])
    more = f' and {len(missing) - 5} others' if len(missing) > 5 else ''
    if len(missing) == 1:
        return f'class {shown} occurs'
    return f'classes {shown}{more} occur'
