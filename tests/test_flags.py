"""What a wrong key of the configuration is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from ml_collections import ConfigDict

from tga_jax.errors import UserError
from tga_jax.flags import choose_jobs, parse_flags

KEYS = "(docs/config.md has all keys)"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        (
            "guide.pair_wieght=1",
            f"config.guide.pair_wieght; did you mean config.guide.pair_weight? {KEYS}",
        ),
        ("guide.from=paper", f"config.guide.from; did you mean config.guide.form? {KEYS}"),
        (
            "guide.pair-weight=1",
            f"config.guide.pair-weight; did you mean config.guide.pair_weight? {KEYS}",
        ),
        ("gide.form=paper", f"config.gide; did you mean config.guide? {KEYS}"),
        ("xyz=1", f"config.xyz {KEYS}"),
        (
            "evaluate.ecso.tel=x",
            f"config.evaluate.ecso.tel; did you mean config.evaluate.ecso.tell? {KEYS}",
        ),
        ("seed.x=1", "config.seed.x, because config.seed is one value"),
    ],
)
def test_an_unknown_key_is_told_its_likely_name(flag: str, said: str, tmp_path: Path) -> None:
    """Also one that Python has a meaning of its own for."""
    argv = ["tga_jax", "--config=configs/from_hf.py", f"--workdir={tmp_path}", f"--config.{flag}"]
    with pytest.raises(UserError) as error:
        parse_flags(argv)
    assert str(error.value) == f"there is no config key {said}"


@pytest.mark.parametrize(
    ("flag", "said"),
    [
        ("--config.finetune.steps=abc", "--config.finetune.steps=abc must be a whole number"),
        ("--config.finetune.learning_rate=fast", "learning_rate=fast must be a number"),
        ("--config=llava_mistral_7b:v5e16", "configuration has no variants; leave out the colon"),
        ("--config=from_hf:gpu81", "configs/from_hf.py:gpu81: there is no variant 'gpu81'"),
    ],
)
def test_a_wrong_value_is_named_with_its_key(flag: str, said: str, tmp_path: Path) -> None:
    argv = ["tga_jax", "--config=configs/from_hf.py", f"--workdir={tmp_path}", flag]
    with pytest.raises(UserError) as error:
        parse_flags(argv)
    assert said in str(error.value)
    assert "ValueError" not in str(error.value) and "literal" not in str(error.value)


def test_an_unknown_key_in_a_file_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(
        "from tga_jax.config import base_config\n\n\ndef get_config():\n"
        "    config = base_config().lock()\n    config.guide.wieght = 1\n    return config\n"
    )
    with pytest.raises(UserError) as error:
        parse_flags(["tga_jax", f"--config={path}", f"--workdir={tmp_path}"])
    assert str(error.value) == f"--config={path}: there is no config key wieght {KEYS}"


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ("export,finetune", "export stands before finetune"),
        ("inspect,finetune,pretrain,export", "finetune stands before pretrain"),
    ],
)
def test_a_stage_behind_what_works_with_its_weights_is_refused(jobs: str, said: str) -> None:
    with pytest.raises(UserError, match=f"--job: {said}, whose weights it needs"):
        choose_jobs(jobs, None)


def test_an_export_between_two_stages_is_one() -> None:
    jobs = ["pretrain", "export", "finetune", "export"]
    assert choose_jobs(",".join(jobs), None) == jobs


def test_no_job_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="config.jobs is empty: name jobs there, or with --job"):
        choose_jobs("", ConfigDict({"jobs": ()}))
