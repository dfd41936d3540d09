"""The teacher of a run, as it was chosen: rows, a network, or both."""

import numpy as np
import torch

from pipeline.config import RunConfig
from pipeline.core.errors import ConfigError
from pipeline.devices.numerics import memory_format
from pipeline.losses._shared.record import Needs
from pipeline.models.measures import Affine
from pipeline.models.network import Network
from pipeline.models.spec import ModelSpec
from pipeline.models.weights import fingerprint_of_weights
from pipeline.models.zoo import build_network
from pipeline.teachers.base import Teacher
from pipeline.teachers.choice import StoredViews, TeacherChoice
from pipeline.teachers.preparation import preparation
from pipeline.teachers.runner import TeacherRunner
from pipeline.teachers.stored import HybridTeacher, StoredTeacher
from stores.outputs import OUTPUTS


def build_online(
    config: RunConfig,
    spec: ModelSpec | None,
    choice: TeacherChoice,
    needs: Needs,
    *,
    num_classes: int,
    device: torch.device,
) -> TeacherRunner | None:
    """The teacher's network, with the taps that the method needs; None where none of its outputs are made here.

    Raises:
        ConfigError: weights that do not fit, or in a hybrid not those of the store.
    """
    if choice.source not in ("online", "hybrid") or spec is None:
        return None
    views, numerics = config.views, config.numerics
    network = build_network(
        spec,
        num_classes=num_classes,
        seed=config.optimisation.run_seed,
        taps=needs.teacher - OUTPUTS,
    )
    if choice.stored is not None:
        _check_same_weights(str(config.teacher), network, choice.stored)
    mean, std = views.teacher_mean or views.mean, views.teacher_std or views.std
    has_own = (mean, std) != (views.mean, views.std)
    layout = memory_format(numerics.channels_last)
    return TeacherRunner(
        network,
        device=device,
        precision=numerics.teacher_precision,
        memory_format=layout,
        prepare=preparation(mean, std, device, layout) if has_own else None,
        compiled=numerics.compile,
        graphed=numerics.cuda_graphs == "teacher",
        mode=needs.teacher_mode,
    )


def join_teacher(stored: StoredViews | None, online: TeacherRunner | None, device: torch.device) -> Teacher | None:
    """What gives a batch's teacher outputs; None where nothing does."""
    if stored is None:
        return online
    rows = StoredTeacher(logits=stored.logits_codec, embedding=stored.embedding_codec, head=stored.head, device=device)
    return rows if online is None else HybridTeacher(rows, online)


def teacher_head(stored: StoredViews | None, online: TeacherRunner | None) -> Affine | None:
    """The teacher's classifier, (C, D) and (C,) float32 on the CPU, from the network or the store."""
    if online is not None:
        return online.head()
    if stored is None or stored.head is None:
        return None
    weight, bias = (torch.from_numpy(np.array(part)) for part in stored.head)
    return weight, bias


def _check_same_weights(name: str, network: Network, stored: StoredViews) -> None:
    recorded, own = stored.reader.manifest.teacher, fingerprint_of_weights(network.model)
    if recorded.weights_sha256 != own:
        raise ConfigError(
            "--teacher-source hybrid needs one teacher for stored and online views, and their weights differ.\n"
            f"  store:     {recorded.name}, sha256 {recorded.weights_sha256[:16]}\n"
            f"  --teacher: {name}, sha256 {own[:16]}\n"
            "Give the store's teacher, or --teacher-source stored or online."
        )
