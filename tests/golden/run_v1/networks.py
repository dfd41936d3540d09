"""The networks of the recorded run and store: as small as layers with every kind of state allow."""

from torch import nn


def student(*, num_classes: int) -> nn.Module:
    """Convolutions, BatchNorm and dropout; 0.3 thousand parameters."""
    return _network(4, num_classes, dropout=0.3)


def teacher(*, num_classes: int) -> nn.Module:
    """The same, wider."""
    return _network(6, num_classes, dropout=0.0)


def _network(width: int, num_classes: int, *, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(3, width, 3, stride=4, bias=False),
        nn.BatchNorm2d(width),
        nn.SiLU(),
        nn.Conv2d(width, width, 3, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(width, num_classes),
    )
