"""Read the message of an InputError."""
import pytest

from mmseg_encstdc.errors import InputError


def error_of(function, *args, **kwargs):
    """Return the message, one line, of the InputError that a call raises."""
    with pytest.raises(InputError) as caught:
        function(*args, **kwargs)
    message = str(caught.value)
    assert '\n' not in message
    return message
