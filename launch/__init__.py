"""Programs: training, preparing data, recipes."""
