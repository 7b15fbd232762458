"""Compare MMSegmentation's configs with and without our custom_imports line."""
import os
import subprocess
import sys
from pathlib import Path

import mmseg
import pytest
import torch
from mmengine.config import Config

STOCK = Path(mmseg.__file__).parent / '.mim' / 'configs'
CONFIGS = sorted(
    file.relative_to(STOCK).as_posix()
    for pattern in ('encnet/*.py', 'fastfcn/*_enc_*.py', 'stdc/*.py')
    for file in STOCK.glob(pattern))
# Our classes in the networks of each family.
OURS = dict(
    encnet=['EncHead', 'FCNHead', 'Encoding', 'ContextEncoding'],
    fastfcn=['EncHead', 'FCNHead', 'Encoding', 'ContextEncoding'],
    stdc=['STDCNet', 'STDCContextPathNet', 'FCNHead', 'STDCHead',
          'OHEMPixelSampler'])
RUN = Path(__file__).with_name('drop_in_run.py')

pytestmark = pytest.mark.skipif(
    not CONFIGS, reason='this mmsegmentation was installed without its configs')


def model_of(config):
    """Return the settings of a config that determine its network, as text."""
    model = Config.fromfile(STOCK / config).model
    model.pop('pretrained', None)
    if config.startswith('stdc'):
        model.backbone.backbone_cfg.pop('init_cfg', None)
    return str(sorted(model.items()))


@pytest.fixture(scope='module')
def networks():
    """Map each config to the first one with the same network."""
    first = {}
    return {config: first.setdefault(model_of(config), config)
            for config in CONFIGS}


@pytest.fixture(scope='module')
def results(networks, tmp_path_factory):
    """Return MMSegmentation's results and ours, by config; see drop_in_run.py."""
    folder = tmp_path_factory.mktemp('drop_in')
    paths = [str(STOCK / config) for config in sorted(set(networks.values()))]

    def run(override, out, *more):
        root = RUN.parents[1]
        done = subprocess.run(
            [sys.executable, '-W', 'ignore', str(RUN), str(out), *paths, *more],
            capture_output=True, text=True, env={
                **os.environ, 'MMSEG_ENCSTDC_OVERRIDE': override,
                'PYTHONPATH': str(root)})
        assert done.returncode == 0, done.stderr[-3000:]
        return torch.load(out)

    stock = run('0', folder / 'stock.pt')
    return stock, run('1', folder / 'ours.pt', '--given',
                      str(folder / 'stock.pt'))


@pytest.fixture
def pair(request, networks, results):
    """Return MMSegmentation's results and ours of one config."""
    path = str(STOCK / networks[request.param])
    return results[0][path], results[1][path]


every_config = pytest.mark.parametrize('pair', CONFIGS, indirect=True)


def relative(got, expected):
    return ((got - expected).abs().max()
            / expected.abs().max().clamp(min=1e-6)).item()


@every_config
def test_override_decides_whose_parts_are_built(pair, request):
    family = request.node.callspec.params['pair'].split('/')[0]
    stock, ours = (one['parts'] for one in pair)
    assert not [part for part in stock if part.startswith('mmseg_encstdc.')]
    names = [part.rpartition('.')[2] for part in ours
             if part.startswith('mmseg_encstdc.')]
    assert sorted(names) == sorted(OURS[family])


@every_config
def test_state_dict_has_same_keys_and_shapes(pair):
    stock, ours = (one['state'] for one in pair)
    assert {k: v.shape for k, v in ours.items()} == {
        k: v.shape for k, v in stock.items()}


@every_config
def test_logits_equal_mmsegmentation(pair):
    stock, ours = pair
    assert relative(ours['logits'], stock['logits']) < 1e-5


@every_config
def test_losses_and_accuracy_equal_mmsegmentation(pair):
    stock, ours = (one['losses'] for one in pair)
    assert stock.keys() == ours.keys()
    for name, value in stock.items():
        assert relative(ours[name], value) < 1e-5, name


@every_config
def test_gradients_equal_mmsegmentation(pair):
    stock, ours = (one['gradients'] for one in pair)
    assert stock.keys() == ours.keys()
    largest = max(stock.values())
    for name, value in stock.items():
        assert abs(ours[name] - value) < 1e-3 * value + 1e-6 * largest, name


LINE = """
import sys
from mmengine.config import Config
cfg = Config.fromfile(sys.argv[1])
cfg.custom_imports = dict(imports=['mmseg_encstdc'], allow_failed_imports=False)
cfg.dump(sys.argv[2])
cfg = Config.fromfile(sys.argv[2])  # imports the plugin, as the tools do
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
init_default_scope('mmseg')
cfg.model.pretrained = None
print(type(MODELS.build(cfg.model).decode_head).__module__)
"""


def test_custom_imports_line_replaces_head(root, tmp_path):
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', LINE, str(STOCK / CONFIGS[0]),
         str(tmp_path / 'with_line.py')],
        cwd=tmp_path, env={'PYTHONPATH': str(root), 'PATH': ''},
        capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[-1] == 'mmseg_encstdc.heads.enc_head'
