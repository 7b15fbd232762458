"""The one exception that a user of the tools can mend."""

__all__ = ['InputError']


class InputError(ValueError):
    """Data or configuration at fault.

    Its message is one line that names the cause and the remedy; the tools
    print that line alone.
    """
