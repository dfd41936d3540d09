"""SimKD, the teacher's classifier on the student's features."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pipeline.core.errors import ConfigError
from pipeline.losses.simkd import SimKDLoss
from pipeline.methods._shared.connectors import convolution, seeded, shapes_of
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods._shared.pooling import pool_larger, pool_to
from pipeline.methods._shared.precision import in_float32
from pipeline.models.head import Float32Linear
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.models.trim import cut_tail

PROJECTED = "projected"
_POOLING_RTOL = 0.05  # half precision maps


class SimKD(Method[SimKDLoss]):
    """Mean squared error between the projected last map of the student and the teacher's last map.

    The student that is trained, evaluated and saved is the network up to its last map, the projector and the teacher's
    classifier: `student_network`. Labels are not used, unless `ce` is given.
    """

    _checked = False
    _make_student: Callable[[nn.Module], nn.Module] | None = None

    def build(self, setting: Setting) -> None:
        """Keep what the student will be made of; its parts belong to the student, not to the method."""
        (student,) = shapes_of((self.loss.stage,), setting.student_maps, whose="student")
        (teacher,) = shapes_of((self.loss.stage,), setting.teacher_maps, whose="teacher")
        head = setting.head
        if head is None or head[0].shape[1] != teacher[0]:
            found = "none" if head is None else f"a classifier of {head[0].shape[1]} inputs"
            raise ConfigError(
                "SimKD averages the teacher's last map and applies the teacher's classifier to it:\n"
                f"  map '{self.loss.stage}': {teacher[0]} channels\n  classifier: {found}\n"
                "Choose a teacher that pools its last map right before a linear classifier (ResNet, DenseNet, ...)."
            )

        def make(network: nn.Module) -> nn.Module:
            with seeded(setting.seed, "simkd"):
                projector, classifier = Projector(student[0], teacher[0], factor=self.loss.factor), _frozen(head)
            return ProjectedStudent(
                network,
                projector,
                classifier,
                stage=self.loss.stage,
                scale=teacher[1] / student[1],
                resolution=setting.resolution,
            )

        self._make_student = make

    def student_network(self, student: nn.Module) -> nn.Module:
        """`student` up to the last map, with the projector and the teacher's classifier."""
        assert self._make_student is not None, "build comes first"
        return self._make_student(student)

    def forward(self, batch: MethodInput) -> Tensor:
        """The mean over all elements."""
        target = in_float32(batch.taught.features[self.loss.stage])
        if not self._checked and batch.taught.embedding is not None:
            self._check_pooling(target, batch.taught.embedding)
        return mse_loss(*pool_larger(in_float32(batch.student.features[PROJECTED]), target))

    def _check_pooling(self, features: Tensor, embedding: Tensor) -> None:
        """Refuse, at the first batch, a teacher that does more between its last map and its classifier than average."""
        pooled = features.mean(dim=(2, 3))
        if not torch.allclose(pooled, embedding.to(pooled.dtype), rtol=_POOLING_RTOL, atol=_POOLING_RTOL):
            raise ConfigError(
                f"SimKD needs a teacher whose classifier sees the average of its last map '{self.loss.stage}': this"
                " one's sees other values (a norm, say, comes between). Choose a ResNet, RegNet or DenseNet."
            )
        self._checked = True

    def plain_student(self) -> bool:
        """The student has the projector and the teacher's classifier."""
        return False


class ProjectedStudent(nn.Module):
    """A student whose logits are the teacher's classifier applied to its projected and pooled last map.

    Args:
        network: the student with the tap `stage`; loses its classifier and all that the map does not depend on.
        projector: from the student's channels to the teacher's.
        head: the teacher's classifier, frozen.
        stage: the last map.
        scale: the teacher's map's side over the student's; below 1 the student's map is pooled to it first.
        resolution: side of an image that the network takes, in pixels.
    """

    def __init__(
        self,
        network: nn.Module,
        projector: nn.Module,
        head: Float32Linear,
        *,
        stage: str,
        scale: float,
        resolution: int,
    ) -> None:
        super().__init__()
        self.cut: tuple[str, ...] = ()
        if isinstance(network, Network):
            network.drop_classifier()
            self.cut = cut_tail(network, stage, resolution)
        self.network, self.projector, self.head = network, projector, head
        self._stage, self._scale = stage, scale
        self.register_buffer("scale", torch.tensor(scale))  # for `restore`; reading it in forward would wait for a GPU

    @property
    def model(self) -> nn.Module:
        """What is saved as the student: all of it."""
        return self

    def forward(self, images: Tensor) -> Outputs:
        """Logits, the pooled projected map as embedding, and the network's taps with "projected" among them."""
        outputs: Outputs = self.network(images)
        features = outputs.features[self._stage]
        if self._scale < 1:
            height, width = (max(1, round(side * self._scale)) for side in features.shape[2:])
            features = pool_to(features, height, width)
        projected = self.projector(features)
        embedding = in_float32(projected).mean(dim=(2, 3))
        return Outputs(
            logits=self.head(embedding), embedding=embedding, features={**outputs.features, PROJECTED: projected}
        )


def restore(
    network: Network, state: Mapping[str, Tensor], *, stage: str = "stage4", resolution: int = 224
) -> ProjectedStudent:
    """The student of a saved SimKD run, ready for evaluation.

    Args:
        network: a fresh student network of the run's kind with the tap `stage`; loses what comes after it.
        state: "model" of RUN/student.pt.
        stage: the run's.
        resolution: side of an image that the network takes, in pixels.
    """
    inner, channels = state["projector.0.weight"].shape[:2]
    width = len(state["projector.6.weight"])
    projector = Projector(channels, width, factor=width // inner)
    head = _frozen((state["head.weight"], state["head.bias"]))
    scale = float(state["scale"])
    student = ProjectedStudent(network, projector, head, stage=stage, scale=scale, resolution=resolution)
    # students of earlier versions still have the layers that are cut now
    cut = tuple(f"network.model.{path}." for path in student.cut)
    student.load_state_dict({key: value for key, value in state.items() if not key.startswith(cut)})
    return student.eval()


class Projector(nn.Sequential):
    """Bottleneck of convolutions 1x1, 3x3, 1x1, each with BatchNorm and ReLU.

    Args:
        channels: of the student's map.
        width: channels of the teacher's.
        factor: the inner channels are width // factor.
    """

    def __init__(self, channels: int, width: int, *, factor: int) -> None:
        inner = width // factor
        layers: list[nn.Module] = []
        for convolved in (convolution(channels, inner), convolution(inner, inner, 3), convolution(inner, width)):
            layers += [convolved, nn.BatchNorm2d(convolved.out_channels), nn.ReLU()]
        super().__init__(*layers)


def _frozen(head: tuple[Tensor, Tensor]) -> Float32Linear:
    weight, bias = head
    layer = Float32Linear(weight.shape[1], weight.shape[0])
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)
    return layer.requires_grad_(False)
