"""Whose results a folder has: emulated and real ones never mix, however the emulator is reached."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from recipe_kit import job  # placeholder
