"""Where the client meets other software: web frameworks, telemetry. One module each, imported when it is used."""
