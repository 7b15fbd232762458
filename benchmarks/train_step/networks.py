"""A step of training: our network of a config, and the stock one."""
from typing import Optional

import torch

from mmseg_encstdc.engine.configs import CONFIG_ERRORS, load_config
from mmseg_encstdc.errors import InputError, as_input_error

from . import batches, stock
from .shapes import Shape

__all__ = ['CONTENDERS', 'Trainer', 'model_config', 'shape_of']

CONTENDERS = ('stock', 'ours')
TINY = 64  # height and width of the first images
SGD = dict(lr=1e-3, momentum=0.9, weight_decay=5e-4)
HALF = dict(cuda=torch.float16, cpu=torch.bfloat16)  # of --amp


class Trainer:
    """A network with its optimizer and its batch.

    Args:
        contender (str): 'ours' or 'stock'.
        config (str): a config file of this project.
        shape (str): of the batch, BxHxW.
        classes (int, optional): default: the config's.
        device (str): cpu or cuda[:INDEX].
        amp (bool): autocast, with a scaler of the loss on a GPU.

    Raises:
        InputError: when the config has no network to compare or cannot be
            built.
    """

    def __init__(self, contender: str, config: str, shape: str,
                 classes: Optional[int], device: str, amp: bool):
        self.shape, self.device = Shape.parse(shape), torch.device(device)
        self.amp = amp
        torch.manual_seed(0)
        torch.backends.cudnn.benchmark = True  # as the configs have it
        cfg = model_config(config, classes)
        self.classes = cfg['decode_head']['num_classes']
        if contender == 'stock':
            cfg = stock.translate(cfg, self.shape).config
        with as_input_error(f'config {config}', CONFIG_ERRORS):
            self.model = stock.build(stock.alone(cfg))
        if contender == 'stock':
            stock.check_is_stock(self.model)
        self.model.to(self.device).train()
        learned = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = torch.optim.SGD(learned, **SGD)
        self.scaler = torch.amp.GradScaler(
            self.device.type, enabled=amp and self.device.type == 'cuda')
        self.batch = batches.draw(self.shape, self.classes, self.device)

    @property
    def parameters(self) -> int:
        """Weights of the network, those that do not learn included."""
        return sum(p.numel() for p in self.model.parameters())

    def warm_up(self) -> None:
        """A step on tiny images; its gradients do not stay.

        The libraries' code and workspace are in place afterwards, and so is
        what the optimizer keeps.
        """
        shape = Shape(min(self.shape.batch, 2), TINY, TINY)
        self.learn(batches.draw(shape, self.classes, self.device))
        self.release()

    def step(self) -> None:
        """A step on the batch; its gradients stay."""
        self.learn(self.batch)

    def release(self) -> None:
        """Let go of the gradients."""
        self.optimizer.zero_grad(set_to_none=True)

    def learn(self, batch: batches.Batch) -> None:
        self.release()
        with torch.autocast(self.device.type, HALF[self.device.type],
                            enabled=self.amp):
            losses = self.model(batch.images, batch.samples, mode='loss')
            total, _ = self.model.parse_losses(losses)
        self.scaler.scale(total).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()


def model_config(path: str, classes: Optional[int] = None) -> dict:
    """The model of a config file, for another number of classes if asked.

    Raises:
        InputError: when it is no config, or has no decode head.
    """
    config = load_config(path).model.to_dict()
    if not isinstance(config.get('decode_head'), dict):
        raise InputError(f'config {path} has no model.decode_head; give one of '
                         'a segmentation network')
    if classes is not None:
        others = config.get('auxiliary_head') or []
        others = [others] if isinstance(others, dict) else others
        for head in [config['decode_head'], *others]:
            if 'num_classes' in head and head['type'] != 'STDCHead':
                head['num_classes'] = classes
    return config


def shape_of(path: str) -> Shape:
    """The batch and the crop that a config trains on.

    Raises:
        InputError: when it does not say.
    """
    config = load_config(path)
    batch = (config.get('train_dataloader') or {}).get('batch_size')
    crop = config.get('crop_size')
    if not isinstance(batch, int) or not isinstance(crop, (tuple, list)):
        raise InputError(f'config {path} has no crop_size or no '
                         'train_dataloader.batch_size; give --shape BxHxW')
    return Shape(batch, *crop)
