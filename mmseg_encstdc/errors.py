"""Exceptions with a message for the user."""

__all__ = ['ArgumentError', 'InputError']


class InputError(ValueError):
    """Data or configuration at fault.

    Its message is one line that names the cause and the remedy; the tools
    print that line alone.
    """


class ArgumentError(ValueError, AssertionError):
    """An argument of a class that stands in for one of MMSegmentation's.

    That raises AssertionError in the same place, so who catches it still does.
    """
