"""The size that claims are about."""

SAMPLES = 1_281_167
CLASSES = 1000
POLICY = "imagenet_train"
