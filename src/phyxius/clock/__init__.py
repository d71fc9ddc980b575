"""Time as a dependency: what the library knows of time, it asks of a `Clock`."""

from phyxius.clock._clock import Clock, TimerHandle
from phyxius.clock._controlled import ControlledClock, create_controlled_clock
from phyxius.clock._instant import Instant
from phyxius.clock._limits import Limited, Settled, gather_within, timeout, uninterrupted
from phyxius.clock._portal import Portal, PortalClosedError
from phyxius.clock._system import SystemClock, create_system_clock
from phyxius.clock._threads import Workers, carried_on, result_of, run_in_thread

__all__ = [
    "Clock",
    "ControlledClock",
    "Instant",
    "Limited",
    "Portal",
    "PortalClosedError",
    "Settled",
    "SystemClock",
    "TimerHandle",
    "Workers",
    "carried_on",
    "create_controlled_clock",
    "create_system_clock",
    "gather_within",
    "result_of",
    "run_in_thread",
    "timeout",
    "uninterrupted",
]
