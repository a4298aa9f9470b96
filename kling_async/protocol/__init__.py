"""
The rules of the service and of this SDK as pure code.

Nothing here opens a socket, reads a clock, rolls dice, touches a disk or logs: whatever depends on time takes
*now*, whatever depends on chance takes the drawn number. A test holds this.
"""
