"""Test the hook that stores weights with channels last."""
import torch
from mmengine.hooks import Hook
from small_runs import build, quick, tiny_config, write_set


class Formats(Hook):
    """Note whether the first convolution computes with channels last."""

    def before_train_iter(self, runner, *args, **kwargs):
        conv = next(m for m in runner.model.modules()
                    if isinstance(m, torch.nn.Conv2d) and m.kernel_size != (1, 1))
        conv.register_forward_hook(lambda module, inputs, output: setattr(
            self, 'last', output.is_contiguous(memory_format=torch.channels_last)))


def test_channels_last_changes_layout_and_keeps_results(tmp_path, monkeypatch):
    quick(monkeypatch)
    data = write_set(tmp_path / 'data')
    ends = []
    for hooks in ([], [dict(type='ChannelsLast')]):
        cfg = tiny_config(data, tmp_path / str(len(hooks)), iterations=2)
        cfg.custom_hooks = hooks
        formats = Formats()
        runner = build(cfg)
        runner.register_hook(formats)
        runner.train()
        assert formats.last == bool(hooks)
        ends.append(torch.load(tmp_path / str(len(hooks)) / 'iter_2.pth')['state_dict'])
    for name, value in ends[0].items():
        torch.testing.assert_close(ends[1][name], value, rtol=1e-3, atol=1e-4)
