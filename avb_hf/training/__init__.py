"""Fine-tuning: flags, trainer and run folder."""
