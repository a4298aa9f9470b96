"""Pictures and pages made of finished runs."""
