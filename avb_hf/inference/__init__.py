"""Using models: what a clip's numbers depend on."""
