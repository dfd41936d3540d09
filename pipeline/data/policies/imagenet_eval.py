"""The standard ImageNet evaluation view: shorter side to 256, centre 224."""

from pipeline.data.policies._shared.centre_crop import CentreCrop

POLICY = CentreCrop(share=224 / 256)
