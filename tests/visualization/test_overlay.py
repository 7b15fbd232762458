"""Label maps in colours, legends and sheets."""
import numpy as np
import pytest

from mmseg_encstdc.visualization import (
    colorize,
    contact_sheet,
    legend,
    overlay,
)

PALETTE = [[255, 0, 0], [0, 255, 0], [0, 0, 250]]


def test_colorize_maps_ids_to_palette():
    label = np.array([[0, 1], [2, 255]], np.uint8)
    expected = [[PALETTE[0], PALETTE[1]], [PALETTE[2], [0, 0, 0]]]
    assert colorize(label, PALETTE).tolist() == expected


def test_overlay_blends_except_ignored_pixels():
    image = np.full((1, 3, 3), 100, np.uint8)
    label = np.array([[0, 2, 255]], np.uint8)
    mixed = overlay(image, label, PALETTE, opacity=0.5)
    assert mixed[0, 0].tolist() == [178, 50, 50]
    assert mixed[0, 1].tolist() == [50, 50, 175]
    assert mixed[0, 2].tolist() == [100, 100, 100]


@pytest.mark.parametrize('opacity, expected', [(0, 100), (1, 0)])
def test_overlay_opacity(opacity, expected):
    image = np.full((4, 5, 3), 100, np.uint8)
    label = np.ones((4, 5), np.uint8)
    assert (overlay(image, label, PALETTE, opacity)[..., 0] == expected).all()


def test_overlay_rejects_other_label_size():
    with pytest.raises(ValueError, match='differ in size'):
        overlay(np.zeros((4, 5, 3), np.uint8), np.zeros((5, 4), np.uint8),
                PALETTE)


@pytest.mark.parametrize('width', [60, 200, 1000])
def test_legend_shows_every_colour(width):
    picture = legend(['road', 'sky', 'a long name'], PALETTE, width)
    assert picture.shape[1] == width
    colours = {tuple(c) for c in picture.reshape(-1, 3).tolist()}
    assert {tuple(c) for c in PALETTE} <= colours


def test_contact_sheet_shows_every_picture():
    pictures = [[np.full((3, 4, 3), 10, np.uint8)],
                [np.full((2, 7, 3), 20, np.uint8),
                 np.full((5, 1, 3), 30, np.uint8)]]
    sheet = contact_sheet(pictures)
    for row in pictures:
        for picture in row:
            assert (sheet == picture[0, 0]).all(2).sum() == picture[..., 0].size
