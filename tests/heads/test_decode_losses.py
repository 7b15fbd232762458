"""decode_losses() gives MMSegmentation's losses without full-size logits."""
import pytest
import torch
from comparisons import assert_same_losses, losses_and_gradient, samples
from mmseg.models.decode_heads import FCNHead, decode_head
from mmseg.models.losses import CrossEntropyLoss

from mmseg_encstdc.heads import EncHead, SegHead
from mmseg_encstdc.heads import FCNHead as OurFCNHead
from mmseg_encstdc.losses import OhemCELoss, PixelReduction, PixelWeighting
from mmseg_encstdc.losses.pixel_losses import pixel_reductions

IGNORE = 255
CLASSES = 5
COVERED = [
    dict(type='CrossEntropyLoss'),
    dict(type='CrossEntropyLoss', avg_non_ignore=True, loss_weight=0.4),
    dict(type='CrossEntropyLoss', reduction='sum'),
    dict(type='OhemCELoss', min_kept=40),
    dict(type='OhemCELoss', class_weight=[1., 2., 0.5, 0., 3.]),
    [dict(type='CrossEntropyLoss'),
     dict(type='OhemCELoss', loss_weight=0.5)],
    [dict(type='CrossEntropyLoss', loss_name='loss_twice'),
     dict(type='CrossEntropyLoss', loss_name='loss_twice', avg_non_ignore=True)],
]
WEIGHED = [
    dict(type='CrossEntropyLoss', class_weight=[1., 2., 0.5, 0., 3.],
         avg_non_ignore=avg) for avg in (False, True)]
OTHERS = [
    dict(type='DiceLoss'),
    dict(type='TverskyLoss'),
    dict(type='CrossEntropyLoss', use_sigmoid=True),
    [dict(type='CrossEntropyLoss'), dict(type='DiceLoss')],
]


def seg_head(loss, **kwargs):
    return SegHead(8, 4, num_classes=CLASSES, loss_decode=loss, **kwargs)


def draw(ignored=0.2):
    logits = torch.randn(2, CLASSES, 7, 9)
    labels = torch.randint(0, CLASSES, (2, 50, 61))
    labels[torch.rand(labels.shape) < ignored] = IGNORE
    return logits, labels


def stock_losses(head):
    """Return MMSegmentation's loss function of a head."""
    return lambda logits, batch: FCNHead.loss_by_feat(head, logits, batch)


@pytest.fixture
def never_resized(monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError('the logits were resized')
    monkeypatch.setattr(decode_head, 'resize', refuse)


@pytest.mark.parametrize('align_corners', [False, True])
@pytest.mark.parametrize('loss', COVERED, ids=str)
def test_decode_losses_match_mmsegmentation(loss, align_corners):
    head = seg_head(loss, align_corners=align_corners)
    inputs = draw()
    assert_same_losses(losses_and_gradient(head.loss_by_feat, *inputs),
                losses_and_gradient(stock_losses(head), *inputs))


@pytest.mark.parametrize('loss', WEIGHED, ids=str)
def test_decode_losses_with_class_weights_match_mmsegmentation(loss):
    # Without ignored pixels: MMSegmentation fails to look up their weight.
    head = seg_head(loss)
    inputs = draw(ignored=0)
    assert_same_unless_stock_fails(head, *inputs)


def assert_same_unless_stock_fails(head, *inputs):
    ours = losses_and_gradient(head.loss_by_feat, *inputs)
    try:
        theirs = losses_and_gradient(stock_losses(head), *inputs)
    except IndexError:
        pytest.skip("the fork's own loss fails at class_weight with avg_non_ignore")
    assert_same_losses(ours, theirs)


def test_decode_losses_with_class_weights_exclude_ignored_pixels():
    head = seg_head(WEIGHED[1])
    logits, labels = draw()
    losses = head.loss_by_feat(logits, samples(labels))
    keep = labels != IGNORE
    enlarged = torch.nn.functional.interpolate(
        logits, labels.shape[1:], mode='bilinear', align_corners=False)
    expected = torch.nn.functional.cross_entropy(
        enlarged.movedim(1, -1)[keep], labels[keep],
        torch.tensor(WEIGHED[1]['class_weight']))
    torch.testing.assert_close(losses['loss_ce'], expected)


@pytest.mark.parametrize('loss', COVERED + WEIGHED, ids=str)
def test_decode_losses_do_not_resize_logits(loss, never_resized):
    logits, labels = draw(ignored=0)
    seg_head(loss).loss_by_feat(logits, samples(labels))


@pytest.mark.parametrize('loss', OTHERS, ids=str)
def test_decode_losses_of_other_losses_match_mmsegmentation(loss):
    head = seg_head(loss)
    inputs = draw()
    assert_same_losses(losses_and_gradient(head.loss_by_feat, *inputs),
                losses_and_gradient(stock_losses(head), *inputs))


# --- One channel -------------------------------------------------------------

SIGMOID = dict(type='CrossEntropyLoss', use_sigmoid=True, avg_non_ignore=True)
OHEM = dict(type='OhemCELoss', thresh=0.6, min_kept=0.2)


def binary_head(loss, channels=1, kind=SegHead, **kwargs):
    """Return a head of two classes; its background has the logit 0 in two channels."""
    if kind is EncHead:
        kwargs.update(in_index=[0], use_se_loss=False)
    return kind(in_channels=[8] if kind is EncHead else 8, channels=4, num_classes=2,
                out_channels=channels, threshold=0.3, loss_decode=loss, **kwargs)


def draw_binary():
    """Return logits (2, 1, 7, 9), labels (2, 50, 61), and the logits at their size."""
    logits = 2 * torch.randn(2, 1, 7, 9)
    labels = torch.randint(0, 2, (2, 50, 61))
    labels[torch.rand(labels.shape) < 0.2] = IGNORE
    large = torch.nn.functional.interpolate(logits, (50, 61), mode='bilinear')
    return logits, labels, large.squeeze(1)


@pytest.mark.parametrize('kind', [SegHead, EncHead, OurFCNHead])
def test_one_channel_sigmoid_loss_and_accuracy_match_formulas(kind):
    head = binary_head(SIGMOID, kind=kind)
    logits, labels, large = draw_binary()
    found = head.loss_by_feat(logits, samples(labels))
    keep = labels != IGNORE
    z, y = large[keep], labels[keep].float()
    expected = -(y * z.sigmoid().log() + (1 - y) * (-z).sigmoid().log()).mean()
    torch.testing.assert_close(found['loss_ce'], expected)
    accuracy = 100 * ((z.sigmoid() > 0.3) == y.bool()).float().mean()
    torch.testing.assert_close(found['acc_seg'].squeeze(), accuracy)


@pytest.mark.parametrize('loss', [
    OHEM, dict(class_weight=[0.5, 3.], **OHEM), [OHEM, dict(OHEM, min_kept=40)]],
    ids=['plain', 'weighted', 'two'])
def test_one_channel_ohem_loss_is_that_of_two_channels(loss):
    logits, labels, _ = draw_binary()
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    one = losses_and_gradient(binary_head(loss).loss_by_feat, logits, labels)
    expected = losses_and_gradient(
        binary_head(loss, 2).loss_by_feat, two, labels)
    torch.testing.assert_close(one[0]['loss_ohem'], expected[0]['loss_ohem'])
    torch.testing.assert_close(one[1], expected[1][:, 1:])
    assert one[0]['loss_ohem'] > 0.1


@pytest.mark.parametrize('thresh', [0.7, None])
def test_one_channel_sampler_selects_pixels_of_two_channels(thresh):
    sampler = dict(type='OHEMPixelSampler', thresh=thresh, min_kept=300)
    logits, labels, large = draw_binary()
    loss = dict(type='CrossEntropyLoss', reduction='sum')
    found = binary_head(dict(use_sigmoid=True, **loss), sampler=sampler).loss_by_feat(
        logits, samples(labels))
    two = torch.cat([torch.zeros_like(logits), logits], 1)
    expected = binary_head(loss, 2, sampler=sampler).loss_by_feat(
        two, samples(labels))
    torch.testing.assert_close(found['loss_ce'], expected['loss_ce'])


@pytest.mark.parametrize('loss', [SIGMOID, OHEM, dict(type='BinaryDiceLoss')],
                         ids=lambda loss: loss['type'])
def test_one_channel_losses_of_ignored_pixels_are_zero(loss):
    logits, labels, _ = draw_binary()
    losses, grad = losses_and_gradient(
        binary_head(loss).loss_by_feat, logits, torch.full_like(labels, IGNORE))
    assert all(value == 0 for name, value in losses.items() if 'loss' in name)
    assert (grad == 0).all() and losses['acc_seg'].isfinite()


def test_one_channel_losses_without_ignored_id_count_all_pixels():
    head = binary_head(SIGMOID, ignore_index=None)
    logits, labels, large = draw_binary()
    labels = labels.clamp(max=1)
    found = head.loss_by_feat(logits, samples(labels))
    accuracy = 100 * ((large.sigmoid() > 0.3) == labels.bool()).float().mean()
    torch.testing.assert_close(found['acc_seg'].squeeze(), accuracy)
    torch.testing.assert_close(
        found['loss_ce'], torch.nn.functional.binary_cross_entropy_with_logits(
            large, labels.float()))


def test_one_channel_dice_loss_finds_the_foreground():
    logits, labels, large = draw_binary()
    perfect = 20 * (2. * (labels == 1) - 1).unsqueeze(1)
    head = binary_head(dict(type='BinaryDiceLoss'))
    assert head.loss_by_feat(perfect, samples(labels))['loss_bdice'] < 1e-3
    assert head.loss_by_feat(-perfect, samples(labels))['loss_bdice'] > 0.9


def test_one_channel_enc_head_has_presence_loss_of_both_classes():
    head = EncHead(in_channels=[8], channels=8, in_index=[0], num_classes=2,
                   out_channels=1, threshold=0.5, loss_decode=SIGMOID,
                   loss_se_decode=dict(type='SemanticEncodingLoss', loss_weight=1.))
    logits, labels, _ = draw_binary()
    labels[1] = 1
    presence = torch.randn(2, 2)
    losses = head.loss_by_feat((logits, presence), samples(labels))
    target = torch.tensor([[1., 1.], [0., 1.]])
    torch.testing.assert_close(
        losses['loss_se'], torch.nn.functional.binary_cross_entropy_with_logits(
            presence, target))


def test_enc_head_does_not_resize_logits(never_resized):
    head = EncHead(in_channels=[8], channels=8, in_index=[0], num_classes=CLASSES)
    logits, labels = draw()
    losses = head.loss_by_feat((logits, torch.randn(2, CLASSES)), samples(labels))
    assert set(losses) == {'loss_ce', 'loss_se', 'acc_seg'}


@pytest.mark.parametrize('loss', COVERED, ids=str)
def test_decode_losses_of_ignored_pixels_are_zero(loss):
    logits, labels = draw()
    labels[:] = IGNORE
    losses, grad = losses_and_gradient(
        seg_head(loss).loss_by_feat, logits, labels)
    assert all(value == 0 for name, value in losses.items() if 'loss' in name)
    assert (grad == 0).all() and losses['acc_seg'].isfinite()


def test_custom_pixel_reduction_does_not_resize_logits(never_resized):
    class Doubled(CrossEntropyLoss, PixelReduction):
        def reduce_pixels(self, pixels, weight=None):
            assert pixels.hits.shape == pixels.losses.shape == labels.shape
            return 2 * pixels.losses.mean()

    head = seg_head(dict(type='CrossEntropyLoss'))
    logits, labels = draw()
    once = head.loss_by_feat(logits, samples(labels))['loss_ce']
    head.loss_decode = Doubled()
    twice = head.loss_by_feat(logits, samples(labels))['loss_ce']
    torch.testing.assert_close(twice, 2 * once)


def test_custom_pixel_weighting_weights_pixels(never_resized):
    class UpperHalf(PixelWeighting):
        def pixel_weights(self, pixels):
            assert not pixels.losses.requires_grad
            weight = torch.zeros_like(pixels.losses)
            weight[:, :25] = 1
            return weight

    head = seg_head(dict(type='CrossEntropyLoss', reduction='sum'))
    logits, labels = draw()
    upper = labels.clone()
    upper[:, 25:] = IGNORE
    expected = head.loss_by_feat(logits, samples(upper))['loss_ce']
    head.sampler = UpperHalf()
    got = head.loss_by_feat(logits.requires_grad_(), samples(labels))['loss_ce']
    torch.testing.assert_close(got, expected)


def test_pixel_reductions_reject_subclass_of_cross_entropy():
    class Other(CrossEntropyLoss):
        pass

    head = seg_head(dict(type='CrossEntropyLoss'))
    for loss in (Other(), CrossEntropyLoss(reduction='none')):
        head.loss_decode = loss
        assert pixel_reductions(head) is None
    head.loss_decode = OhemCELoss()
    assert pixel_reductions(head) == [head.loss_decode]


@pytest.mark.parametrize('avg_non_ignore', [False, True])
@pytest.mark.parametrize('ignore_index', [0, 2, -1])
def test_decode_losses_with_ignored_class_match_mmsegmentation(
        ignore_index, avg_non_ignore):
    head = seg_head(dict(
        type='CrossEntropyLoss', class_weight=[1., 2., 0.5, 4., 3.],
        avg_non_ignore=avg_non_ignore), ignore_index=ignore_index)
    logits, labels = draw(ignored=0)
    labels[:, :9] = ignore_index
    assert_same_unless_stock_fails(head, logits, labels)
