"""Curriculum temperature on ImageNet: T is trained against the student, around several methods.

T is logged at each step, and drawn in the run's curves.png.
"""

from launch.recipes.code_bases import CTKD, CTKD_IN_32S, R34_R18, R50_MBV1, Pair
from launch.recipes.feature_losses import CRDLoss, PKTLoss, SPLoss, SRRLLoss, VIDLoss
from launch.recipes.losses import CTKDLoss, DKDLoss, KLLoss, WeightedLoss, distilled
from pipeline.config import Files, RunConfig, Settings
from pipeline.core.errors import ConfigError


def ctkd_r34_r18(
    files: Files,
    pair: Pair = R34_R18,
    curriculum: CTKDLoss = CTKDLoss(),
    base: KLLoss = KLLoss(),
    settings: Settings = CTKD,
) -> RunConfig:
    """Curriculum temperature around KD of ResNet-34 to ResNet-18, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py ctkd_r34_r18 --data DIR --out runs/ctkd_r34_r18

    Published: 71.32 (README; KD 70.83).
    Cost: 120 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return _learned("ctkd_r34_r18", files, pair, curriculum, base, settings)


def ctkd_r50_mbv1(
    files: Files,
    pair: Pair = R50_MBV1,
    curriculum: CTKDLoss = CTKDLoss(),
    base: KLLoss = KLLoss(),
    settings: Settings = CTKD,
) -> RunConfig:
    """Curriculum temperature around KD of ResNet-50 to MobileNetV1, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py ctkd_r50_mbv1 --data DIR --out runs/ctkd_r50_mbv1

    Published: 71.16 (unchecked).
    Cost: 120 epochs, 3.4 times the arithmetic of MobileNetV1 from labels.
    """
    return _learned("ctkd_r50_mbv1", files, pair, curriculum, base, settings)


def ctkd_instance_r34_r18(
    files: Files,
    pair: Pair = R34_R18,
    curriculum: CTKDLoss = CTKDLoss(mode="instance"),
    base: KLLoss = KLLoss(),
    settings: Settings = CTKD,
) -> RunConfig:
    """Curriculum temperature for each sample, around KD of ResNet-34 to ResNet-18.

    torchrun --nproc_per_node=8 launch/imagenet.py ctkd_instance_r34_r18 --data DIR --out runs/ctkd_instance_r34_r18

    Published: none on ImageNet.
    Cost: 120 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    The network that gives temperatures is not part of the authors' release; its width is ours.
    """
    return _learned("ctkd_instance_r34_r18", files, pair, curriculum, base, settings)


def ctkd_dkd_r34_r18(
    files: Files,
    pair: Pair = R34_R18,
    curriculum: CTKDLoss = CTKDLoss(),
    base: DKDLoss = DKDLoss(beta=1.0, warmup_epochs=0),
    settings: Settings = CTKD,
) -> RunConfig:
    """Curriculum temperature around decoupled KD of ResNet-34 to ResNet-18, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py ctkd_dkd_r34_r18 --data DIR --out runs/ctkd_dkd_r34_r18

    Published: 71.51 (README).
    Cost: 120 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return _learned("ctkd_dkd_r34_r18", files, pair, curriculum, base, settings)


def ctkd_pkt_r34_r18(
    files: Files,
    pair: Pair = R34_R18,
    curriculum: CTKDLoss = CTKDLoss(),
    base: PKTLoss = PKTLoss(kd=1.0),
    settings: Settings = CTKD_IN_32S,
) -> RunConfig:
    """Curriculum temperature around PKT with KD of ResNet-34 to ResNet-18, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py ctkd_pkt_r34_r18 --data DIR --out runs/ctkd_pkt_r34_r18

    Published: 71.29 (unchecked).
    Cost: 120 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    The term of the base falls as one over the micro-batch: CTKD's eight GPUs see 32 images each (--max-micro-batch).
    More ranks cut the batch finer: then give --reference-batch 32.
    """
    return _learned("ctkd_pkt_r34_r18", files, pair, curriculum, base, settings)


def ctkd_sp_r34_r18(
    files: Files,
    pair: Pair = R34_R18,
    curriculum: CTKDLoss = CTKDLoss(),
    base: SPLoss = SPLoss(kd=1.0),
    settings: Settings = CTKD_IN_32S,
) -> RunConfig:
    """Curriculum temperature around SP with KD of ResNet-34 to ResNet-18, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py ctkd_sp_r34_r18 --data DIR --out runs/ctkd_sp_r34_r18

    Published: none.
    Cost: 120 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    The term of the base falls as one over the micro-batch: CTKD's eight GPUs see 32 images each (--max-micro-batch).
    More ranks cut the batch finer: then give --reference-batch 32.
    """
    return _learned("ctkd_sp_r34_r18", files, pair, curriculum, base, settings)


def ctkd_vid_r34_r18(
    files: Files,
    pair: Pair = R34_R18,
    curriculum: CTKDLoss = CTKDLoss(),
    base: VIDLoss = VIDLoss(kd=1.0),
    settings: Settings = CTKD,
) -> RunConfig:
    """Curriculum temperature around VID with KD of ResNet-34 to ResNet-18, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py ctkd_vid_r34_r18 --data DIR --out runs/ctkd_vid_r34_r18

    Published: none.
    Cost: 120 epochs, 1.8 times the arithmetic of ResNet-18 from labels.
    """
    return _learned("ctkd_vid_r34_r18", files, pair, curriculum, base, settings)


def ctkd_crd_r34_r18(
    files: Files,
    pair: Pair = R34_R18,
    curriculum: CTKDLoss = CTKDLoss(),
    base: CRDLoss = CRDLoss(kd=1.0),
    settings: Settings = CTKD,
) -> RunConfig:
    """Curriculum temperature around CRD with KD of ResNet-34 to ResNet-18, with its authors' settings.

    torchrun --nproc_per_node=8 launch/imagenet.py ctkd_crd_r34_r18 --data DIR --out runs/ctkd_crd_r34_r18

    Published: none: the authors' code cannot run it on ImageNet.
    Cost: 120 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    Memory: as crd_r34_r18.
    """
    return _learned("ctkd_crd_r34_r18", files, pair, curriculum, base, settings)


def ctkd_srrl_r34_r18(
    files: Files,
    pair: Pair = R34_R18,
    curriculum: CTKDLoss = CTKDLoss(),
    base: SRRLLoss = SRRLLoss(kd=1.0, form="pooled"),
    settings: Settings = CTKD,
) -> RunConfig:
    """Curriculum temperature around pooled SRRL with KD of ResNet-34 to ResNet-18, as its authors train it.

    torchrun --nproc_per_node=8 launch/imagenet.py ctkd_srrl_r34_r18 --data DIR --out runs/ctkd_srrl_r34_r18

    Published: 71.30 (unchecked).
    Cost: 120 epochs, 1.7 times the arithmetic of ResNet-18 from labels.
    """
    return _learned("ctkd_srrl_r34_r18", files, pair, curriculum, base, settings)


def _learned(
    recipe: str, files: Files, pair: Pair, curriculum: CTKDLoss, base: WeightedLoss, settings: Settings
) -> RunConfig:
    """The run in which the base's temperature is learned.

    Raises:
        ConfigError: a temperature is given.
    """
    if base.temperature != type(base)().temperature:
        raise ConfigError(f"ctkd learns the temperature: leave out --temperature {base.temperature:g}")
    return distilled(recipe, files, *pair, curriculum, settings, base=base)
