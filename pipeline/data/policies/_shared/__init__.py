"""What policies share: the classes that draw."""
