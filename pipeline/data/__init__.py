"""From a folder of images to batches of replayable views on the training device."""
