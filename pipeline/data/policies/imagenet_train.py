"""The standard ImageNet training view (torchvision's defaults)."""

from pipeline.data.policies._shared.random_resized_crop import RandomResizedCrop

POLICY = RandomResizedCrop(area=(0.08, 1.0), ratio=(3 / 4, 4 / 3), flip=0.5)
