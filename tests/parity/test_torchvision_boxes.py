"""Our boxes against torchvision's: the same distribution when drawn, the same numbers where nothing is drawn."""

from functools import cache

import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import RandomResizedCrop as Torchvision

from pipeline.data.policies._shared.random_resized_crop import RandomResizedCrop
from pipeline.data.policy import Policy, get_policy

NAMES = ("imagenet_train", "imagenet_dali_simkd")
SIZES = [(500, 375), (333, 500), (96, 96), (1200, 60), (40, 900), (1, 300), (300, 1), (2, 2)]  # width, height
LEAST_P = 1e-4  # seeds are fixed: a pass stays a pass


@cache
def torchvision_boxes(
    width: int, height: int, area: tuple[float, float], ratio: tuple[float, float], num: int
) -> np.ndarray:
    """(num, 4) boxes of `get_params`."""
    image = torch.empty(1, height, width)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return np.array([Torchvision.get_params(image, list(area), list(ratio)) for _ in range(num)])


def our_boxes(policy: Policy, width: int, height: int, num: int) -> np.ndarray:
    ids, column = np.arange(num), np.ones(num, np.int64)
    return policy.draw(ids, 0 * column, width * column, height * column, 0)[0]


def p_values(ours: np.ndarray, theirs: np.ndarray) -> dict[str, float]:
    """Kolmogorov-Smirnov on everything that a box is judged by."""
    features = {
        "area": lambda box: box[:, 2] * box[:, 3],
        "ratio": lambda box: box[:, 3] / box[:, 2],
        "top": lambda box: box[:, 0],
        "left": lambda box: box[:, 1],
        "height": lambda box: box[:, 2],
        "width": lambda box: box[:, 3],
        "centre": lambda box: 2 * box[:, 0] + box[:, 2] - 2 * box[:, 1] - box[:, 3],  # positions against each other
        "area against ratio": lambda box: box[:, 2] * box[:, 3] * (1 + box[:, 3] / box[:, 2]),
    }
    return {
        name: float(ks_2samp(feature(ours), feature(theirs), method="asymp").pvalue)
        for name, feature in features.items()
    }


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("width", "height"), SIZES)
def test_boxes_have_torchvisions_distribution(name: str, width: int, height: int) -> None:
    policy = get_policy(name)
    assert isinstance(policy, RandomResizedCrop)
    theirs = torchvision_boxes(width, height, policy.area, policy.ratio, 4_000)
    found = p_values(our_boxes(policy, width, height, 40_000), theirs)
    assert min(found.values()) > LEAST_P, found


WRONG = {
    "area": RandomResizedCrop((0.09, 1.0), (3 / 4, 4 / 3), 0.5),
    "ratio": RandomResizedCrop((0.08, 1.0), (0.76, 4 / 3), 0.5),
    "other recipe": RandomResizedCrop((0.1, 1.0), (0.8, 1.25), 0.5),
}


@pytest.fixture(scope="module")
def many_of_torchvisions() -> np.ndarray:
    return torchvision_boxes(500, 375, (0.08, 1.0), (3 / 4, 4 / 3), 70_000)


def test_many_boxes_have_torchvisions_distribution(many_of_torchvisions: np.ndarray) -> None:
    found = p_values(our_boxes(get_policy("imagenet_train"), 500, 375, 500_000), many_of_torchvisions)
    assert min(found.values()) > LEAST_P, found


@pytest.mark.parametrize("wrong", WRONG)
def test_the_comparison_sees_a_shift_of_one_percent(wrong: str, many_of_torchvisions: np.ndarray) -> None:
    """The same samples and the same threshold refuse policies that are slightly off."""
    found = p_values(our_boxes(WRONG[wrong], 500, 375, 500_000), many_of_torchvisions)
    assert min(found.values()) < LEAST_P, found


@pytest.mark.parametrize("name", NAMES)
def test_the_fallback_box_is_torchvisions(name: str) -> None:
    """An area of four images never fits, so that both take the fallback; sizes include ties of rounding."""
    policy = get_policy(name)
    assert isinstance(policy, RandomResizedCrop)
    never = RandomResizedCrop((4.0, 4.0), policy.ratio, 0.0)
    sides = [*range(1, 12), 50, 99, 150, 333, 1000]
    for width in sides:
        for height in sides:
            theirs = torchvision_boxes(width, height, never.area, never.ratio, 1)
            assert our_boxes(never, width, height, 1).tolist() == theirs.tolist(), (width, height)


@pytest.mark.parametrize(("width", "height"), [(500, 375), (375, 500), (1200, 60), (224, 224), (4000, 6000)])
def test_the_evaluation_box_is_resize_256_and_centre_224(width: int, height: int) -> None:
    """Mapped back to the original's pixels, torchvision's crop and ours differ by rounding only."""
    top, left, side, _ = our_boxes(get_policy("imagenet_eval"), width, height, 1)[0]
    scale = min(width, height) / 256
    resized_width, resized_height = int(width / scale), int(height / scale)
    their_top, their_left = round((resized_height - 224) / 2) * scale, round((resized_width - 224) / 2) * scale
    assert abs(side - 224 * scale) <= 0.5
    assert abs(top - their_top) <= 1 + scale
    assert abs(left - their_left) <= 1 + scale
