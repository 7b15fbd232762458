"""List the classes of the demo set, their colours, and pairs that look alike."""

COLOURS = {
    'road': [128, 64, 128],
    'floor': [200, 150, 110],
    'facade': [90, 90, 90],
    'wall': [230, 215, 160],
    'sky': [70, 130, 180],
    'ceiling': [200, 225, 240],
    'window': [0, 190, 200],
    'pole': [255, 215, 0],
    'wire': [255, 90, 0],
    'person': [220, 20, 60],
    'car': [0, 0, 160],
    'tree': [60, 145, 35],
    'sofa': [150, 40, 190],
    'lamp': [255, 150, 190],
}
CLASSES = tuple(COLOURS)
PALETTE = list(COLOURS.values())
IGNORE = 255

KINDS = ('street', 'room')
# The surfaces of the stage, per kind of scene: upper, backdrop, ground.
SURFACES = {
    'street': ('sky', 'facade', 'road'),
    'room': ('ceiling', 'wall', 'floor'),
}
AMBIGUOUS_PAIRS = tuple(zip(*SURFACES.values()))
