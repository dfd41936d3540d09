"""The teacher of a store: built by its name, found to be the recorded one, and run as it was when rows were made."""

import torch

from pipeline.core.errors import StoreError
from pipeline.devices.numerics import memory_format
from pipeline.models.network import Network
from pipeline.models.spec import parse_spec
from pipeline.models.weights import fingerprint_of_weights
from pipeline.models.zoo import build_network
from pipeline.teachers.preparation import preparation
from pipeline.teachers.runner import TeacherRunner
from stores.manifest import Manifest
from stores.records import TeacherRecord

WEIGHTS_SEED = 0  # of NAME@random, the default --run-seed of training runs


def build_teacher(name: str, *, num_classes: int, seed: int = WEIGHTS_SEED) -> tuple[Network, str]:
    """The teacher that NAME@WEIGHTS stands for, on the CPU, and the sha256 of its weights.

    Raises:
        ConfigError: unknown name, weights that do not fit, no linear classifier.
    """
    network = build_network(parse_spec(name, role="teacher"), num_classes=num_classes, seed=seed)
    return network, fingerprint_of_weights(network.model)


def run_as_recorded(network: Network, record: TeacherRecord, device: torch.device) -> TeacherRunner:
    """The network in the precision and the batches of a record, with its normalisation.

    Raises:
        StoreError: the record lacks some of it.
    """
    record = record.whole()
    layout = memory_format(record.channels_last)
    return TeacherRunner(
        network,
        device=device,
        precision=record.precision,
        memory_format=layout,
        prepare=preparation(record.mean, record.std, device, layout),
        batch=record.batch,
        compiled=record.compile,
    )


def rebuild(manifest: Manifest, device: torch.device, *, name: str | None = None) -> TeacherRunner:
    """The teacher of a store, ready to compute rows again.

    Args:
        manifest: the store's.
        device: where it runs.
        name: what it is called here, such as a file that was moved.

    Raises:
        ConfigError: it cannot be built here.
        StoreError: other weights (both are shown), or a record that lacks something.
    """
    record = manifest.teacher.whole()
    name = name or record.name
    network, weights_sha256 = build_teacher(name, num_classes=len(manifest.classes), seed=record.seed)
    check_same(f"weights of {name}", record.weights_sha256, weights_sha256)
    return run_as_recorded(network, record, device)


def check_same(what: str, stored: object, here: object) -> None:
    """Refuse what is not the store's own, since it makes other rows.

    Raises:
        StoreError: shows both.
    """
    if stored != here:
        raise StoreError(
            f"the {what} must be the store's, to compute its rows again.\n  store: {stored}\n  here:  {here}"
        )
