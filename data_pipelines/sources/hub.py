"""A Hugging Face dataset through `datasets`, streamed: by its name on the hub, or a folder on this machine.

The planner has resolved what it is: the revision of a name (in the source's path), the files of a folder. Rows are
numbered within each of the data set's shards, so a document's place does not depend on who reads it. They are taken as
Arrow and made Python objects here, so that a value that is none costs itself alone. `datasets` is imported by the task
that reads.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from data_pipelines.document import Document
from data_pipelines.sources.fields import Fields
from data_pipelines.sources.parquet import record
from data_pipelines.sources.records import Fault, OnHash, Unit
from fmtrain.artifacts.parquet import bounded
from fmtrain.artifacts.remote import hub_failure
from fmtrain.artifacts.sources import HUB, changed, identify_folder
from fmtrain.errors import InputError, Unavailable
from fmtrain.schema.sources import Hub

_ROWS = 1 << 28  # more rows than a shard has: a place is shard * _ROWS + row


def read(data: Hub, unit: Unit, on_hash: OnHash) -> Iterator[Document | Fault]:
    """Every `stride`-th shard where there are enough, else every `stride`-th row of each."""
    import pyarrow
    from datasets.exceptions import DatasetGenerationError

    errors = (DatasetGenerationError, pyarrow.ArrowException, UnicodeDecodeError, ValueError, TypeError, OSError)
    stream, fields = _open(data, unit), Fields(data, unit.source.name)
    shards = int(stream.num_shards)
    by_shard = shards >= unit.stride
    for shard in range(shards):
        if by_shard and shard % unit.stride != unit.offset:
            continue
        row = 0
        try:
            for table in stream.shard(num_shards=shards, index=shard):  # of one row
                unit.alive()
                if by_shard or row % unit.stride == unit.offset:
                    for item in bounded(table, data.max_line_mb * 1_000_000):
                        yield record(fields, item, shard * _ROWS + row)
                row += 1
        except errors as e:
            if unit.source.path.startswith(HUB) and (lost := _connection(e)) is not None:
                raise _away(f"data.path={data.path}", lost) from None
            if by_shard or unit.offset == 0:
                detail = f"the rest of shard {shard}: {type(e).__name__}: {_root(e)}"[:300]
                yield Fault(unit.source.name, 0, shard * _ROWS + row, "damaged", detail)
    if not unit.source.path.startswith(HUB):
        now = identify_folder(unit.source.path, unit.source.name)
        if now.stamp != unit.source.stamp:
            raise changed(unit.source, "its files are others")


def _open(data: Hub, unit: Unit) -> Any:
    path, _, revision = unit.source.path.removeprefix(HUB).rpartition("@")
    if not unit.source.path.startswith(HUB):
        path, revision = unit.source.path, ""
    check = f"data.config={data.config} and data.split={data.split}"
    found = load_split(path, data.config, data.split, revision or None, f"data.path={data.path}", check)
    return found.with_format("arrow")


def load_split(path: str, config: str | None, split: str, revision: str | None, given: str, check: str) -> Any:
    """A split of a data set as a stream; errors name the setting `given` and what to `check` (see `refusals`)."""
    import datasets

    datasets.disable_progress_bars()
    with refusals(given, check, on_hub=revision is not None):
        builder = datasets.load_dataset_builder(path, config, revision=revision)
        if revision and builder.hash != revision:  # without the hub it takes what its cache has, of any commit
            raise Unavailable(
                f"{given}: the hub does not answer, and what is cached is not {path}@{revision}. Check the connection"
            )
        return builder.as_streaming_dataset(split=split)


@contextmanager
def refusals(given: str, check: str, *, on_hub: bool) -> Iterator[None]:
    """What goes wrong inside as an InputError that names the setting and what to check; Unavailable without a hub."""
    import pyarrow
    from datasets.exceptions import DatasetNotFoundError, DatasetsError
    from huggingface_hub.errors import HfHubHTTPError

    try:
        yield
    except (OSError, ValueError, TypeError, RuntimeError, HfHubHTTPError, DatasetsError, pyarrow.ArrowException) as e:
        if on_hub and not isinstance(e, DatasetNotFoundError) and (lost := _connection(e)) is not None:
            raise _away(given, lost) from None
        root = e if isinstance(e, DatasetNotFoundError) else _root(e)
        reason = (str(root).splitlines() or [type(root).__name__])[0]
        token = "; a private data set needs HF_TOKEN" if on_hub else ""
        raise InputError(f"{given}: {reason}. Check {check}{token}") from e


def _away(given: str, lost: BaseException) -> Unavailable:
    return Unavailable(f"{given}: the hub does not answer: {type(lost).__name__}: {lost}. Check the connection")


def _connection(error: BaseException) -> BaseException | None:
    """What among the causes of an error says that the connection failed, not the data."""
    from huggingface_hub.errors import HfHubHTTPError

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, (ConnectionError, TimeoutError, HfHubHTTPError, hub_failure())):
            return cause
        cause = cause.__cause__ or cause.__context__
    return None


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
