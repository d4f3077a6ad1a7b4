"""Examples as a ``datasets.Dataset``: in memory while they are few, beyond that in a file that is mapped."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Iterable, Iterator, Mapping
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from score_video.errors import ScoreError
from score_video.files import write_errors

if TYPE_CHECKING:
    import datasets

_IN_MEMORY = 16 * 2**20  # bytes
_ROWS = 256  # written at a time


def to_dataset(examples: Iterable[Mapping[str, Any]], source: str, identity: object) -> datasets.Dataset:
    """Rows of the schema as a data set, whose memory does not grow with their number beyond 16 MiB: what is more goes
    into a file in the folder ``score-video`` of datasets' own cache (``HF_DATASETS_CACHE``).

    Args:
        examples: read one by one.
        source: name of the file, which errors say.
        identity: text of it names the file; the same one replaces it.

    Raises:
        ScoreError: there are no examples.
        OSError: the file cannot be written.
    """
    import datasets
    import pyarrow  # type: ignore[import-untyped]

    text = datasets.Value("string")
    question = {"question": text, "answer": text, "options": datasets.List(text)}
    features = datasets.Features(
        {"id": text, "video": text, "image": datasets.Image(), "questions": datasets.List(question)}
    )
    schema = features.arrow_schema
    rows = iter(examples)

    def batches() -> Iterator[Any]:
        while batch := [features.encode_example(row) for row in islice(rows, _ROWS)]:
            yield pyarrow.RecordBatch.from_pylist(batch, schema)

    remaining = batches()
    few: list[Any] = []
    while sum(batch.nbytes for batch in few) <= _IN_MEMORY:
        if (batch := next(remaining, None)) is None:
            if not few:
                raise ScoreError(f"{source}: is empty")
            return datasets.Dataset(pyarrow.Table.from_batches(few, schema))
        few.append(batch)
    folder = Path(datasets.config.HF_DATASETS_CACHE) / "score-video"
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / f"{hashlib.sha256(repr(identity).encode()).hexdigest()[:16]}.arrow"
    temporary = file.with_name(f".{file.name}-{secrets.token_hex(4)}")
    try:
        with pyarrow.OSFile(str(temporary), "wb") as sink, pyarrow.ipc.new_stream(sink, schema) as writer:
            for batch in chain(few, remaining):
                with write_errors(file, temporary):  # what is wrong with a row is no error of writing
                    writer.write_batch(batch)
        temporary.replace(file)
    finally:
        temporary.unlink(missing_ok=True)
    return datasets.Dataset.from_file(str(file))
