"""A classifier that also gives its embedding and the feature maps that were asked for."""

from collections.abc import Collection

import torch
from torch import Tensor, nn

from pipeline.core.errors import ConfigError
from pipeline.models.head import Float32Linear, install_head, install_pooling
from pipeline.models.outputs import Outputs
from pipeline.models.stages import tap_points
from pipeline.models.taps import Recorder, TapPoint, choose

EMBEDDING = "embedding"


class Network(nn.Module):
    """Wraps a classifier whose last layer is linear.

    The model is changed in place: its last linear layer and its global pooling compute in float32, and an activation
    whose input is tapped no longer overwrites it. Parameters and state_dict keys stay, so `network.model` interchanges
    weights with the plain model. The tap "embedding" costs nothing and is always there, as `Outputs.embedding`.

    Args:
        model: (B, 3, H, W) -> (B, C) logits.
        taps: names of feature maps to hand out, from `tap_names()`.

    Raises:
        ConfigError: no linear classifier, or a tap that the family does not offer.
    """

    def __init__(self, model: nn.Module, *, taps: Collection[str] = ()) -> None:
        super().__init__()
        self.head_path = install_head(model)
        install_pooling(model)
        self.model = model
        self._offered = {**tap_points(model), EMBEDDING: TapPoint(self.head_path, side="input")}
        chosen = choose(self._offered, (EMBEDDING, *taps), type(model).__name__)
        self._taps = tuple(name for name in chosen if name != EMBEDDING)
        self._recorder = Recorder()
        self._recorder.attach(model, chosen)
        self._checked = False

    @property
    def head(self) -> Float32Linear:
        """The classifier: `weight` (C, D), `bias` (C,) or None."""
        head = self.model.get_submodule(self.head_path)
        if not isinstance(head, Float32Linear):
            raise TypeError(f"the classifier was replaced by {type(head).__name__}")
        return head

    @property
    def num_classes(self) -> int:
        """C."""
        return self.head.out_features

    @property
    def embedding_dim(self) -> int:
        """D."""
        return self.head.in_features

    @property
    def taps(self) -> tuple[str, ...]:
        """The maps that it hands out."""
        return self._taps

    def tap_names(self) -> tuple[str, ...]:
        """The taps that this family offers."""
        return tuple(self._offered)

    def drop_classifier(self) -> None:
        """Make the classifier the identity, for a student whose logits are made elsewhere; `head` is then no more.

        An unused classifier would get no gradient, which DDP refuses, and would still be decayed.
        """
        self.model.set_submodule(self.head_path, nn.Identity())
        self._recorder.attach(self.model, {EMBEDDING: self._offered[EMBEDDING]})

    def forward(self, images: Tensor) -> Outputs:
        """Logits, embedding and tapped maps of normalised (B, 3, H, W) images.

        Raises:
            ConfigError: at the first call outside torch.compile: the model's output is not its head's, or it refuses
                images of this size.
        """
        self._recorder.take()
        if torch.compiler.is_compiling() or self._checked:
            logits, recorded = self.model(images), self._recorder.take()
        else:
            logits = self._first_logits(images)
            recorded = self._recorder.take()
            self._check(logits, recorded)
        features = {name: recorded[name] for name in self._taps}
        return Outputs(logits=logits, embedding=recorded[EMBEDDING].float(), features=features)

    def _first_logits(self, images: Tensor) -> Tensor:
        try:
            return self.model(images)
        except AssertionError as error:  # how torchvision's transformers refuse a size
            raise ConfigError(
                f"{type(self.model).__name__} does not take images of shape {tuple(images.shape[1:])}: {error}.\n"
                "Give the --resolution that it was made for."
            ) from error

    def _check(self, logits: object, recorded: dict[str, Tensor]) -> None:
        name = type(self.model).__name__
        if not isinstance(logits, Tensor) or logits.ndim != 2:
            found = f"shape {tuple(logits.shape)}" if isinstance(logits, Tensor) else type(logits).__name__
            raise ConfigError(f"a model must return logits of shape (batch, classes): {name} returns {found}")
        silent = [tap for tap in (EMBEDDING, *self._taps) if tap not in recorded]
        if silent:
            raise ConfigError(f"{name} did not run the layers of {', '.join(silent)}: they cannot be tapped")
        if not isinstance(self.model.get_submodule(self.head_path), nn.Identity):
            self._check_head(logits.detach(), recorded[EMBEDDING].detach())
        self._checked = True

    @torch.no_grad()
    def _check_head(self, logits: Tensor, embedding: Tensor) -> None:
        expected = self.head(embedding)
        self._recorder.take()
        if expected.shape != logits.shape or not torch.allclose(
            expected, logits.float(), rtol=1e-2, atol=1e-2, equal_nan=True
        ):
            raise ConfigError(
                f"the logits must be the output of the last linear layer: in {type(self.model).__name__} that is "
                f"'{self.head_path}' ({self.embedding_dim} -> {self.num_classes}), and it gives other values. "
                "Return its output unchanged (no softmax), and define it last."
            )
