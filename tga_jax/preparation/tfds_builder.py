"""The TFDS dataset builder: examples -> ArrayRecord files, here or under Apache Beam.

TensorFlow is needed neither to write nor to read them. TFDS is imported inside functions: only
prepared data needs it.
"""

from __future__ import annotations

import contextlib
import functools
import io
import shutil
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

# What a split's examples come from: an iterable of (number, example), or for Beam a PTransform.
MakeExamples = Callable[[str], Any]


def features() -> Any:
    """The features of an example.

    `images` are the images' encoded bytes, `image_formats` say how they are encoded; texts that
    a sample lacks are empty, and so are the images of "tox" rows, which are blank in training.
    """
    import numpy as np
    import tensorflow_datasets as tfds

    texts = tfds.features.Sequence(tfds.features.Text())
    return tfds.features.FeaturesDict(
        {
            "id": tfds.features.Text(),
            "conversations": tfds.features.Text(doc="JSON list of {from, value}"),
            "images": tfds.features.Sequence(
                tfds.features.Tensor(shape=(), dtype=np.object_), doc="encoded images"
            ),
            "image_names": texts,
            "image_formats": texts,
            "image_caption": tfds.features.Text(),
            "retrieved_caption": tfds.features.Text(),
            "tox": tfds.features.Scalar(np.bool_),
        }
    )


@functools.cache
def builder_class() -> Any:
    """The builder; a function, because a class statement would import TFDS."""
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core import writer
    from tensorflow_datasets.proto import tf_example_pb2

    class SameBytesWriter(writer.ExampleWriter):
        """TFDS writes an example's features in an order that differs between processes."""

        def write(self, path: Any, examples: Iterable[tuple[Any, bytes]]) -> Any:
            def sorted_features(content: bytes) -> bytes:
                example = tf_example_pb2.Example.FromString(content)
                return example.SerializeToString(deterministic=True)

            return super().write(path, ((key, sorted_features(c)) for key, c in examples))

    class TgaSamples(tfds.core.GeneratorBasedBuilder):
        """Samples of text-guided alignment, in the order of their input."""

        VERSION = tfds.core.Version("1.0.0")

        def __init__(self, splits: Sequence[str], examples: MakeExamples, **kwargs: Any) -> None:
            self._splits, self._examples = tuple(splits), examples
            super().__init__(**kwargs)

        def _info(self) -> Any:
            return tfds.core.DatasetInfo(
                builder=self,
                description="Samples for text-guided alignment, as tga_jax prepared them.",
                features=features(),
                disable_shuffling=True,  # the loader shuffles; the files keep the input's order
            )

        def _example_writer(self) -> Any:
            return SameBytesWriter(file_format=self.info.file_format)

        def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
            return {split: self._generate_examples(split) for split in self._splits}

        def _generate_examples(self, split: str) -> Any:
            return self._examples(split)

    return TgaSamples


def write(
    folder: Path, splits: Sequence[str], examples: MakeExamples, *, beam: Sequence[str] = ()
) -> dict[str, int]:
    """Writes a dataset into a folder that does not exist yet.

    Args:
        folder: gets dataset_info.json, features.json and the shards.
        splits: their names.
        examples: split -> its examples, with ascending integer keys.
        beam: Beam's pipeline options where `examples` gives PTransforms.

    Returns:
        The number of examples of each split.
    """
    import tensorflow_datasets as tfds

    tfds.disable_progress_bar()
    build = folder.with_name(f"{folder.name}.build")
    builder = builder_class()(splits, examples, data_dir=build, file_format="array_record")
    settings = tfds.download.DownloadConfig(try_download_gcs=False)
    if beam:
        from apache_beam.options.pipeline_options import PipelineOptions

        settings.beam_options = PipelineOptions(list(beam))
    with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints what it does
        builder.download_and_prepare(download_config=settings)
    counts = {name: int(info.num_examples) for name, info in builder.info.splits.items()}
    Path(builder.data_dir).rename(folder)
    shutil.rmtree(build)
    return counts


def spread_key(number: int, count: int) -> int:
    """A row's key for TFDS's own writer, which sorts in buckets over 0 .. 2**128 - 1.

    Keys like 0, 1, 2 would all land in the first bucket, which is sorted in memory.
    """
    return number * (2**128 // count)
