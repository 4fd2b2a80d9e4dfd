"""Tables as Parquet files, from bytes and to bytes. pyarrow."""

import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def read(data: bytes, columns: list[str] | None = None) -> "pa.Table":
    """The table of a file, or some columns of it. Raises `ValueError` for bytes that are none or a damaged one;
    `to_pylist` may still raise it, for text that is not UTF-8, and `OverflowError`, for a time.

    Without threads: those of pyarrow's `read_table` now and then abort a process that ends right after, as it does on
    damaged files and as short commands do.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(io.BytesIO(data)).read(columns, use_threads=False)
    except (pa.ArrowException, OSError, OverflowError) as error:  # most damage is an `OSError`, as if of a disk
        raise ValueError(" ".join(str(error).split())) from error


def write(table: "pa.Table") -> bytes:
    """The bytes of a file that holds a table, compressed by zstd."""
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="zstd")
    return buffer.getvalue()
