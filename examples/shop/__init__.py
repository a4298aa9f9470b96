"""What the three shops share: the orders, and the page."""
