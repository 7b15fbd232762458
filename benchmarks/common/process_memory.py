"""What the kernel says of the memory of this process. Linux only.

A peak over what is resident is meaningful where malloc maps every tensor by
itself (:data:`MAPPED` in the environment of the process), so that freed memory
goes back at once and none of it is there to be reused.
"""
import re
from pathlib import Path

from mmseg_encstdc.errors import InputError

__all__ = ['MAPPED', 'available', 'peak', 'resident', 'reset_peak']

MAPPED = {'MALLOC_MMAP_THRESHOLD_': '65536'}


def reset_peak() -> int:
    """Set the peak back to what is resident, and return that, in bytes.

    Raises:
        InputError: where the kernel does not let a process do so.
    """
    try:
        Path('/proc/self/clear_refs').write_text('5')  # the peak
        return resident('VmRSS')
    except OSError as error:
        raise InputError(f'memory cannot be measured: {error}; leave it '
                         'out with --no-memory') from error


def peak() -> int:
    """Bytes that were resident at most, since the last :func:`reset_peak`."""
    return resident('VmHWM')


def resident(key: str) -> int:
    """Bytes of this process by a name in /proc/self/status."""
    status = Path('/proc/self/status').read_text()
    return 1024 * int(re.search(rf'{key}:\s+(\d+) kB', status).group(1))


def available() -> int:
    """Bytes that this machine can give without swapping."""
    text = Path('/proc/meminfo').read_text()
    return 1024 * int(re.search(r'MemAvailable:\s+(\d+) kB', text).group(1))
