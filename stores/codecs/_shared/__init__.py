"""What codecs share."""
