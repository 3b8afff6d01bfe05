"""The command line reads tokenizers and configurations without the seconds of importing torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.toy_tokenizers import write_sentencepiece_style
from tga_jax import main as command

pytest.importorskip("torch")
READ = """
import sys
from pathlib import Path
{first}
from tga_jax.hf.hidden_packages import leave_torch_out
leave_torch_out()
from tga_jax.hf.tokenizer import load_fast
assert load_fast(Path(sys.argv[1]))("bus").input_ids
from transformers import CONFIG_MAPPING
assert CONFIG_MAPPING["llama"].from_dict({{"hidden_size": 64}}).hidden_size == 64
import transformers
print("torch" in sys.modules, transformers.utils.is_torch_available())
import torch
print(torch.zeros(2).shape[0])
"""


@pytest.mark.parametrize(
    ("first", "said"), [("", "False False"), ("import torch", "True True")], ids=["alone", "late"]
)
def test_torch_is_left_out_unless_it_is_there_already(
    tmp_path: Path, first: str, said: str
) -> None:
    write_sentencepiece_style(tmp_path)
    program = [sys.executable, "-c", READ.format(first=first), str(tmp_path)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [said, "2"]


@pytest.mark.parametrize(
    ("flags", "own_process", "left_out"),
    [([], True, 1), ([], False, 0), (["--config.evaluate.local.folder=judge"], True, 0)],
    ids=["command", "function", "judge that needs it"],
)
def test_only_the_command_line_leaves_torch_out(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    flags: list[str],
    own_process: bool,
    left_out: int,
) -> None:
    calls: list[None] = []
    monkeypatch.setattr("tga_jax.hf.hidden_packages.leave_torch_out", lambda: calls.append(None))
    monkeypatch.setattr(command, "run_jobs", lambda *_: None)
    argv = ["tga", "--config=configs/miniature.py", f"--workdir={tmp_path}", *flags]
    assert command.main(argv, own_process=own_process) == 0
    assert len(calls) == left_out
