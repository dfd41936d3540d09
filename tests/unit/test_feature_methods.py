"""Do the methods on feature maps have the sizes that are known of them, and say no where they must?"""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torchvision import models

from pipeline.core.errors import ConfigError
from pipeline.engine.distiller import Distiller, StudentNumerics
from pipeline.losses.ofd import OFDLoss
from pipeline.losses.reviewkd import ReviewKDLoss
from pipeline.losses.semckd import SemCKDLoss
from pipeline.losses.simkd import SimKDLoss
from pipeline.losses.vid import VIDLoss
from pipeline.methods._shared.method import Method, MethodInput, Setting
from pipeline.methods._shared.pooling import pool_larger
from pipeline.methods._shared.registry import build_method
from pipeline.methods.ofd import OFD
from pipeline.methods.reviewkd import ReviewKD
from pipeline.methods.semckd import SemCKD
from pipeline.methods.simkd import SimKD, restore
from pipeline.methods.vid import VID
from pipeline.models.families.demo import demo_student, demo_teacher
from pipeline.models.measures import head_values, map_shapes, norm_values
from pipeline.models.network import Network
from pipeline.models.outputs import Outputs
from pipeline.models.weights import load_state

METHODS = ("at", "fitnet", "ofd", "reviewkd", "semckd", "simkd", "sp", "vid")
SIDES = (56, 28, 14, 7)
R18 = R34 = (64, 128, 256, 512)
R50, MV1 = (256, 512, 1024, 2048), (128, 256, 512, 1024)
BATCH, CLASSES = 8, 5


def published_setting(student: tuple[int, ...], teacher: tuple[int, ...]) -> Setting:
    """Two ImageNet networks at 224 pixels, with both kinds of taps."""

    def maps(widths: tuple[int, ...]) -> dict[str, tuple[int, int, int]]:
        stages = {f"stage{n}": (c, s, s) for n, (c, s) in enumerate(zip(widths, SIDES, strict=True), start=1)}
        return {**stages, **{f"{name}.pre": shape for name, shape in stages.items()}}

    return Setting(
        student_dim=student[-1],
        teacher_dim=teacher[-1],
        num_classes=1000,
        student_maps=maps(student),
        teacher_maps=maps(teacher),
        micro_batch=64,
        head=(torch.zeros(1000, teacher[-1]), torch.zeros(1000)),
        teacher_norms={f"stage{n}.pre": (torch.ones(c), torch.zeros(c)) for n, c in enumerate(teacher, start=1)},
    )


# millions of trainable parameters of the authors' modules: ResNet-34 -> ResNet-18, ResNet-50 -> MobileNetV1
@pytest.mark.parametrize(
    ("name", "arguments", "narrow", "wide"),
    [
        ("at", {}, 0.0, 0.0),
        ("fitnet", {"stage": "stage1"}, 0.004, 0.034),
        ("fitnet", {"stage": "stage2"}, 0.017, 0.133),
        ("vid", {}, 1.05, 13.9),
        ("semckd", {}, 54.8, 862.0),
        ("reviewkd", {}, 7.55, None),
        ("reviewkd", {"student_maps": "pre", "mid_channels": 256}, None, 14.3),
        ("ofd", {}, 0.35, 2.8),
    ],
)
def test_trainable_parts_are_as_large_as_the_authors(
    name: str, arguments: dict[str, Any], narrow: float | None, wide: float | None
) -> None:
    for expected, (student, teacher) in ((narrow, (R18, R34)), (wide, (MV1, R50))):
        method = build_method(name, arguments)
        with torch.device("meta"):  # 3.4 GB of SemCKD need not be there to be counted
            method.build(published_setting(student, teacher))
        found = sum(parameter.numel() for parameter in method.parameters()) / 1e6
        assert expected is None or found == pytest.approx(expected, rel=0.02, abs=5e-4)


@pytest.mark.parametrize(("student", "teacher", "expected"), [(R18, R34, 0.85), (MV1, R50, 12.6)])
def test_simkds_student_grows_by_the_projector(
    student: tuple[int, ...], teacher: tuple[int, ...], expected: float
) -> None:
    method = SimKD(SimKDLoss())
    method.build(published_setting(student, teacher))
    grown = method.student_network(nn.Identity())
    assert sum(p.numel() for p in grown.parameters() if p.requires_grad) / 1e6 == pytest.approx(expected, rel=0.02)
    assert not list(method.parameters())


def networks(method: Method, student: Callable[..., nn.Module] = demo_student) -> tuple[nn.Module, Network]:
    """A student, by default the demo's, as the method makes it, and the demo's teacher, for 64-pixel images."""
    needs = method.needs
    torch.manual_seed(1)
    student = Network(student(num_classes=CLASSES), taps=sorted(needs.student))
    maps = needs.teacher - {"logits", "embedding", "head"}
    teacher = Network(demo_teacher(num_classes=CLASSES), taps=sorted(maps)).requires_grad_(False)
    method.build(
        Setting(
            student_dim=student.embedding_dim,
            teacher_dim=teacher.embedding_dim,
            num_classes=CLASSES,
            student_maps=map_shapes(student, 64),
            teacher_maps=map_shapes(teacher, 64),
            micro_batch=BATCH,
            resolution=64,
            head=head_values(teacher),
            teacher_norms={tap: norm_values(teacher, tap) for tap in needs.norms},
        )
    )
    return method.student_network(student), teacher


@pytest.fixture
def images() -> Tensor:
    return torch.randn(BATCH, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def labels() -> Tensor:
    return torch.arange(BATCH) % CLASSES


@pytest.mark.parametrize("name", METHODS)
def test_half_precision_maps_give_a_float32_term_near_the_exact_one(name: str, images: Tensor, labels: Tensor) -> None:
    terms = {}
    for precision in ("off", "bf16"):
        method = build_method(name, {})
        student, teacher = networks(method)
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            outputs = student(images), teacher(images)
        for side in outputs if precision == "bf16" else ():
            assert {value.dtype for value in side.features.values()} == {torch.bfloat16}
        term = method(MethodInput(*outputs, labels, labels, epoch=0))
        assert term is not None
        term.backward()
        assert term.dtype == torch.float32
        assert all(
            p.grad is None or (p.grad.isfinite().all() and p.grad.dtype == torch.float32) for p in student.parameters()
        )
        terms[precision] = term.item()
    assert terms["bf16"] == pytest.approx(terms["off"], rel=0.05)


@pytest.mark.parametrize("name", METHODS)
def test_initial_values_are_a_function_of_the_seed(name: str) -> None:
    states = []
    for disturbance in (3, 4):
        method = build_method(name, {})
        torch.manual_seed(disturbance)
        before = torch.get_rng_state()
        setting = published_setting((4, 6, 8, 10), (5, 7, 9, 11))
        method.build(setting)
        student = method.student_network(nn.Identity())
        assert torch.equal(torch.get_rng_state(), before)
        states.append({**method.state_dict(), **student.state_dict()})
    for key, value in states[0].items():
        assert torch.equal(value, states[1][key]), key


@pytest.mark.parametrize("kind", [demo_student, models.shufflenet_v2_x0_5, models.mobilenet_v2, models.vgg11_bn])
def test_simkds_student_under_ddp_uses_every_parameter(
    kind: Callable[..., nn.Module], images: Tensor, labels: Tensor, tmp_path: Path
) -> None:
    method = SimKD(SimKDLoss())
    student, teacher = networks(method, kind)
    numerics = StudentNumerics(torch.device("cpu"), amp="off", label_smoothing=0.0)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/rendezvous", rank=0, world_size=1)
    try:
        distiller = Distiller(student, method, numerics, compiled=False)  # type: ignore[arg-type]
        wrapped = nn.parallel.DistributedDataParallel(distiller)
        for _ in range(2):  # an unused parameter is an error at the second pass
            wrapped(images, labels, labels, teacher(images), 0)["loss"].backward()
    finally:
        dist.destroy_process_group()
    frozen = [name for name, parameter in student.named_parameters() if not parameter.requires_grad]
    assert frozen == ["head.weight", "head.bias"]
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters() if p.requires_grad)


def test_simkds_student_answers_by_projector_and_teachers_head(images: Tensor) -> None:
    method = SimKD(SimKDLoss())
    student, teacher = networks(method)
    outputs: Outputs = student.eval()(images)
    pooled = student.projector(outputs.features["stage4"]).mean(dim=(2, 3))
    torch.testing.assert_close(outputs.logits, teacher.head(pooled))
    assert not method.plain_student()
    assert not any(key.startswith("network.model.fc") for key in student.model.state_dict())
    twin = copy.deepcopy(student)
    torch.testing.assert_close(twin(images).logits, outputs.logits)
    with torch.no_grad():
        larger = student(torch.zeros(2, 3, 96, 96))
    assert larger.logits.shape == (2, CLASSES)


def test_simkds_saved_student_comes_back(images: Tensor, tmp_path: Path) -> None:
    student, _ = networks(SimKD(SimKDLoss(factor=3)))
    expected = student.eval()(images).logits
    torch.save(student.model.state_dict(), tmp_path / "student.pt")
    fresh = Network(demo_student(num_classes=CLASSES), taps=("stage4",))
    restored = restore(fresh, torch.load(tmp_path / "student.pt", weights_only=True))
    torch.testing.assert_close(restored(images).logits, expected)
    plain = Network(demo_student(num_classes=CLASSES))
    with pytest.raises(ConfigError, match=r"SimKD student.*\n?.*simkd\.restore"):
        load_state(plain.model, student.model.state_dict(), name="demo_student@student.pt", head=plain.head_path)


def test_simkds_student_ends_at_its_last_map(images: Tensor, tmp_path: Path) -> None:
    whole = models.shufflenet_v2_x0_5(num_classes=CLASSES)
    expected = copy.deepcopy(whole)
    student, _ = networks(SimKD(SimKDLoss()), lambda num_classes: whole)
    assert not [key for key in student.state_dict() if key.startswith(("network.model.conv5", "network.model.fc"))]
    torch.testing.assert_close(student.eval()(images).logits, _simkd_by_hand(student, expected.eval(), images))
    torch.save(student.model.state_dict(), tmp_path / "student.pt")
    saved = torch.load(tmp_path / "student.pt", weights_only=True)
    earlier = {**saved, **{f"network.model.conv5.{key}": value for key, value in expected.conv5.state_dict().items()}}
    for state in (saved, earlier):
        fresh = Network(models.shufflenet_v2_x0_5(num_classes=CLASSES), taps=("stage4",))
        torch.testing.assert_close(restore(fresh, state)(images).logits, student(images).logits)
    other = Network(models.shufflenet_v2_x1_0(num_classes=CLASSES), taps=("stage4",))
    with pytest.raises(RuntimeError, match="size mismatch"):
        restore(other, saved)


def _simkd_by_hand(student: nn.Module, whole: nn.Module, images: Tensor) -> Tensor:
    features = Network(whole, taps=("stage4",))(images).features["stage4"]
    return student.head(student.projector(features).mean(dim=(2, 3)))


def test_simkd_refuses_a_head_that_is_not_on_the_last_map() -> None:
    setting = published_setting(R18, R34)
    with pytest.raises(ConfigError, match=r"(?s)512 channels.*a classifier of 4096 inputs.*Choose a teacher"):
        SimKD(SimKDLoss()).build(Setting(**{**vars(setting), "head": (torch.zeros(10, 4096), torch.zeros(10))}))


def test_simkd_refuses_a_teacher_with_a_norm_behind_its_last_map(images: Tensor, labels: Tensor) -> None:
    method = SimKD(SimKDLoss())
    student, teacher = networks(method)
    outputs = teacher(images)
    outputs.embedding = nn.functional.layer_norm(outputs.embedding, outputs.embedding.shape[1:])
    with pytest.raises(ConfigError, match="the average of its last map 'stage4'"):
        method(MethodInput(student(images), outputs, labels, labels, epoch=0))


def test_semckd_refuses_another_micro_batch(images: Tensor, labels: Tensor) -> None:
    method = SemCKD(SemCKDLoss())
    student, teacher = networks(method)
    with pytest.raises(ConfigError, match=r"(?s)made for: 8\s+found: +6.*--micro-batches"):
        method(MethodInput(student(images[:6]), teacher(images[:6]), labels[:6], labels[:6], epoch=0))
    with pytest.raises(ConfigError, match="micro-batch of 4 samples or more, got 3"):
        SemCKD(SemCKDLoss()).build(Setting(**{**vars(published_setting(R18, R34)), "micro_batch": 3}))


def test_semckd_takes_other_stages_of_the_teacher(images: Tensor, labels: Tensor) -> None:
    ours, theirs = ["stage2", "stage4"], ["stage4", "stage1", "stage3"]
    method = build_method("semckd", {"stages": ours, "teacher_stages": theirs})
    assert method.needs.student == set(ours)
    assert method.needs.teacher == {"logits", *theirs}
    student, teacher = networks(method)
    found, target = student(images), teacher(images)
    sources, goals = [found.features[tap] for tap in ours], [target.features[tap] for tap in theirs]
    attention_BST = method.attention(sources, goals)
    assert attention_BST.shape == (BATCH, 2, 3)
    errors = [
        [(regress(a) - b).square().mean(dim=(1, 2, 3)) for regress, (a, b) in zip(row, pairs, strict=True)]
        for row, pairs in zip(method.regressors, [[pool_larger(s, t) for t in goals] for s in sources], strict=True)
    ]
    errors_BST = torch.stack([torch.stack(row, dim=1) for row in errors], dim=1)
    expected = (attention_BST * errors_BST).sum() / (BATCH * 2)
    torch.testing.assert_close(method(MethodInput(found, target, labels, labels, epoch=0)), expected)
    with pytest.raises(ConfigError, match="--teacher-stages must name one feature tap or more"):
        SemCKD(SemCKDLoss(teacher_stages=()))


def test_vid_regresses_through_other_channels() -> None:
    setting = published_setting((4, 6, 8, 10), (5, 7, 9, 11))
    method = build_method("vid", {"mid_channels": 3})
    method.build(setting)
    shapes = [tuple(gaussian.regressor[n].weight.shape[:2]) for gaussian in method.gaussians for n in (0, 2, 4)]
    assert shapes == [s for c, w in zip((4, 6, 8, 10), (5, 7, 9, 11), strict=True) for s in ((3, c), (3, 3), (w, 3))]
    assert [len(gaussian.log_scale) for gaussian in method.gaussians] == [5, 7, 9, 11]
    with pytest.raises(ConfigError, match="--mid-channels must be above 0"):
        VID(VIDLoss(mid_channels=0))


# what a hyper-parameter of None stands for; the values at construction, too, are the same
@pytest.mark.parametrize(
    ("name", "left_out", "given"),
    [
        ("semckd", {}, {"teacher_stages": ["stage1", "stage2", "stage3", "stage4"]}),
        ("vid", {"stages": ["stage3"]}, {"stages": ["stage3"], "mid_channels": 9}),
    ],
)
def test_none_takes_what_is_there(name: str, left_out: dict[str, Any], given: dict[str, Any]) -> None:
    states = []
    for arguments in (left_out, given):
        method = build_method(name, arguments)
        method.build(published_setting((4, 6, 8, 10), (5, 7, 9, 11)))
        states.append(method.state_dict())
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())


def test_reviewkd_needs_two_samples_and_warms_up() -> None:
    setting = published_setting((4, 4, 4, 4), (4, 4, 4, 4))
    with pytest.raises(ConfigError, match=r"(?s)2 or more: got 1.*--micro-batches"):
        ReviewKD(ReviewKDLoss()).build(Setting(**{**vars(setting), "micro_batch": 1}))
    embedding, features = (
        torch.randn(2, 4),
        {f"stage{n}": torch.randn(2, 4, s, s) for n, s in enumerate((8, 4, 2, 1), 1)},
    )
    outputs = Outputs(torch.randn(2, 5), embedding, features)
    shares = []
    for first, epoch in ((0, 0), (0, 5), (0, 50), (1, 0)):
        method = ReviewKD(ReviewKDLoss(warmup_epochs=20, first_epoch=first))
        method.build(setting)
        plain = ReviewKD(ReviewKDLoss())
        plain.build(setting)
        inputs = MethodInput(outputs, outputs, torch.zeros(2), torch.zeros(2), epoch=epoch)
        shares.append((method(inputs) / plain(inputs)).item())
    assert shares == pytest.approx([0.0, 0.25, 1.0, 0.05])


def test_fitnet_as_in_repdistiller_refuses_odd_sizes() -> None:
    setting = Setting(1, 2, {"stage2": (4, 7, 7)}, {"stage2": (5, 12, 12)})
    with pytest.raises(ConfigError, match=r"(?s)student: \(4, 7, 7\)\s+teacher: \(5, 12, 12\).*--variant simkd"):
        build_method("fitnet", {"variant": "repdistiller"}).build(setting)


@pytest.mark.parametrize("name", METHODS)
def test_a_tap_that_is_no_map_is_refused(name: str) -> None:
    if name in ("at", "sp"):  # without trainable parts: nothing to fit
        return
    setting = Setting(**{**vars(published_setting(R18, R34)), "teacher_maps": {"stage9": (1, 2, 3)}})
    with pytest.raises(ConfigError, match=r"teacher has none at 'stage\d(.pre)?'. It has: stage9 \(1, 2, 3\)"):
        build_method(name, {}).build(setting)


def test_ofd_refuses_a_teacher_without_batch_norm() -> None:
    setting = published_setting(R18, R34)
    with pytest.raises(ConfigError, match=r"(?s)none is known for \['stage1.pre'.*Choose a teacher with BatchNorm"):
        OFD(OFDLoss()).build(Setting(**{**vars(setting), "teacher_norms": {}}))
    assert OFD(OFDLoss(teacher_mode="train")).needs.teacher_mode == "train"
