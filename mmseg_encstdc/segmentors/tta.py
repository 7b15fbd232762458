"""Average the predictions of augmented views of an image."""
from typing import List

import torch
from mmengine.structures import PixelData
from mmseg.models.segmentors import SegTTAModel as StockSegTTAModel
from mmseg.structures import SegDataSample
from torch import Tensor

__all__ = ['SegTTAModel']


class SegTTAModel(StockSegTTAModel):
    """Average the probabilities of all views, also of a network of one channel.

    Has the arguments and, for two channels or more, the labels of MMSegmentation's
    SegTTAModel. For one channel that class takes the sigmoid of probabilities, which
    is never below 0.5.
    """

    def merge_preds(self, data_samples_list: List[List[SegDataSample]]
                    ) -> List[SegDataSample]:
        """Merge the views of each image into one sample.

        Returns:
            Samples with the labels ``pred_sem_seg`` (1, H, W), and with the mean
            probabilities (C, H, W) as ``seg_logits``.
        """
        return [self._merge(views) for views in data_samples_list]

    def _merge(self, views: List[SegDataSample]) -> SegDataSample:
        """Return the sample of one image from those of its views."""
        probability = sum(map(self._probability, views)) / len(views)  # (C, H, W)
        if self.module.out_channels == 1:
            threshold = self.module.decode_head.threshold
            labels = (probability > threshold).to(probability)
        else:
            labels = probability.argmax(0, keepdim=True)
        merged = views[-1]
        merged.set_data(dict(pred_sem_seg=PixelData(data=labels),
                             seg_logits=PixelData(data=probability)))
        if 'gt_sem_seg' in views[0]:
            merged.set_data(dict(gt_sem_seg=views[0].gt_sem_seg))
        merged.set_metainfo(dict(img_path=views[0].img_path))
        return merged

    def _probability(self, view: SegDataSample) -> Tensor:
        """Return the probabilities (C, H, W) of one view."""
        scores = view.seg_logits.data
        # The segmentor has taken the sigmoid of one channel already.
        return scores if self.module.out_channels == 1 else torch.softmax(scores, 0)
