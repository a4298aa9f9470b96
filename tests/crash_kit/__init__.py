"""
Processes that die where a test wants them to, and the books by which it is judged what became of their jobs.

The client runs in a process of its own that is really killed; nothing is simulated. The server runs in another one, so
its books outlive every client.
"""

from __future__ import annotations

from .proof import Work, assert_kept, open_service, states
from .victim import Order
from .zygote import Death, Zygote

__all__ = ["Death", "Order", "Work", "Zygote", "assert_kept", "open_service", "states"]
