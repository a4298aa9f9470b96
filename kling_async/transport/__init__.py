"""The seam to the network: aiohttp is imported here and nowhere above, and its exceptions end here."""
