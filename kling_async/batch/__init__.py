"""Many jobs at once: manifests in, outcomes and files out."""
