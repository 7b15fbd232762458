"""Length of each training, so that the demo ends in time."""
import math
import time
from typing import Callable, Dict, NamedTuple

from mmseg_encstdc.errors import InputError

RESERVE = 0.08  # of the time: pictures, and a machine that becomes slower
FIRST_PICTURE = 1 / 3  # of the time, at the latest
LEAST_PART = 0.05  # of each schedule, below which the time is extended


class Cost(NamedTuple):
    """Time that one network takes on this machine."""
    iterations: int  # of its config
    seconds: float  # of an iteration
    fixed: float  # seconds to start training, and to evaluate


class TimePlan:
    """Shorten the schedules of networks that train one after another.

    All are shortened by the same factor, and never lengthened. The factor is
    computed anew before each network, from the time that is left.

    Args:
        minutes: from now to the end of the last evaluation.
        networks: how many there are.
        may_extend: give a slow machine more minutes, instead of raising an error.
        clock: seconds that have passed since any fixed moment.

    Raises:
        InputError: when ``minutes`` is not above 0.
    """

    def __init__(self, minutes: float, networks: int, may_extend: bool = False,
                 clock: Callable[[], float] = time.monotonic):
        if not minutes > 0:  # nan included
            raise InputError(f'--minutes must be above 0, got {minutes:g}')
        self.minutes = minutes
        self.networks = networks
        self.may_extend = may_extend
        self.clock = clock
        self.started = clock()
        self.costs: Dict[str, Cost] = {}  # of the networks not yet finished
        self.iterations: Dict[str, int] = {}
        self.no_picture_yet = True

    def seconds_until(self, part: float) -> float:
        """Return the seconds until a part of the time has passed."""
        return self.started + 60 * self.minutes * part - self.clock()

    def add_cost(self, name: str, cost: Cost) -> None:
        """Take the measured cost of a network, in the order of training.

        Raises:
            InputError: when the time is too short for one iteration of each
                network so far and must not be extended. The least number that it
                states counts the networks that are not measured like those that are.
        """
        self.costs[name] = cost
        if self.may_extend:
            self.minutes = max(self.minutes, self._least_minutes(LEAST_PART))
            return
        needed = sum(c.seconds + c.fixed for c in self.costs.values())
        if needed > self.seconds_until(1 - RESERVE):
            raise InputError(
                f'--minutes {self.minutes:g} is too short for one iteration of '
                'each network on this machine; give at least '
                f'{math.ceil(10 * self._least_minutes(0)) / 10:g}')

    def _least_minutes(self, part: float) -> float:
        """Return the minutes for a part of each schedule, at least an iteration."""
        needed = sum(max(1, part * c.iterations) * c.seconds + c.fixed
                     for c in self.costs.values())
        seconds = (self.clock() - self.started + needed) * (
            self.networks / len(self.costs)) / (1 - RESERVE)
        return seconds / 60

    def start(self, name: str) -> int:
        """Return the number of iterations that a network may train for."""
        training = sum(c.iterations * c.seconds for c in self.costs.values())
        fixed = sum(c.fixed for c in self.costs.values())
        left = self.seconds_until(1 - RESERVE) - fixed
        factor = min(1, left / training)
        self.iterations = {other: max(1, int(factor * cost.iterations))
                           for other, cost in self.costs.items()}
        if self.no_picture_yet:
            cost = self.costs[name]
            left = self.seconds_until(FIRST_PICTURE) - cost.fixed
            if left < cost.seconds * self.iterations[name]:
                self.iterations[name] = max(1, int(left / cost.seconds))
        return self.iterations[name]

    def finish(self, name: str) -> None:
        """Leave a network out that is trained, evaluated and drawn."""
        del self.costs[name]
        self.no_picture_yet = False

    def minutes_left(self, name: str, done: int) -> float:
        """Return the minutes to the end of the last evaluation.

        Args:
            name: the network in training.
            done: its iterations until now.
        """
        seconds = -done * self.costs[name].seconds
        for other, cost in self.costs.items():
            seconds += self.iterations[other] * cost.seconds + cost.fixed
        return seconds / 60
