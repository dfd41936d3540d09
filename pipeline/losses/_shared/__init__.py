"""What the records share."""
