"""Test learning rates over a run, and the optimizer groups of parameters."""
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmseg.registry import MODELS, PARAM_SCHEDULERS

from mmseg_encstdc.engine import ExponentialWarmup, stretch_schedule


def load(root, name):
    return Config.fromfile(root / 'configs' / name)


def optimizer_of(*rates):
    """Return an optimizer with one parameter for each rate."""
    return torch.optim.SGD(
        [dict(params=[torch.nn.Parameter(torch.zeros(1))], lr=rate)
         for rate in rates], lr=1.)


def rates_of(schedulers, optimizer, iterations):
    """Return the rates of each iteration, (iterations, groups)."""
    schedulers = [
        PARAM_SCHEDULERS.build(dict(scheduler, optimizer=optimizer))
        for scheduler in schedulers
    ]
    rates = []
    for _ in range(iterations):
        rates.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        for scheduler in schedulers:  # as ParamSchedulerHook does
            scheduler.step()
    return np.array(rates)


def config_rates(cfg, base=0.01, iterations=None):
    """Return the rates of a run for groups at 1 and 10 times the base rate."""
    return rates_of(cfg.param_scheduler, optimizer_of(base, 10 * base),
                    iterations or cfg.train_cfg.max_iters)


# --- STDC-Seg's schedule -----------------------------------------------------


@pytest.fixture(scope='module')
def stdc_60k(request):
    """Return the rates of every iteration of the Cityscapes schedule."""
    root = request.config.rootpath
    return config_rates(load(root, '_base_/schedules/stdc_60k.py'))


def test_stdc_schedule_warms_up_exponentially_for_1000_iterations(stdc_60k):
    t = np.arange(1001)
    expected = 1e-5 * 1000**(t / 1000)
    np.testing.assert_allclose(stdc_60k[:1001, 0], expected, rtol=1e-9)


def test_stdc_schedule_is_poly_with_power_0_9(stdc_60k):
    t = np.array([1000, 1001, 2000, 10000, 30000, 50000, 59000, 59999])
    # MMEngine's last iteration is at the end of the curve, hence the -1.
    expected = 0.01 * (1 - (t - 1000) / (60000 - 1000 - 1))**0.9
    np.testing.assert_allclose(stdc_60k[t, 0], expected, rtol=1e-6, atol=1e-12)
    authors = 0.01 * (1 - (t - 1000) / (60000 - 1000))**0.9
    assert np.abs(stdc_60k[t, 0] - authors).max() < 1e-6


def test_stdc_schedule_rises_to_base_rate_then_falls(stdc_60k):
    rates = stdc_60k[:, 0]
    assert rates.argmax() == 1000
    assert rates[1000] == pytest.approx(0.01, rel=1e-9)
    assert (np.diff(rates[:1001]) > 0).all()
    assert (np.diff(rates[1000:]) < 0).all()


def test_stdc_schedule_has_10x_rate_of_heads(stdc_60k):
    np.testing.assert_allclose(stdc_60k[:, 1], 10 * stdc_60k[:, 0], rtol=1e-9,
                               atol=1e-15)


def test_stdc_schedule_of_camvid_is_shorter_stdc_schedule(root):
    rates = config_rates(load(root, '_base_/schedules/stdc_iters.py'))[:, 0]
    t = np.arange(600)
    expected = np.where(t <= 50, 1e-5 * 1000**(t / 50),
                        0.01 * (1 - np.maximum(t - 50, 0) / 549)**0.9)
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-12)


def test_encnet_schedule_is_poly_without_warm_up(root):
    cfg = load(root, '_base_/schedules/encnet_iters.py')
    rates = config_rates(cfg)[:, 0]
    t = np.arange(cfg.train_cfg.max_iters)
    expected = 0.01 * (1 - t / (len(t) - 1))**0.9
    np.testing.assert_allclose(rates, expected, rtol=1e-6, atol=1e-12)


# --- ExponentialWarmup -------------------------------------------------------


def warm_up(iterations=12, **kwargs):
    schedule = dict(type='ExponentialWarmup', by_epoch=False, **kwargs)
    return rates_of([schedule], optimizer_of(2.), iterations)[:, 0]


def test_exponential_warmup_multiplies_by_constant_factor():
    rates = warm_up(start_factor=1e-2, end=5)
    np.testing.assert_allclose(rates[:5], 2 * 100**(np.arange(5) / 4 - 1))
    np.testing.assert_allclose(rates[5:], 2)


def test_exponential_warmup_begins_later():
    rates = warm_up(start_factor=1e-2, begin=3, end=6)
    np.testing.assert_allclose(rates, [2, 2, 2, .02, .2] + [2] * 7)


def test_exponential_warmup_of_one_iteration_keeps_base_rate():
    np.testing.assert_allclose(warm_up(start_factor=1e-2, end=1), 2)


def test_exponential_warmup_resumes():
    def build(optimizer):
        return ExponentialWarmup(optimizer, 1e-3, end=9, by_epoch=False)

    optimizer = optimizer_of(1.)
    scheduler, rates = build(optimizer), []
    for i in range(9):
        rates.append(optimizer.param_groups[0]['lr'])
        if i == 4:
            saved = scheduler.state_dict(), optimizer.state_dict()
            optimizer = optimizer_of(1.)
            scheduler = build(optimizer)
            optimizer.load_state_dict(saved[1])
            scheduler.load_state_dict(saved[0])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(rates, 1000**(np.arange(9) / 8 - 1))


@pytest.mark.parametrize('factor', [0, -1, 1.5])
def test_exponential_warmup_rejects_start_factor(factor):
    with pytest.raises(ValueError, match=rf'in \(0, 1\], got {factor}'):
        ExponentialWarmup(optimizer_of(1.), factor, end=10)


@pytest.mark.parametrize('span', [{}, dict(begin=5, end=5), dict(begin=5, end=3)])
def test_exponential_warmup_requires_end_after_begin(span):
    with pytest.raises(ValueError, match='needs an end after its begin'):
        ExponentialWarmup(optimizer_of(1.), **span)


# --- stretch_schedule --------------------------------------------------------


@pytest.mark.parametrize('max_iters', [600, 6000, 12000])
def test_stretch_schedule_keeps_rates(root, stdc_60k, max_iters):
    cfg = load(root, '_base_/schedules/stdc_60k.py')
    stretch_schedule(cfg, max_iters)
    rates = config_rates(cfg)[:, 0]
    assert len(rates) == cfg.train_cfg.max_iters == max_iters
    ratio = 60000 // max_iters
    poly = slice(1000 // ratio + 1, None)  # a ratio may cut a warm-up step off
    original = stdc_60k[::ratio, 0]
    assert np.abs(rates[poly] - original[poly]).max() < 5e-5
    assert rates[0] == pytest.approx(1e-5)
    assert rates.max() == pytest.approx(0.01, rel=2e-3)
    assert rates.argmax() == pytest.approx(1000 / ratio, abs=1)


def test_stretch_schedule_shrinks_intervals(root):
    cfg = load(root, '_base_/schedules/stdc_60k.py')
    stretch_schedule(cfg, 3000)
    assert cfg.train_cfg.val_interval == 100
    assert cfg.default_hooks.checkpoint.interval == 100
    assert [(s.get('begin', 0), s.end) for s in cfg.param_scheduler] == [
        (0, 50), (50, 3000)]


def test_stretch_schedule_extends_intervals(root):
    cfg = load(root, '_base_/schedules/encnet_iters.py')
    stretch_schedule(cfg, 4000)
    assert cfg.train_cfg.val_interval == 4000
    assert cfg.default_hooks.checkpoint.interval == 1000
    assert cfg.param_scheduler[0].end == 4000


@pytest.mark.parametrize('name', ['stdc_60k', 'stdc_iters', 'encnet_iters'])
@pytest.mark.parametrize('max_iters', [1, 2, 3, 10])
def test_stretch_schedule_to_few_iterations(root, name, max_iters):
    cfg = load(root, f'_base_/schedules/{name}.py')
    stretch_schedule(cfg, max_iters)
    rates = config_rates(cfg)
    assert np.isfinite(rates).all()
    assert rates.max() > 0
    assert cfg.train_cfg.val_interval >= 1
    assert cfg.default_hooks.checkpoint.interval >= 1


@pytest.mark.parametrize('scheduler, expected', [
    (dict(type='MultiStepLR', milestones=[200, 400]), dict(milestones=[10, 20])),
    (dict(type='StepLR', step_size=200), dict(step_size=10)),
    (dict(type='CosineAnnealingLR', T_max=600, end=600), dict(T_max=30, end=30)),
    (dict(type='PolyLR', begin=100, end=600), dict(begin=5, end=30)),
])
@pytest.mark.parametrize('alone', [False, True])
def test_stretch_schedule_scales_steps_of_schedulers(root, scheduler, expected, alone):
    cfg = load(root, 'stdc1_camvid.py')
    scheduler = dict(scheduler, by_epoch=False)
    cfg.param_scheduler = scheduler if alone else [scheduler]
    stretch_schedule(cfg, 30)
    found = cfg.param_scheduler if alone else cfg.param_scheduler[0]
    assert found == {**scheduler, **expected}
    rates = rates_of([dict(found)], optimizer_of(1.), 30)
    assert rates[0] == 1 > rates[-1] >= 0


def test_stretch_schedule_keeps_what_is_not_set(root):
    cfg = load(root, 'stdc1_camvid.py')
    del cfg.train_cfg['val_interval']
    cfg.default_hooks.checkpoint.interval = -1
    stretch_schedule(cfg, 30)
    assert 'val_interval' not in cfg.train_cfg
    assert cfg.default_hooks.checkpoint.interval == -1
    cfg.default_hooks.checkpoint = None
    stretch_schedule(cfg, 60)
    assert cfg.train_cfg.max_iters == 60


def test_stretch_schedule_rejects_epochs(root):
    cfg = load(root, '_base_/schedules/encnet_120e.py')
    with pytest.raises(ValueError, match='train_cfg.max_epochs with --cfg-options'):
        stretch_schedule(cfg, 100)


@pytest.mark.parametrize('max_iters', [0, -5])
def test_stretch_schedule_rejects_length_below_one(root, max_iters):
    cfg = load(root, '_base_/schedules/stdc_60k.py')
    with pytest.raises(ValueError, match=f'at least 1, got {max_iters}'):
        stretch_schedule(cfg, max_iters)


# --- Parameter groups --------------------------------------------------------


def groups_of(cfg):
    """Map each name to parameter, whether it is a norm's or a bias, and its group.

    The group of a frozen parameter is None.
    """
    model = MODELS.build(cfg.model)
    wrapper = build_optim_wrapper(model, cfg.optim_wrapper)
    group_of = {id(p): group for group in wrapper.param_groups
                for p in group['params']}
    found = {}
    for module_name, module in model.named_modules():
        norm = isinstance(module, torch.nn.modules.batchnorm._NormBase)
        for name, parameter in module.named_parameters(module_name, recurse=False):
            plain = norm or name.endswith('.bias')
            group = group_of[id(parameter)] if parameter.requires_grad else None
            found[name] = (parameter, plain, group)
    assert len(found) == len(list(model.parameters()))
    return found


def is_fast(name):
    """Return whether the authors train this parameter at 10 times the rate."""
    return name.startswith(('decode_head.', 'auxiliary_head.', 'backbone.ffm.'))


def is_stdcnet(name):
    """Return whether this is a parameter of STDCNet."""
    return name.startswith('backbone.backbone.')


@pytest.fixture(scope='module')
def stdc_groups(request):
    return groups_of(load(request.config.rootpath, 'stdc1_seg50_cityscapes.py'))


def test_stdc_optimizer_has_10x_rate_of_heads_and_ffm(stdc_groups):
    rates = {False: set(), True: set()}
    for name, (_, _, group) in stdc_groups.items():
        if group:
            rates[is_fast(name)].add(group['lr'])
    assert rates == {False: {0.01}, True: {0.1}}


def test_stdc_optimizer_decays_all_but_norms_and_biases(stdc_groups):
    decays = {}
    for name, (_, plain, group) in stdc_groups.items():
        if group:
            key = 'fast' if is_fast(name) else 'slow', 'plain' if plain else 'weight'
            decays.setdefault(key, set()).add(group['weight_decay'])
    assert decays == {('slow', 'weight'): {5e-4}, ('slow', 'plain'): {0},
                      ('fast', 'weight'): {5e-4}, ('fast', 'plain'): {0}}


def test_stdc_optimizer_freezes_backbone_norms_only(stdc_groups):
    frozen = {name for name, (p, _, _) in stdc_groups.items() if not p.requires_grad}
    norms = {name for name, (_, plain, _) in stdc_groups.items()
             if plain and is_stdcnet(name)}
    assert frozen == norms
    assert len(frozen) > 50


def test_stdc_optimizer_of_camvid_freezes_nothing(root):
    groups = groups_of(load(root, 'stdc1_camvid.py'))
    assert all(parameter.requires_grad for parameter, _, _ in groups.values())
    for name, (_, plain, group) in groups.items():
        assert group['lr'] == (0.1 if is_fast(name) else 0.01), name
        assert group['weight_decay'] == (0 if plain else 5e-4), name


def test_stdc_optimizer_is_momentum_sgd(root):
    optimizer = load(root, 'stdc1_seg50_cityscapes.py').optim_wrapper.optimizer
    assert optimizer == dict(type='SGD', lr=0.01, momentum=0.9, weight_decay=5e-4)


def test_encnet_optimizer_has_10x_rate_of_heads_and_decays_all(root):
    groups = groups_of(load(root, 'encnet_r18_camvid.py'))
    fast = ('decode_head.', 'auxiliary_head.')
    assert any(name.startswith(fast) for name in groups)
    for name, (parameter, _, group) in groups.items():
        assert parameter.requires_grad, name
        assert group['lr'] == (0.1 if name.startswith(fast) else 0.01), name
        assert group['weight_decay'] == 1e-4, name
