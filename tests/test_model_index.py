"""model-index.yml, the metafile and configs/README.md: every config, whose results."""
import json
import re

import pytest
import yaml
from mmengine.config import Config

WHOSE = ('(paper)', "(authors' zoo)", '(ours)')
# pixAcc and mIoU, or mIoU on val and test, as published.
PUBLISHED = {
    'encnet_r50_ade': {79.73, 41.11},
    'encnet_r101_ade': {81.69, 44.65},
    'encnet_r50s_ade': {80.1, 41.5},
    'encnet_r101s_ade': {81.3, 44.4},
    'encnet_r50_pcontext': {79.4, 49.2},
    'encnet_r101_pcontext': {81.2, 52.6},
    'encnet_r50s_pcontext': {79.2, 51.0},
    'encnet_r101s_pcontext': {80.7, 54.1},
    'encnet_r101_voc': {82.9},
    'stdc1_seg50_cityscapes': {72.2, 71.9},
    'stdc2_seg50_cityscapes': {74.2, 73.4},
    'stdc1_seg75_cityscapes': {74.5, 75.3},
    'stdc2_seg75_cityscapes': {77.0, 76.8},
    'stdc1_camvid': {73.0},
    'stdc2_camvid': {73.9},
}


@pytest.fixture(scope='module')
def index(pytestconfig):
    """Collections and models of every file that model-index.yml imports."""
    root = pytestconfig.rootpath
    result = dict(Collections=[], Models=[])
    for name in yaml.safe_load((root / 'model-index.yml').read_text())['Import']:
        part = yaml.safe_load((root / name).read_text())
        for key in result:
            result[key] += part[key]
    return result


def results(index):
    return [(model['Name'], result) for model in index['Models']
            for result in model.get('Results', [])]


def test_every_config_is_there_once(index, root):
    named = [model['Config'] for model in index['Models']]
    there = {f'configs/{file.name}' for file in (root / 'configs').glob('*.py')}
    assert set(named) == there and len(named) == len(there)
    for model in index['Models']:
        assert model['Config'] == f'configs/{model["Name"]}.py'


def test_every_model_is_in_a_collection_there_is(index):
    names = {collection['Name'] for collection in index['Collections']}
    assert {model['In Collection'] for model in index['Models']} == names


def test_batch_and_length_are_those_of_the_configs(index, root):
    for model in index['Models']:
        config = Config.fromfile(root / model['Config'])
        said, loop = model['Metadata'], config.train_cfg
        assert said['Batch Size'] == config.auto_scale_lr.base_batch_size
        assert said.get('Epochs') == loop.get('max_epochs')
        assert said.get('Iterations') == loop.get('max_iters')


def test_every_result_says_whose_it_is(index):
    for name, result in results(index):
        assert result['Dataset'].endswith(WHOSE), name
        assert result['Task'] and result['Metrics'] and result['Source']
        own = result['Source'].startswith('benchmarks/results/')
        assert own == result['Dataset'].endswith('(ours)') == ('Entry' in result)
    for model in index['Models']:
        whose = {result['Dataset'].rpartition('(')[2][:-1]
                 for result in model.get('Results', [])}
        said = model['Metadata']['Figures Of'].split(', ')
        assert said == (sorted(whose) or ['none yet'])


def test_every_number_of_ours_is_the_files(index, root):
    ours = [result for _, result in results(index) if 'Entry' in result]
    assert len(ours) == 6
    for result in ours:
        value = json.loads((root / result['Source']).read_text())
        for key in result['Entry']:
            value = value[key]
        for name, number in result['Metrics'].items():
            assert number == round(value[name], 2)


def test_every_number_of_others_is_the_published(index):
    found = {}
    for name, result in results(index):
        if 'Entry' not in result:
            found.setdefault(name, set()).update(result['Metrics'].values())
    assert found == PUBLISHED


def test_a_name_that_mim_is_asked_for_is_found_once(index, root):
    """mim train looks for the name below the whole package."""
    folders = [root / name for name in ('mmseg_encstdc', 'configs', 'tools',
                                        'benchmarks', 'ops')]
    for model in index['Models']:
        found = {file.resolve() for folder in folders
                 for file in folder.rglob(f'{model["Name"]}.py')}
        assert len(found) == 1


def readme_rows(root):
    """Cells of every config's row in configs/README.md."""
    rows = [[cell.strip() for cell in line.strip('|').split('|')]
            for line in (root / 'configs/README.md').read_text().splitlines()
            if line.startswith('| `') and '.py` | ' in line]
    return [row for row in rows if len(row) == 9]


def test_readme_has_one_row_for_every_config(root):
    named = [row[0].strip('`') for row in readme_rows(root)]
    there = [file.name for file in (root / 'configs').glob('*.py')]
    assert sorted(named) == sorted(there)


def test_readme_states_the_schedules_of_the_configs(root):
    for name, _, _, length, batch, rate, crop, *_ in readme_rows(root):
        cfg = Config.fromfile(root / 'configs' / name.strip('`'))
        loop = cfg.train_cfg
        assert length == (f'{loop.max_epochs} epochs' if 'max_epochs' in loop
                          else f'{loop.max_iters} iterations'), name
        assert int(batch) == cfg.auto_scale_lr.base_batch_size, name
        assert float(rate) == cfg.optim_wrapper.optimizer.lr, name
        size = cfg.get('crop_size', (224, 224))  # ImageNet has no such key
        assert crop == '{} x {}'.format(*size), name


def test_readme_has_our_results_from_the_metafile(index, root):
    ours = {}
    for name, result in results(index):
        if 'Entry' in result:
            ours.setdefault(f'`{name}.py`', []).append(result)
    for name, *_, said in readme_rows(root):
        wanted = ours.get(name, [])
        assert re.findall(r'mIoU ([\d.]+)', said) == [
            str(result['Metrics']['mIoU']) for result in wanted]
        assert set(re.findall(r'`(.*?)`', said)) == {
            result['Source'] for result in wanted}
