"""The training view of SimKD and SemCKD, whose DALI pipelines crop 0.1-1 of the area at ratios 0.8-1.25."""

from pipeline.data.policies._shared.random_resized_crop import RandomResizedCrop

POLICY = RandomResizedCrop(area=(0.1, 1.0), ratio=(0.8, 1.25), flip=0.5)
