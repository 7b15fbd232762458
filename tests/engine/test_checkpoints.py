"""The one reader of checkpoints, and what it says of other files."""
import pytest
import torch

from mmseg_encstdc.engine import read_checkpoint
from mmseg_encstdc.errors import InputError

WEIGHTS = {'w': torch.ones(2)}


@pytest.fixture
def saved(tmp_path):
    """Write a file of torch.save; returns its path."""
    def write(content):
        torch.save(content, tmp_path / 'x.pth')
        return str(tmp_path / 'x.pth')
    return write


def error_of(*args, **kwargs):
    """The one line of the InputError that reading raises."""
    with pytest.raises(InputError) as caught:
        read_checkpoint(*args, **kwargs)
    assert '\n' not in str(caught.value)
    return str(caught.value)


def test_read_checkpoint_keeps_all_entries_of_a_training_checkpoint(saved):
    content = read_checkpoint(saved(dict(
        state_dict=WEIGHTS, meta=dict(iter=3), optimizer={})))
    assert content.keys() == {'state_dict', 'meta', 'optimizer'}
    assert torch.equal(content['state_dict']['w'], WEIGHTS['w'])


@pytest.mark.parametrize('content, meta', [
    (WEIGHTS, None), (dict(state_dict=WEIGHTS, epoch=3), None),
    (dict(state_dict=WEIGHTS, meta=dict(iter=3)), dict(iter=3))])
def test_read_checkpoint_bare_finds_the_state_dict(saved, content, meta):
    found = read_checkpoint(saved(content), bare=True)
    assert found.keys() == {'state_dict', 'meta'} and found['meta'] == meta
    assert torch.equal(found['state_dict']['w'], WEIGHTS['w'])


@pytest.mark.parametrize('content', [
    WEIGHTS, [1], dict(state_dict=WEIGHTS), dict(state_dict=5, meta={})])
def test_read_checkpoint_without_state_dict_or_meta_names_both(saved, content):
    assert ('x.pth is no checkpoint of MMEngine: it needs the dictionaries '
            'state_dict and meta') in error_of(saved(content))


@pytest.mark.parametrize('content, message', [
    (5, 'holds a int; it must be a state dict'),
    ({}, 'holds no state dict'),
    ({'model': WEIGHTS}, 'holds no state dict; its entries are model'),
    ({3: torch.ones(2)}, 'holds no state dict; its entries are 3'),
])
def test_read_checkpoint_bare_says_what_is_there_instead(saved, content, message):
    assert message in error_of(saved(content), bare=True)


def test_read_checkpoint_begins_with_the_key_and_ends_with_the_remedy(tmp_path):
    for path, state in ((tmp_path / 'none.pth', 'does not exist'),
                        (tmp_path, 'is a folder')):
        line = error_of(str(path), 'model.init_cfg.checkpoint', 'set it to None')
        assert line == f'model.init_cfg.checkpoint {path} {state}; set it to None'


@pytest.mark.parametrize('bare', [False, True])
def test_read_checkpoint_of_a_truncated_file_does_not_advise_to_trust_it(
        saved, bare):
    path = saved(dict(state_dict=WEIGHTS, meta={}))
    data = open(path, 'rb').read()
    open(path, 'wb').write(data[:len(data) // 2])
    line = error_of(path, bare=bare)
    assert 'x.pth cannot be read: it is truncated, or no file of torch' in line
    assert 'weights_only' not in line
