"""Crops for the generated demo images, whose patterns are lost in crops smaller than a quarter of the image."""

from pipeline.data.policies._shared.random_resized_crop import RandomResizedCrop

POLICY = RandomResizedCrop(area=(0.25, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)
