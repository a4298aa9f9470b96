"""`doctor`: facts are gathered by `gather.py`, judged by pure functions in `remote.py` and `local.py`, told by `command.py`."""
