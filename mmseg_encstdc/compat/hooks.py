"""Give MMEngine's default hooks what it does not work out itself."""
from mmengine.config import Config

__all__ = ['drop_removed_hooks', 'give_rules']

# Metrics of this package, and measures of the first two.
OWN_METRICS = ('ConfusionMetric', 'BoundaryMetric', 'ClassAccuracy', 'PairAccuracy')
RANKED = ('PA', 'mPA', 'mIoU', 'FWIoU', 'BF', 'mBF')


def give_rules(cfg: Config) -> None:
    """Set the rule of ``save_best`` for this package's measures; more is better.

    MMEngine cannot rank PA, the first measure of ConfusionMetric, by its name.
    """
    evaluator = cfg.get('val_evaluator')
    first = evaluator[0] if isinstance(evaluator, (list, tuple)) else evaluator
    kind = first.get('type') if isinstance(first, dict) else None
    for hook in (cfg.get('default_hooks') or {}).values():
        best = hook.get('save_best') if isinstance(hook, dict) else None
        names = best if isinstance(best, (list, tuple)) else [best]
        known = [name in RANKED or name == 'auto' and kind in OWN_METRICS
                 for name in names]
        if all(known) and hook.get('rule') is None:
            hook.rule = 'greater'


def drop_removed_hooks(cfg: Config) -> None:
    """Remove the hooks that are None from ``default_hooks``.

    MMEngine accepts None for its own six hooks only.
    """
    own = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler',
           'checkpoint')
    hooks = cfg.get('default_hooks')
    for name in [name for name, hook in (hooks or {}).items() if hook is None]:
        if name not in own:
            del hooks[name]
