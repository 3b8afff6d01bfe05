"""Golden text of every resolved configuration: a diff shows which experiments a change touches.

After a wanted change: python -m tests.test_configs
"""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path
from types import ModuleType

import pytest

from configs import audit, from_hf, miniature, smollm2
from tga_jax.config import listed
from tga_jax.jobs.experiment import arm_config

CONFIGS = sorted(Path("configs").glob("*.py"))
GOLDEN = Path(__file__).with_name("golden")


def resolved(path: Path) -> str:
    """A configuration as JSON text."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    config = module.get_config()
    assert config.is_locked
    return json.dumps(config.to_dict(), indent=1, sort_keys=True) + "\n"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.stem)
def test_config_is_the_golden_one(path: Path) -> None:
    assert resolved(path) == (GOLDEN / f"{path.stem}.json").read_text()


def test_the_recipes_of_from_hf_differ_in_what_they_switch_on() -> None:
    assert from_hf.get_config().to_dict() == from_hf.get_config("tga").to_dict()
    answer, paper, centred, audit = (
        from_hf.get_config(name).guide
        for name in ("tga_answer", "tga", "tga_centred", "audit_only")
    )
    assert (paper.form, paper.layers, paper.center) == ("paper", "all", "none")
    assert (paper.pair_weight, paper.hinge_weight, paper.answer_weight) == (1, 1, 0)
    assert (answer.pair_weight, answer.hinge_weight) == (0, 0) and answer.answer_weight > 0
    assert (centred.center, centred.layers) == ("batch", "all")
    assert (centred.pair_weight, centred.hinge_weight, centred.answer_weight) == (1, 0, 0)
    assert not from_hf.get_config("tga_centred+gpu80").pretrain.guide
    assert audit.form == "none"
    assert "finetune" not in from_hf.get_config("audit_only").jobs


@pytest.mark.parametrize(
    ("config", "variant", "known"),
    [
        (from_hf, "tgaa", "'tga', 'tga_answer', "),
        (from_hf, "tga_answer+gpu81", "'tga', 'tga_answer', "),
        (audit, "defenses", "'defences'; did you mean 'defences'\\?"),
        (miniature, "ful", "'full', 'search', 'projector'; did you mean 'full'\\?"),
        (smollm2, "text", "'texts', 'safety', "),
    ],
)
def test_an_unknown_variant_names_the_known_ones(
    config: ModuleType, variant: str, known: str
) -> None:
    wrong = variant.split("+")[-1]
    with pytest.raises(ValueError, match=f"no variant '{wrong}'; there are {known}"):
        config.get_config(variant)


@pytest.mark.parametrize(
    ("variant", "said"),
    [("tga_anwser", "did you mean 'tga_answer'"), ("gpu80+", "a name is missing beside the '+'")],
)
def test_a_slip_in_a_recipe_is_named(variant: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        from_hf.get_config(variant)


@pytest.mark.parametrize("name", from_hf.VARIANTS)
def test_every_recipe_says_what_it_is(name: str) -> None:
    assert from_hf.VARIANTS[name].__doc__


def test_the_main_run_of_the_miniature_has_three_arms() -> None:
    config = miniature.get_config()
    assert list(config.experiment.arms) == ["baseline", "tga", "tga-answer"]
    weights = {}
    for name in config.experiment.arms:
        guide = arm_config(config, name).guide
        kinds = ("pair_weight", "hinge_weight", "answer_weight")
        weights[name] = [guide.form != "none" and guide[kind] > 0 for kind in kinds]
    assert weights["baseline"] == [False] * 3
    assert weights["tga"] == [True, True, False]
    assert weights["tga-answer"] == [False, False, True]
    figures = {
        "picture_dsr", "picture_dsr_seen", "picture_dsr_new_concept", "picture_dsr_new_category",
        "picture_dsr_at_5pct", "margin_auc", "over_refusal", "naming_accuracy", "text_dsr",
        "text_over_refusal",
    }  # fmt: skip
    assert figures <= set(config.experiment.summary)
    full = miniature.get_config("full").experiment.arms
    assert {f"{name}-seed-{seed}" for name in weights for seed in (1, 2, 3, 4)} <= set(full)


def test_the_search_of_the_miniature_has_the_papers_terms_beside_the_main_arms() -> None:
    config = miniature.get_config("search")
    stages = {}
    for name in set(config.experiment.arms) - {"tga-answer", "tga-answer-17-tokens"}:
        arm = arm_config(config, name)
        assert arm.guide.form == "none" or arm.guide.answer_weight == 0
        assert arm.guide.form == "none" or arm.guide.pair_weight > 0
        stages[name] = arm.pretrain.guide, arm.finetune.guide
    assert stages["stage-1-only"] == (True, False)
    assert stages["stage-2-only"] == (False, True)
    assert "eval_dev" in config.evaluate.benchmarks


if __name__ == "__main__":
    for config in CONFIGS:
        (GOLDEN / f"{config.stem}.json").write_text(resolved(config))


def test_a_list_with_commas_is_its_names_each_once() -> None:
    assert listed(" tga, baseline,,tga ,") == ["tga", "baseline"]
    assert listed(" , ") == listed("") == []


def test_a_finished_model_of_another_seed_starts_from_that_seeds_baseline() -> None:
    arms = miniature.get_config("full").experiment.arms
    start = "{workdir}/arms/baseline%s/export"
    assert arms["finished"].model.checkpoint == start % ""
    assert arms["finished-seed-2"].model.checkpoint == start % "-seed-2"
    assert arms["finished-seed-2"].seed == 2 and "model" not in arms["captioned-seed-2"]
