"""Build data sets that MMEngine would not build."""

__all__ = ['build_without_pipeline']


def build_without_pipeline(config: dict):
    """Build the data set of a config, to look at its samples alone.

    It is not serialized, because MMEngine cannot serialize an empty set.
    """
    from mmseg.registry import DATASETS
    return DATASETS.build({**config, 'pipeline': [], 'serialize_data': False})
