"""For other people's frameworks: one file each, none loaded before it is used."""
