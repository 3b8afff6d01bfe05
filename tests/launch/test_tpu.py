"""launch/tpu.sh: what it would run, without a cloud."""

from __future__ import annotations

import os
import shlex
import subprocess

import pytest

SCRIPT = "launch/tpu.sh"
NAMES = {"TPU_PROJECT": "my-project", "TPU_ZONE": "us-west4-a", "TPU_NAME": "tga"}
FLAGS = ["--config=configs/llava_mistral_7b.py", "--config.prompt.system=be kind; $HOME"]


def dry_run(*words: str, **more: str) -> list[list[str]]:
    """The commands that would run, as words."""
    env = os.environ | NAMES | {"DRY_RUN": "1"} | more
    done = subprocess.run([SCRIPT, *words], env=env, capture_output=True, text=True, check=True)
    return [shlex.split(line) for line in done.stdout.splitlines()]


def test_create_asks_waits_and_stages_the_code_on_all_workers() -> None:
    ask, wait, archive, copy, install = dry_run("create")
    assert ask[:6] == ["gcloud", "compute", "tpus", "queued-resources", "create", "tga"]
    assert {"--project=my-project", "--zone=us-west4-a", "--node-id=tga"} <= set(ask)
    assert wait[4] == "describe" and archive[0] == "git"
    assert copy[4] == "scp" and "--worker=all" in copy
    assert "--worker=all" in install and "requirements.txt" in install[-1]


def test_slices_and_spot() -> None:
    commands = dry_run("create", TPU_SLICES="2", TPU_SPOT="1")
    assert {"--spot", "--node-prefix=tga", "--node-count=2"} <= set(commands[0])
    assert [c[5].split(":")[0] for c in commands if "ssh" in c] == ["tga-0", "tga-1"]


def test_the_share_is_mounted_and_holds_the_compiled_programs() -> None:
    mount = [c[-1] for c in dry_run("create", TPU_SHARE="10.0.0.2:/a") if "mount" in c[-1]]
    assert len(mount) == 1 and "10.0.0.2:/a /mnt/share" in mount[0]
    (command,) = dry_run("run", *FLAGS, TPU_SHARE="10.0.0.2:/a")
    assert "JAX_COMPILATION_CACHE_DIR=/mnt/share/compile_cache nohup" in command[-1]
    (copy,) = dry_run("data", "gs://b/llava", TPU_SHARE="10.0.0.2:/a")
    assert copy[-1] == "--command=gcloud storage rsync -r gs://b/llava /mnt/share/data"


def test_run_passes_every_flag_on_as_it_is_to_all_workers() -> None:
    (command,) = dry_run("run", *FLAGS)
    assert "--worker=all" in command and "launch/retry.sh" in command[-1]
    inner = command[-1].removeprefix("--command=").split("tga_jax.main", 1)[1].split(">>")[0]
    assert shlex.split(inner) == FLAGS


def test_a_v6e_makes_whole_products_unless_options_are_given() -> None:
    whole = "--config.compiler_options=('xla_jf_spmd_threshold_for_windowed_einsum_mib=1000000',)"
    own = "--config.compiler_options=()"
    for given, passed in ((FLAGS, [*FLAGS, whole]), ([*FLAGS, own], [*FLAGS, own])):
        (command,) = dry_run("run", *given, TPU_TYPE="v6e-16")
        inner = command[-1].removeprefix("--command=").split("tga_jax.main", 1)[1].split(">>")[0]
        assert shlex.split(inner) == passed


def test_resume_makes_the_slice_anew_and_runs() -> None:
    commands = dry_run("resume", *FLAGS)
    assert commands[0][4] == "delete" and commands[1][4] == "create"
    assert commands[-1] == dry_run("run", *FLAGS)[0]
    assert dry_run("delete")[0] == commands[0]


def test_logs_follow_the_first_worker() -> None:
    (command,) = dry_run("logs")
    assert "--worker=0" in command and "tail" in command[-1]


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_name_is_said(name: str) -> None:
    env = {k: v for k, v in (os.environ | NAMES).items() if k != name}
    done = subprocess.run([SCRIPT, "create"], env=env, capture_output=True, text=True)
    assert done.returncode != 0 and name in done.stderr
