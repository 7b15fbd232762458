"""Find files in the folders of a data set that it leaves out, or should."""
import os
import os.path as osp
from typing import Iterator, List, NamedTuple, Optional, Set

from mmengine.dataset import BaseDataset

from .sample_checks import is_local

__all__ = ['Strays', 'find_strays', 'is_hidden']

IMAGE_SUFFIXES = ('.bmp', '.jpeg', '.jpg', '.png', '.tif', '.tiff', '.webp')


class Strays(NamedTuple):
    """Hold one line for each kind of stray file.

    Attributes:
        errors: pairs that training would lose without a word.
        warnings: files that do no harm.
    """

    errors: List[str]
    warnings: List[str]


def find_strays(dataset: BaseDataset, samples: List[dict]) -> Strays:
    """Compare the files of a data set with those in its folders.

    Only where the data set lists its folders itself: without ann_file and indices.

    Args:
        dataset: one of MMSegmentation's, or of classes in folders.
        samples: all of it, with ``img_path`` and, if labelled, ``seg_map_path``.
    """
    image_dir = (dataset.data_prefix or {}).get('img_path')
    listed = bool(dataset.ann_file) and not osp.isdir(dataset.ann_file)
    if listed or dataset._indices is not None or not _is_folder(image_dir):
        return Strays([], [])
    if not hasattr(dataset, 'img_suffix'):
        return Strays([], list(filter(None, [_beside_classes(image_dir, samples)])))
    if not isinstance(dataset.img_suffix, str):  # of images without labels
        return Strays([], [])
    folders = _Folders(image_dir, dataset.img_suffix,
                       dataset.data_prefix.get('seg_map_path'), dataset.seg_map_suffix,
                       samples)
    return Strays(
        list(filter(None, [folders.lost_images(), folders.other_labels(),
                           folders.hidden_without_label()])),
        list(filter(None, [folders.hidden_files(), folders.hidden_images(),
                           folders.other_images(), folders.other_formats(),
                           folders.lonely_labels()])))


class _Folders:
    """Compare the files in two folders with a list of samples.

    Each method returns one line about a kind of file, or '' if there is none.

    Args:
        image_dir: folder of the images.
        image_suffix: of the images' names.
        label_dir: folder of the labels, or None.
        label_suffix: of the labels' names.
        samples: see :func:`find_strays`.
    """

    def __init__(self, image_dir: str, image_suffix: str, label_dir: Optional[str],
                 label_suffix: str, samples: List[dict]):
        self.image_dir, self.image_suffix = image_dir, image_suffix
        self.label_dir = label_dir if _is_folder(label_dir) else None
        self.label_suffix = label_suffix
        self.images = list(_names_in(image_dir))
        self.labels = list(_names_in(label_dir)) if self.label_dir else []
        self.used_images = _relative(samples, 'img_path', image_dir)
        self.used_labels = _relative(samples, 'seg_map_path', self.label_dir)

    def lost_images(self) -> str:
        """Report labelled images whose suffix differs in case."""
        lost = [name for name in self._other_case() if self._label_of(name)]
        return _line(
            'would be left out', lost, 'labelled image', self.image_dir,
            f'img_suffix is {self.image_suffix!r}; ' + _one_suffix(
                lost, self.used_images, 'img_suffix', self.image_suffix))

    def other_images(self) -> str:
        """Report images without label whose suffix differs in case."""
        other = [name for name in self._other_case() if not self._label_of(name)]
        return _line('not used', other, 'image', self.image_dir,
                     f'img_suffix is {self.image_suffix!r}')

    def other_labels(self) -> str:
        """Report labels whose suffix differs in case from that of a missing one."""
        size, there = len(self.label_suffix), set(self.labels)
        other = [name for name in self.labels
                 if _differs_in_case(name, self.label_suffix)
                 and name[:-size] + self.label_suffix in self.used_labels - there]
        return _line(
            'would not be found', other, 'label', self.label_dir,
            f'seg_map_suffix is {self.label_suffix!r}; ' + _one_suffix(
                other, self.used_labels & there, 'seg_map_suffix', self.label_suffix))

    def other_formats(self) -> str:
        """Report labelled images with the suffix of another format."""
        stems = {_stem(name) for name in self.used_images}
        other = [name for name in self.images
                 if self._is_other_format(name) and _stem(name) not in stems]
        return _line('not used', other, 'labelled image', self.image_dir,
                     f'img_suffix is {self.image_suffix!r}')

    def lonely_labels(self) -> str:
        """Report labels without an image of any suffix."""
        stems = {_stem(name) for name in self.images}
        size = len(self.label_suffix)
        images = {osp.normpath(osp.join(self.image_dir, name)) for name in self.images}
        lonely = [name for name in self.labels
                  if name.endswith(self.label_suffix) and not is_hidden(name)
                  and name not in self.used_labels and name[:-size] not in stems
                  and osp.normpath(osp.join(self.label_dir, name)) not in images]
        return _line('not used', lonely, 'label', self.label_dir, 'no image fits')

    def hidden_files(self) -> str:
        """Report hidden files, which MMEngine leaves out."""
        hidden = [osp.join(folder, name)
                  for folder, names in ((self.image_dir, self.images),
                                        (self.label_dir, self.labels))
                  for name in names if osp.basename(name).startswith('.')
                  and name.lower().endswith(IMAGE_SUFFIXES)]
        return _line('not used', hidden, 'hidden file')

    def hidden_images(self) -> str:
        """Report images in hidden folders, which MMEngine takes."""
        hidden = [name for name in sorted(self.used_images)
                  if is_hidden(name) and not self._lacks_label(name)]
        return _line('used like the others', hidden, 'image of hidden folders',
                     self.image_dir, 'remove the folder if it is a copy')

    def hidden_without_label(self) -> str:
        """Report images in hidden folders that have no label."""
        hidden = [name for name in sorted(self.used_images)
                  if is_hidden(name) and self._lacks_label(name)]
        return _line('without a label', hidden, 'image of hidden folders',
                     self.image_dir, 'remove the hidden folder')

    def _other_case(self) -> List[str]:
        return [name for name in self.images if not is_hidden(name)
                and _differs_in_case(name, self.image_suffix)
                and name not in self.used_images]

    def _is_other_format(self, name: str) -> bool:
        return (name.lower().endswith(IMAGE_SUFFIXES) and not is_hidden(name)
                and name not in self.used_images
                and not name.lower().endswith(self.image_suffix.lower())
                and self._label_of(name, osp.splitext(name)[1]))

    def _label_of(self, image: str, suffix: Optional[str] = None) -> bool:
        """Return whether the label of an image's name exists."""
        stem = image[:-len(suffix or self.image_suffix)]
        path = osp.join(self.label_dir or '', stem + self.label_suffix)
        return bool(self.label_dir) and osp.isfile(path) and (
            osp.normpath(path) != osp.normpath(osp.join(self.image_dir, image)))

    def _lacks_label(self, image: str) -> bool:
        return bool(self.label_dir) and not self._label_of(image)


def is_hidden(name: str) -> bool:
    """Return whether a relative path has a part that begins with a dot."""
    return any(part.startswith('.') for part in name.split(os.sep))


def _names_in(folder: str) -> Iterator[str]:
    """Yield the relative paths of all files in a folder, sorted in each folder."""
    for root, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        inside = '' if root == folder else osp.relpath(root, folder)
        for name in sorted(files):
            yield osp.join(inside, name)


def _relative(samples: List[dict], key: str, folder: Optional[str]) -> Set[str]:
    """Return the paths of samples relative to a folder."""
    if not folder:
        return set()
    start = osp.join(folder, '')
    return {path[len(start):] if path.startswith(start) else osp.relpath(path, folder)
            for path in (sample[key] for sample in samples if sample.get(key))}


def _is_folder(path: Optional[str]) -> bool:
    return bool(path) and is_local(path) and osp.isdir(path)


def _differs_in_case(name: str, suffix: str) -> bool:
    return name.lower().endswith(suffix.lower()) and not name.endswith(suffix)


def _stem(name: str) -> str:
    return osp.splitext(name)[0]


def _beside_classes(image_dir: str, samples: List[dict]) -> str:
    """Report images in class folders that are not among the samples."""
    used = _relative(samples, 'img_path', image_dir)
    classes = {name.split(os.sep)[0] for name in used}
    other = [name for name in _names_in(image_dir)
             if name not in used and not is_hidden(name)
             and name.split(os.sep)[0] in classes
             and name.lower().endswith(IMAGE_SUFFIXES)]
    return _line('not used', other, 'image', image_dir,
                 'accepted are .jpeg, .jpg and .png directly in the folder of a class')


def _one_suffix(names: List[str], used: Set[str], key: str, expected: str) -> str:
    """Return the remedy: the files' own suffix if all have it, else new names."""
    found = {name[-len(expected):] for name in names}
    if len(found) == 1 and not used:
        return f'set {key}={found.pop()!r} in the data set'
    return f'rename them to end in {expected}'


def _line(state: str, names: List[str], noun: str, folder: Optional[str] = None,
          note: str = '') -> str:
    """Return one line that counts files and names the first; '' for none."""
    if not names:
        return ''
    first, _, rest = noun.partition(' of ')
    noun = first + ('s' if len(names) > 1 else '') + (rest and f' of {rest}')
    where = f' in {folder}' if folder else ''
    return (f'{state}: {len(names)} {noun}{where}, the first {names[0]}'
            + (note and f'; {note}'))
