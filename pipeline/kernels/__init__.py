"""Loss functions, each with a plain float64-capable reference."""
