"""
A local Kling that goes wrong on order, and keeps the books by which the promises of the client are judged.

For the tests of this project only. It shares no code with the package under test and knows nothing of aiohttp.
"""

from __future__ import annotations

from .books import Books, Charge, Entry
from .clock import Clock
from .remote import Remote
from .script import Fault, Script
from .server import FaultServer
from .service import Service, Settings
from .tasks import Life, Listing
from .tokens import Gate
from .toxics import Toxic, ToxicProxy

__all__ = [
    "Books",
    "Charge",
    "Clock",
    "Entry",
    "Fault",
    "FaultServer",
    "Gate",
    "Life",
    "Listing",
    "Remote",
    "Script",
    "Service",
    "Settings",
    "Toxic",
    "ToxicProxy",
]
