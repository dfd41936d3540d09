"""Policies by name, and from JSON."""

from typing import Any

from pipeline.core import parts
from pipeline.core.errors import DataError
from pipeline.data import policies
from pipeline.data.policies.base import Policy
from pipeline.data.policies.centre_crop import KIND as CENTRE_CROP
from pipeline.data.policies.centre_crop import CentreCrop
from pipeline.data.policies.random_resized_crop import KIND as RANDOM_RESIZED_CROP
from pipeline.data.policies.random_resized_crop import RandomResizedCrop

_KINDS: dict[str, Any] = {RANDOM_RESIZED_CROP: RandomResizedCrop, CENTRE_CROP: CentreCrop}
_NOT_POLICIES = {"base", "registry", *_KINDS}


def policy_names() -> list[str]:
    """The named policies: the files of this folder that hold a `POLICY`."""
    return [name for name in parts.names(policies) if name not in _NOT_POLICIES]


def get_policy(name: str) -> Policy:
    """The policy called `name`."""
    policy: Policy = parts.load(policies, "policy", name, known=policy_names()).POLICY
    return policy


def from_json(fields: dict[str, Any]) -> Policy:
    """Rebuild a policy from what its `to_json` returned."""
    kind = fields.get("kind")
    if kind not in _KINDS:
        raise DataError(f"unknown kind of policy {kind!r}; this version knows {sorted(_KINDS)}: update Reflux")
    policy: Policy = _KINDS[kind].from_json(fields)
    return policy
