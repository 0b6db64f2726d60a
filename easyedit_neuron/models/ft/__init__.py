"""Fine-tuning baselines FT-L and FT-M."""
