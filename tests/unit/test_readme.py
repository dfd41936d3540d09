"""What README shows is true: its method works as it stands, and its table has every recipe."""

import re
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.functional import cosine_similarity

from launch.recipes.registry import all_recipes
from pipeline.config import Files
from pipeline.methods import base
from pipeline.methods.base import R34_R18, R50_MV1, R50_R18, MethodInput, Setting
from pipeline.methods.parts import seeded
from pipeline.methods.registry import method_module, method_names
from pipeline.models.outputs import Outputs

README = (Path(__file__).resolve().parent.parent.parent / "README.md").read_text()
_FIGURE = re.compile(r"\d\d\.\d\d")


def test_the_method_of_the_example_trains_its_connector_and_the_student() -> None:
    (source,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names = {**vars(base), "nn": nn, "Tensor": Tensor, "cosine_similarity": cosine_similarity, "seeded": seeded}
    exec(source, names)
    method = names["METHOD"](weight=2.0)
    method.build(Setting(student_dim=5, teacher_dim=7, num_classes=3, seed=1))
    embedding = torch.randn(4, 5, requires_grad=True)
    student = Outputs(torch.randn(4, 3), embedding)
    taught = Outputs(torch.randn(4, 3), torch.randn(4, 7))
    term = method(MethodInput(student, taught, torch.zeros(4, dtype=torch.int64), torch.arange(4), epoch=0))
    term.backward()
    assert 0 <= term.item() <= 2
    assert embedding.grad is not None
    assert method.connector.weight.grad.abs().sum() > 0
    assert method.stores == ("embedding",)


def test_every_recipe_stands_in_the_table() -> None:
    braces = re.search(r"ctkd_\{([a-z,]+)\}_r34_r18", README)
    assert braces is not None
    named = {f"ctkd_{base}_r34_r18" for base in braces[1].split(",")} | set(re.findall(r"\w+", README))
    for stem in re.findall(r"(\w+_)\*", README):
        named |= {f"{stem}r34_r18", f"{stem}r50_mbv1"}
    assert sorted(set(all_recipes()) - named) == []


def test_figures_of_the_table_are_published_ones_and_marked_where_nobody_looked_them_up() -> None:
    seen = set()
    for first_recipe, cells in _rows():
        method = all_recipes()[first_recipe](Files(out=Path("run"))).method
        seen.add(method)
        published = method_module(method).INFO.published
        for cell, pairs in zip(cells, ((R34_R18, R50_R18), (R50_MV1,)), strict=True):
            told = "; ".join(published.get(pair, "") for pair in pairs)
            assert set(_FIGURE.findall(cell)) <= set(_FIGURE.findall(told)), f"{method}: {cell}; INFO says: {told}"
            marked = set(re.findall(rf"~({_FIGURE.pattern})", cell))
            assert marked == _unchecked(told) & set(_FIGURE.findall(cell)), f"{method}: {cell}; INFO says: {told}"
    assert seen == set(method_names())


def _rows() -> list[tuple[str, list[str]]]:
    """Of the table of methods: each row's first recipe, and its two cells of figures."""
    table = README.partition("| method | recipes |")[2].partition("\n\n")[0]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()[2:]]
    return [(re.findall(r"`(\w+\*?)`", row[1])[0].replace("*", "r34_r18"), row[-2:]) for row in rows]


def _unchecked(told: str) -> set[str]:
    """Those of an INFO's figures that the parenthesis after them calls so."""
    parts = re.findall(r"([^();]*)\(([^()]*)\)", told)
    return {figure for figures, source in parts if "unchecked" in source for figure in _FIGURE.findall(figures)}


def test_bits_are_promised_on_cuda_with_deterministic_kernels_alone() -> None:
    promise = README.partition("**Resume is exact.**")[2].partition("\n* ")[0]
    assert "bit for bit" in promise
    assert "CUDA with `--deterministic`" in promise
