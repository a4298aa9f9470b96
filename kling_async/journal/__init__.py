"""What survives a crash: every job's state, on the disk before anything is paid for."""
