"""The client: what users hold in their hands, and the engine that all their calls share."""
