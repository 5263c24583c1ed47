"""Kafka's jars: fetched by coordinate with jgo (no Maven, no Java), each held to its committed SHA-256 sum.

`python -m billing.devstack.kafka_jars` (`make lock`) resolves `versions.KAFKA_COORDINATES` and writes
kafka-jars.sha256; its lines name each jar by its path in a Maven repository, so `sha256sum -c` reads the file too.
Starting downloads exactly what is listed there and walks no dependency tree.
"""

from __future__ import annotations

import hashlib
import shutil
import tempfile
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from billing.devstack import versions
from billing.devstack.errors import DevStackError
from billing.devstack.folders import cache_dir
from billing.devstack.locking import locked

if TYPE_CHECKING:
    from jgo.maven import Artifact, MavenContext

SUMS_FILE = Path(__file__).with_name("kafka-jars.sha256")
DOWNLOAD_MB = 45
DOWNLOAD_LIMIT_S = 300.0
LANES = 4


def class_path(say: Callable[[str], None], cache: Path | None = None, sums_file: Path = SUMS_FILE) -> list[Path]:
    """Kafka's jars, all present and matching their sums, downloaded if need be.

    Raises DevStackError naming the jar that is missing, altered or not listed.
    """
    sums = read_sums(sums_file)
    folder = (cache or cache_dir()) / f"kafka-{versions.KAFKA}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    if not folder.exists():
        with locked(folder.with_name(f"{folder.name}.lock"), what="Kafka's download", limit_s=DOWNLOAD_LIMIT_S):
            if not folder.exists():  # unless another process has just fetched it
                say(f"Kafka {versions.KAFKA}: downloading {len(sums)} jars, about {DOWNLOAD_MB} MB, once")
                _download(sums, folder)
    verify(folder, sums)
    return [folder / Path(path).name for path in sums]


def read_sums(sums_file: Path = SUMS_FILE) -> dict[str, str]:
    """Path in a Maven repository -> SHA-256, in class path order."""
    lines = [line.split(None, 1) for line in sums_file.read_text().splitlines() if line and not line.startswith("#")]
    return {path.strip(): digest for digest, path in lines}


def verify(folder: Path, sums: dict[str, str]) -> None:
    """Compare every file of the folder with the sums (45 MB take about 50 ms, so each start does)."""
    wanted = {Path(path).name: digest for path, digest in sums.items()}
    there = {path.name for path in folder.iterdir()}
    advice = f"remove {folder} to download it again"
    for name in sorted(there - wanted.keys()):
        raise DevStackError(f"Kafka: {name} in {folder} is not in {SUMS_FILE.name}: {advice}")
    for name in sorted(wanted.keys() - there):
        raise DevStackError(f"Kafka: {name} is missing: {advice}")
    for name, digest in wanted.items():
        if _sha256(folder / name) != digest:
            raise DevStackError(f"Kafka: {name} does not match its SHA-256 sum in {SUMS_FILE.name}: {advice}")


def _download(sums: dict[str, str], folder: Path) -> None:
    """Fetch into a folder of its own, renamed once every sum matches: an interrupted download leaves nothing."""
    for leftover in folder.parent.glob(f"{folder.name}.new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{folder.name}.new-", dir=folder.parent) as staging:
        maven = _maven(Path(staging) / "m2")
        jars = _fetch((_artifact(maven, path), digest) for path, digest in sums.items())
        complete = Path(staging) / "jars"
        complete.mkdir(mode=0o755)
        for jar in jars:
            jar.rename(complete / jar.name)
        verify(complete, sums)
        complete.rename(folder)


def _maven(repository: Path) -> MavenContext:
    from jgo.maven import MavenContext  # noqa: PLC0415 - only for a download

    return MavenContext(repo_cache=repository, local_repos=[], timeout=30)


def _artifact(maven: MavenContext, path: str) -> Artifact:
    *group, name, version, _ = path.split("/")
    return maven.project(".".join(group), name).at_version(version).artifact()


def _fetch(wanted: Iterable[tuple[Artifact, str | None]]) -> list[Path]:
    with ThreadPoolExecutor(LANES) as pool:
        try:
            return list(pool.map(lambda each: _fetch_one(*each), wanted))
        except Exception as failure:  # jgo and the HTTP client raise many kinds
            pool.shutdown(cancel_futures=True)
            raise DevStackError(f"Kafka: download failed: {str(failure).splitlines()[0]}") from failure


def _fetch_one(artifact: Artifact, digest: str | None) -> Path:
    """One jar; a second try when the connection was cut, which may leave a short file without an error."""
    with suppress(Exception):
        jar = artifact.resolve()
        if digest in (None, _sha256(jar)):
            return jar
    if artifact.cached_path is not None:
        artifact.cached_path.unlink(missing_ok=True)
    return artifact.resolve()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_sums(sums_file: Path = SUMS_FILE) -> int:
    """Resolve the coordinates with all they need at run time and write the sums; returns how many jars there are."""
    from jgo.parse import Endpoint  # noqa: PLC0415

    with tempfile.TemporaryDirectory() as staging:
        maven = _maven(Path(staging))
        coordinates = Endpoint.parse("+".join(versions.KAFKA_COORDINATES)).coordinates
        asked = [maven.create_dependency(replace(coordinate, scope="compile")) for coordinate in coordinates]
        direct, transitive = maven.resolver.resolve(asked)
        needed = [*direct, *(each for each in transitive if each.scope in ("compile", "runtime"))]
        jars = _fetch((each.artifact, None) for each in needed)
        lines = [f"{_sha256(jar)}  {jar.relative_to(staging).as_posix()}\n" for jar in jars]
    sums_file.write_text("".join(lines))
    return len(lines)


if __name__ == "__main__":
    print(f"{write_sums()} jars written to {SUMS_FILE.name}")
