"""Every policy file: JSON there and back; the frozen ratio table against exp."""

import json
from collections.abc import Callable

import numpy as np
import pytest
import test_plan

from pipeline.core import parts
from pipeline.core.errors import ConfigError, DataError
from pipeline.data import policies
from pipeline.data.policies._shared.centre_crop import CentreCrop
from pipeline.data.policies._shared.random_resized_crop import RandomResizedCrop, log_uniform, ratio_table
from pipeline.data.policy import from_json, get_policy


def test_the_named_policies() -> None:
    assert parts.names(policies) == ["demo_train", "imagenet_dali_simkd", "imagenet_eval", "imagenet_train"]


@pytest.mark.parametrize("name", parts.names(policies))
def test_json_there_and_back(name: str) -> None:
    policy = get_policy(name)
    assert from_json(json.loads(json.dumps(policy.to_json()))) == policy


def test_the_parameters_are_the_published_ones() -> None:
    assert get_policy("imagenet_train") == RandomResizedCrop((0.08, 1.0), (3 / 4, 4 / 3), 0.5)
    assert get_policy("imagenet_dali_simkd") == RandomResizedCrop((0.1, 1.0), (0.8, 1.25), 0.5)
    assert get_policy("imagenet_eval") == CentreCrop(0.875)


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="Did you mean 'imagenet_train'"):
        get_policy("imagenet_trian")


@pytest.mark.parametrize("helper", ["_shared", "policy", "random_resized_crop", "centre_crop"])
def test_a_helper_module_is_not_a_policy(helper: str) -> None:
    with pytest.raises(ConfigError, match="unknown policy"):
        get_policy(helper)


CORNER = """
from dataclasses import dataclass

import numpy as np

from pipeline.data.policy import Policy


@dataclass(frozen=True)
class Corner(Policy):
    kind = "corner"
    share: tuple[float, float]

    def draw(self, ids, views, widths, heights, plan_seed):
        height, width = (np.maximum(share * side, 1).astype(int) for share, side in zip(self.share, (heights, widths)))
        return np.stack((ids * 0, ids * 0, height, width), axis=1), (ids + views) % 2 == 0


POLICY = Corner((0.5, 0.25))
"""


def test_a_policy_and_its_kind_are_one_file(add_part: Callable[..., None]) -> None:
    with pytest.raises(DataError, match="'corner'"):
        from_json({"kind": "corner", "share": [0.5, 0.25]})
    add_part(policies, "corner", CORNER)
    assert "corner" in parts.names(policies)
    test_json_there_and_back("corner")
    test_plan.test_a_row_does_not_depend_on_its_batch("corner")
    test_plan.test_boxes_lie_inside_their_images("corner")
    assert test_plan.draw("corner", np.arange(4)).flips.tolist() == [True, False, True, False]


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(DataError, match="'mixup'"):
        from_json({"kind": "mixup"})


@pytest.mark.parametrize("limits", [(3 / 4, 4 / 3), (0.8, 1.25), (0.5, 0.5), (0.01, 100.0)])
def test_the_ratio_table_is_log_spaced(limits: tuple[float, float]) -> None:
    least, greatest = limits
    exact = least * np.exp(np.arange(257) / 256 * np.log(greatest / least))
    assert np.allclose(ratio_table(least, greatest), exact, rtol=1e-13, atol=0)


@pytest.mark.parametrize("limits", [(3 / 4, 4 / 3), (0.8, 1.25)])
def test_interpolation_is_as_near_to_exp_as_257_points_allow(limits: tuple[float, float]) -> None:
    least, greatest = limits
    words = np.random.default_rng(0).integers(0, 2**32, 200_000, dtype=np.uint32)
    exact = least * np.exp(words * 2.0**-32 * np.log(greatest / least))
    chord = np.log(greatest / least) / 256
    worst = chord**2 / 8  # of a chord against exp: 6.3e-7 for 3/4..4/3, 3.8e-7 for 0.8..1.25
    error = log_uniform(words, ratio_table(least, greatest)) / exact - 1
    assert error.min() > -1e-12
    assert 0.9 * worst < error.max() < 1.01 * worst < 6.4e-7


def test_the_fallback_is_the_largest_centred_box_of_an_allowed_ratio() -> None:
    policy = RandomResizedCrop((0.9, 1.0), (1.0, 1.0), 0.0)  # never fits a panorama
    zeros = np.zeros(3, np.int64)
    boxes, flips = policy.draw(zeros, zeros, np.array([1000, 50, 1]), np.array([100, 400, 1]), 0)
    assert boxes.tolist() == [[0, 450, 100, 100], [175, 0, 50, 50], [0, 0, 1, 1]]
    assert not flips.any()
