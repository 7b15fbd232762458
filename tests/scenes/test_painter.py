"""Test the properties of the generated Scenes data set."""

import hashlib
import json
import runpy
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from mmseg_encstdc.errors import InputError
from mmseg_encstdc.scenes.classes import AMBIGUOUS_PAIRS, CLASSES, IGNORE, PALETTE
from mmseg_encstdc.scenes.painter import paint_scene
from mmseg_encstdc.scenes.writer import write_split

ROOT = Path(__file__).resolve().parents[2]
ONLY_STREET = ('road', 'facade', 'sky', 'car', 'tree')
ONLY_ROOM = ('floor', 'wall', 'ceiling', 'sofa', 'lamp')
PROPS = ('car', 'tree', 'sofa', 'lamp')


def mask_of(label, *names):
    """Return where a label is one of some classes, bool (H, W)."""
    return np.isin(label, [CLASSES.index(name) for name in names])


def grow(mask, size):
    """Return a mask grown by a size x size square, bool (H, W)."""
    return cv2.dilate(mask.astype(np.uint8), np.ones((size, size))) > 0


def digest(image, label):
    """Return a short text that changes with any pixel."""
    return hashlib.sha256(image.tobytes() + label.tobytes()).hexdigest()[:16]


@pytest.fixture(scope='module')
def scenes():
    """Sixty scenes: a list of (image, label)."""
    return [paint_scene(0, index) for index in range(60)]


class TestFormat:
    def test_every_class_has_a_name_and_a_colour_of_its_own(self):
        assert len(set(CLASSES)) == len(CLASSES) == 14
        assert len({tuple(colour) for colour in PALETTE}) == len(CLASSES)
        assert all(0 <= value <= 255 for colour in PALETTE for value in colour)

    def test_an_image_is_rgb_bytes_and_its_label_class_numbers(self, scenes):
        for image, label in scenes:
            assert image.dtype == label.dtype == np.uint8
            assert image.shape == (*label.shape, 3)
            assert set(np.unique(label)) <= {*range(len(CLASSES)), IGNORE}

    def test_sizes_vary(self, scenes):
        heights, widths = zip(*(label.shape for _, label in scenes))
        assert 160 <= min(heights) < max(heights) <= 200
        assert 208 <= min(widths) < max(widths) <= 256

    def test_negative_numbers_and_unknown_kinds_are_refused(self):
        with pytest.raises(ValueError, match='seed and index must be >= 0'):
            paint_scene(-1, 0)
        with pytest.raises(ValueError, match='seed and index must be >= 0'):
            paint_scene(0, -1)
        with pytest.raises(ValueError, match='kind must be one of'):
            paint_scene(0, 0, kind='forest')


class TestContent:
    def test_every_second_scene_is_a_street(self, scenes):
        streets = [mask_of(label, 'road').any() for _, label in scenes]
        assert sum(streets) == len(scenes) / 2
        assert 5 < sum(streets[::2]) < 25  # in random order, not in turns

    def test_a_scene_is_a_street_or_a_room_never_both(self, scenes):
        for _, label in scenes:
            has_street = mask_of(label, *ONLY_STREET).any()
            assert has_street != mask_of(label, *ONLY_ROOM).any()

    def test_every_class_is_in_several_scenes(self, scenes):
        for name in CLASSES:
            assert sum(mask_of(label, name).any() for _, label in scenes) >= 10

    def test_poles_and_wires_are_at_most_four_pixels_wide(self, scenes):
        for name in ('pole', 'wire'):
            lines = [mask_of(label, name).astype(np.uint8) for _, label in scenes]
            # A line is wide where a 5 x 5 square fits, which is only where lines meet.
            wide = [cv2.erode(line, np.ones((5, 5))) for line in lines]
            assert np.sum([w.sum() for w in wide]) < 0.002 * np.sum(
                [line.sum() for line in lines]
            )

    def test_near_things_hide_far_things(self, scenes):
        crossed = 0
        for _, label in scenes:
            prop, pole = mask_of(label, *PROPS), mask_of(label, 'pole')
            # A pole in front of a prop has the prop on its left and on its right.
            both_sides = np.roll(prop, 5, axis=1) & np.roll(prop, -5, axis=1)
            crossed += (both_sides & pole).sum() > 20
        assert crossed >= 5

    def test_one_to_four_percent_of_the_pixels_are_ignored(self, scenes):
        fractions = [(label == IGNORE).mean() for _, label in scenes]
        assert 0.01 < np.mean(fractions) < 0.04
        assert 0.005 < min(fractions) and max(fractions) < 0.06

    def test_light_varies(self, scenes):
        means = np.array([image.mean(axis=(0, 1)) for image, _ in scenes])  # (60, 3)
        brightness, warmth = means.mean(axis=1), means[:, 0] / means[:, 2]
        assert brightness.max() > 1.6 * brightness.min()
        assert warmth.max() > 1.3 * warmth.min()


class TestAmbiguity:
    def test_three_pairs_of_classes_are_ambiguous(self):
        assert AMBIGUOUS_PAIRS == (
            ('sky', 'ceiling'),
            ('facade', 'wall'),
            ('road', 'floor'),
        )

    @pytest.mark.parametrize('index', range(8))
    def test_a_street_and_a_room_differ_only_in_their_props(self, index):
        street, street_label = paint_scene(0, index, kind='street')
        room, room_label = paint_scene(0, index, kind='room')
        prop = mask_of(street_label, *PROPS) | mask_of(room_label, *PROPS)
        # The lens spreads a prop by one pixel; ignored regions may hide one.
        same = ~grow(prop | (street_label == IGNORE), 3)
        assert same.mean() > 0.85
        assert (street[same] == room[same]).all()

    @pytest.mark.parametrize('pair', AMBIGUOUS_PAIRS)
    def test_the_members_of_a_pair_take_the_same_places(self, pair):
        for index in range(8):
            _, street = paint_scene(0, index, kind='street')
            _, room = paint_scene(0, index, kind='room')
            free = ~mask_of(street, *PROPS) & ~mask_of(room, *PROPS)
            in_street, in_room = mask_of(street, pair[0]), mask_of(room, pair[1])
            assert (in_street[free] == in_room[free]).all()

    @pytest.mark.parametrize('pair', AMBIGUOUS_PAIRS)
    def test_lookalike_classes_rarely_have_a_prop_within_15_pixels(self, pair, scenes):
        close = total = 0
        for _, label in scenes:
            member = mask_of(label, *pair)
            close += (member & grow(mask_of(label, *PROPS), 15)).sum()
            total += member.sum()
        # Guessing right for these and tossing a coin for the rest stays below 57 %.
        assert close / total < 0.14

    def test_every_training_crop_shows_enough_of_a_prop(self, scenes):
        rng = np.random.default_rng(0)
        for _, label in scenes:
            y = rng.integers(label.shape[0] - 127)
            x = rng.integers(label.shape[1] - 159)
            assert mask_of(label[y : y + 128, x : x + 160], *PROPS).sum() >= 80


class TestRepeatability:
    def test_the_order_of_calls_does_not_matter(self, scenes):
        again = [paint_scene(0, index) for index in (7, 3, 5)]
        expected = [scenes[index] for index in (7, 3, 5)]
        assert [digest(*s) for s in again] == [digest(*s) for s in expected]

    def test_another_process_paints_the_same_pixels(self, scenes):
        code = (
            'import hashlib\n'
            'from mmseg_encstdc.scenes.painter import paint_scene\n'
            'for index in (4, 2, 9):\n'
            '    image, label = paint_scene(0, index)\n'
            '    data = image.tobytes() + label.tobytes()\n'
            '    print(hashlib.sha256(data).hexdigest()[:16])\n'
        )
        result = subprocess.run(
            [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.split()[-3:] == [digest(*scenes[i]) for i in (4, 2, 9)]

    def test_seeds_and_numbers_give_different_scenes(self, scenes):
        digests = {digest(*scene) for scene in scenes}
        assert len(digests) == len(scenes)
        assert digest(*paint_scene(1, 0)) not in digests


def read_files(folder):
    """Return the bytes of all PNG files below a folder, by relative path."""
    paths = sorted(folder.rglob('*.png'))
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths}


class TestWriteSplit:
    def test_files_hold_the_painted_scenes(self, tmp_path):
        write_split(tmp_path, 'train', 2, seed=5)
        assert list(read_files(tmp_path)) == [
            'images/train/0000.png',
            'images/train/0001.png',
            'labels/train/0000.png',
            'labels/train/0001.png',
        ]
        image, label = paint_scene(5, 1)
        stored = cv2.imread(str(tmp_path / 'images/train/0001.png'))
        assert (stored[..., ::-1] == image).all()
        stored = cv2.imread(str(tmp_path / 'labels/train/0001.png'), -1)
        assert stored.shape == label.shape and (stored == label).all()

    def test_the_number_of_workers_does_not_matter(self, tmp_path):
        write_split(tmp_path / 'one', 'val', 6, seed=0, workers=1)
        write_split(tmp_path / 'three', 'val', 6, seed=0, workers=3)
        assert read_files(tmp_path / 'one') == read_files(tmp_path / 'three')

    def test_it_counts_the_pixels_of_every_label(self, tmp_path):
        (counts,) = write_split(tmp_path, 'train', 1, seed=0)
        _, label = paint_scene(0, 0)
        assert counts.sum() == label.size
        assert counts[-1] == (label == IGNORE).sum()
        assert counts[CLASSES.index('pole')] == mask_of(label, 'pole').sum()

    def test_no_scene_is_in_two_splits(self, tmp_path):
        for split in ('train', 'val', 'test'):
            write_split(tmp_path, split, 3, seed=0)
        files = read_files(tmp_path / 'images')
        assert len(files) == len(set(files.values())) == 9

    @pytest.mark.parametrize(
        'invalid', [{'split': 'dev'}, {'count': 0}, {'seed': -1}, {'workers': 0}]
    )
    def test_bad_arguments_are_refused(self, invalid, tmp_path):
        arguments = {'split': 'val', 'count': 1, 'seed': 0, 'workers': 1, **invalid}
        with pytest.raises(InputError, match=next(iter(invalid))):
            write_split(tmp_path, **arguments)


class TestMakeScenes:
    @pytest.fixture
    def tool(self, tmp_path, capsys, monkeypatch):
        """Return a call of the tool: arguments -> (failed, last printed line)."""
        main = runpy.run_path(str(ROOT / 'tools' / 'make_scenes.py'))['main']

        def call(*arguments, out=tmp_path / 'scenes'):
            monkeypatch.setattr(sys, 'argv', ['make_scenes.py', str(out), *arguments])
            try:
                main()
            except SystemExit as stop:
                if isinstance(stop.code, str):
                    return True, stop.code
                return stop.code, capsys.readouterr().err.splitlines()[-1]
            (line,) = capsys.readouterr().out.splitlines()
            return False, line

        return call

    def test_it_writes_both_splits_and_says_so(self, tool, tmp_path):
        failed, line = tool('--train', '3', '--val', '2', '--seed', '4')
        assert not failed
        assert '3 train + 2 val scenes, 14 classes, seed 4' in line
        assert len(read_files(tmp_path / 'scenes' / 'images' / 'train')) == 3
        assert len(read_files(tmp_path / 'scenes' / 'labels' / 'val')) == 2

    def test_a_second_run_finds_the_set(self, tool, tmp_path):
        tool('--train', '2', '--val', '1')
        before = (tmp_path / 'scenes/images/train/0000.png').stat().st_mtime_ns
        assert tool('--train', '2', '--val', '1')[1].endswith('(already there)')
        after = (tmp_path / 'scenes/images/train/0000.png').stat().st_mtime_ns
        assert before == after

    def test_a_second_run_mends_an_unfinished_set(self, tool, tmp_path):
        tool('--train', '2', '--val', '1')
        files = read_files(tmp_path)
        (tmp_path / 'scenes/labels/val/0000.png').unlink()
        tool('--train', '2', '--val', '1')
        assert read_files(tmp_path) == files

    def test_another_set_is_replaced_only_on_demand(self, tool, tmp_path):
        tool('--train', '3', '--val', '1')
        failed, line = tool('--train', '2', '--val', '1')
        assert failed and 'holds another set' in line and '--overwrite' in line
        failed, _ = tool('--train', '2', '--val', '1', '--overwrite')
        assert not failed
        assert len(read_files(tmp_path)) == 2 * (2 + 1)
        record = json.loads((tmp_path / 'scenes/scenes.json').read_text())
        assert (record['train'], record['complete']) == (2, 1)

    def test_folders_of_others_are_never_touched(self, tool, tmp_path):
        (tmp_path / 'scenes' / 'images').mkdir(parents=True)
        failed, line = tool('--overwrite')
        assert failed and 'was not made by this tool' in line
        (tmp_path / 'file').touch()
        failed, line = tool(out=tmp_path / 'file')
        assert failed and 'is a file; give a folder' in line

    @pytest.mark.parametrize(
        'arguments, cause',
        [
            (['--train', '0'], '--train must be at least 1, got 0'),
            (['--val', '-2'], '--val must be at least 1, got -2'),
            (['--seed', '-1'], '--seed must be at least 0, got -1'),
            (['--workers', '0'], '--workers must be at least 1, got 0'),
            (['--train', 'many'], 'invalid int value'),
        ],
    )
    def test_bad_arguments_give_one_line(self, tool, arguments, cause, tmp_path):
        failed, line = tool(*arguments)
        assert failed and cause in line
        assert not (tmp_path / 'scenes').exists()
