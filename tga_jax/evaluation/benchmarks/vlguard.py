"""VLGuard (arXiv 2402.02207): three splits from one file of images with instructions.

safe image, safe instruction       scene "safe_safes"          benign
safe image, unsafe instruction     scene "safe_unsafes"        harmful
unsafe image                       scene "unsafes/<category>"  harmful
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tga_jax.errors import UserError
from tga_jax.evaluation.benchmarks.read_table import id_of, read_rows, text_of
from tga_jax.evaluation.items import DUPLICATE_OF, FILES, EvalItem, Missing, scene_name

OPTIONS = ()
SPLITS = ("safe_safes", "safe_unsafes", "unsafes")


def read(
    path: Path, image_dir: Path | None, options: Mapping[str, str]
) -> Iterator[EvalItem | Missing]:
    """`path` is test.json, or a folder with it; images lie in test/ beside it."""
    file = path / "test.json" if path.is_dir() else path
    if not file.is_file():
        yield Missing(f"{file}: no such file", unit=FILES, whole=1, name=file.name)
        return
    beside = file.parent / file.stem
    folder = image_dir or (beside if beside.is_dir() else file.parent)
    found, ids = set(), Counter[str]()
    for number, row in enumerate(read_rows(file), start=1):
        where = f"{file}: record number {number} (id {row.get('id')})"
        for scene, harmful, instruction in _questions(row, where=where):
            found.add(scene.split("/")[0])
            name = f"{id_of(row, 'id', where=where)}-{scene.split('/')[0]}"
            ids[name] += 1  # the published train.json has an id twice
            yield EvalItem(
                id=name if ids[name] == 1 else f"{name}#{ids[name]}",
                text=instruction,
                image=text_of(row, "image", where=where),
                image_dir=folder,
                scene=scene,
                harmful=harmful,
                extra={"subcategory": row.get("harmful_subcategory")}
                | ({DUPLICATE_OF: name} if ids[name] > 1 else {}),
            )
    for scene in SPLITS:
        if scene not in found:
            what = f"{file}: no record of the split {scene}"
            yield Missing(what, scene, unit="splits", whole=len(SPLITS), name=scene)


def _questions(row: Mapping[str, Any], *, where: str) -> Iterator[tuple[str, bool, str]]:
    """Yields (scene, harmful, instruction)."""
    pairs = row.get("instr-resp")
    if row.get("safe") not in (True, False) or not isinstance(pairs, list) or not pairs:
        raise UserError(f'{where}: needs "safe" (true or false) and a list "instr-resp"')
    if not row["safe"]:
        scene = scene_name("unsafes", row.get("harmful_category"))
        yield scene, True, text_of(pairs[0], "instruction", where=where)
        return
    for pair in pairs:
        for key, scene in (
            ("safe_instruction", "safe_safes"),
            ("unsafe_instruction", "safe_unsafes"),
        ):
            if key in pair:
                yield scene, scene == "safe_unsafes", text_of(pair, key, where=where)
