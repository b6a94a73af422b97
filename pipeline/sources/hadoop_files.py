"""Files behind any Hadoop URL (`file://`, `hdfs://`, `s3a://`), through the FileSystem of the running Spark.

Only what the raw side needs: listing, reading and writing small text files, replacing a folder. Derived tables
have a commit protocol of their own (`pipeline/tables.py`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from pyspark.sql import SparkSession

from features.storage import refuse_secrets


@dataclass(frozen=True, kw_only=True)
class FileEntry:
    """One file or folder as its FileSystem lists it.

    Attributes:
        name: last part of the path.
        size: bytes; 0 for a folder.
        modified_ms: modification mark, epoch milliseconds (an object store gives the upload time).
    """

    name: str
    is_folder: bool
    size: int
    modified_ms: int


class HadoopFiles:
    """The FileSystem that serves one root URL."""

    def __init__(self, spark: SparkSession, root: str) -> None:
        refuse_secrets(root)
        jvm: Any = spark._jvm
        jsc: Any = spark.sparkContext._jsc
        self._jvm = jvm
        self._fs: Any = jvm.org.apache.hadoop.fs.Path(root).getFileSystem(jsc.hadoopConfiguration())

    def _path(self, url: str) -> Any:
        return self._jvm.org.apache.hadoop.fs.Path(url)

    def exists(self, url: str) -> bool:
        return bool(self._fs.exists(self._path(url)))

    def entries(self, folder: str) -> list[FileEntry]:
        """What lies directly in `folder`, by name; empty where there is no such folder."""
        if not self.exists(folder):
            return []
        found = [
            FileEntry(
                name=str(status.getPath().getName()),
                is_folder=bool(status.isDirectory()),
                size=int(status.getLen()),
                modified_ms=int(status.getModificationTime()),
            )
            for status in self._fs.listStatus(self._path(folder))
        ]
        return sorted(found, key=lambda entry: entry.name)

    def read_text(self, url: str) -> str:
        """Whole UTF-8 content of a small file.

        Raises:
            py4j.protocol.Py4JJavaError: the FileSystem's own error, e.g. FileNotFoundException.
        """
        stream = self._fs.open(self._path(url))
        try:
            return str(self._jvm.org.apache.commons.io.IOUtils.toString(stream, "UTF-8"))
        finally:
            stream.close()

    def write_text(self, url: str, text: str) -> None:
        """Replaces the file at `url` by UTF-8 `text`; parent folders are made."""
        self.write_bytes(url, text.encode())

    def write_bytes(self, url: str, content: bytes) -> None:
        """Replaces the file at `url` by `content`; parent folders are made."""
        stream = self._fs.create(self._path(url), True)
        try:
            stream.write(bytearray(content))
        finally:
            stream.close()

    def delete(self, url: str) -> bool:
        """Deletes a file or a whole folder; False where there was nothing."""
        return bool(self._fs.delete(self._path(url), True))

    def rename(self, source: str, target: str) -> None:
        """Renames a folder to a target that does not exist.

        Raises:
            OSError: the FileSystem refused (Hadoop's rename returns False instead of raising).
        """
        destination = self._path(target)
        self._fs.mkdirs(destination.getParent())
        if not self._fs.rename(self._path(source), destination):
            raise OSError(f"could not rename {source} to {target}; is another writer at work there?")

    def make_folder(self, url: str) -> None:
        self._fs.mkdirs(self._path(url))
