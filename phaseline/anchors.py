"""Anchors: the newest seal's hash, signed into a file to be carried off the machine. What an anchor signed cannot change.

A file is one JSON object: `seal` (number), `hash` (hex), `at` (ms, of the seal), `events` (sealed since the anchor before it
in the folder), `jobs` (job id to the sequence it is sealed up to, of the jobs sealed since then; null when they are
more than 10 000), `public_key` and `signature` (base64; Ed25519, RFC 8032, over the compact JSON of all the others,
keys sorted).
"""

import asyncio
import base64
import binascii
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from events.clock import Clock
from events.errors import PhaselineError
from events.seal import Seal, unpack_ranges
from events.seal_check import Finding
from events.seal_log import SealLog
from events.values import decode, encode

JOBS_MAX = 10_000  # named in one anchor
ANCHOR_BYTES_MAX = 4 * 1024 * 1024


class BadKey(PhaselineError):
    """A key cannot be used; says which."""


@dataclass(frozen=True, slots=True)
class Anchor:
    """A signed file that was read and holds."""

    seal: int
    hash: str
    at: int
    jobs: dict[str, int] | None


def new_key(path: Path) -> str:
    """Makes a private key, readable by its owner only, and returns the public key. Raises `FileExistsError`."""
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(pem)
    return public_text(key.public_key())


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key in a PEM file. Raises `BadKey`, `OSError`."""
    try:
        key = serialization.load_pem_private_key(path.read_bytes(), password=None)
    except (ValueError, TypeError) as problem:
        raise BadKey(f"{path} holds no private key in PEM without a password") from problem
    if not isinstance(key, Ed25519PrivateKey):
        raise BadKey(f"{path} holds a key that is not Ed25519; make one with `phaseline audit key`")
    return key


def public_key(text: str) -> Ed25519PublicKey:
    """The key of its base64. Raises `BadKey`."""
    try:
        return Ed25519PublicKey.from_public_bytes(base64.b64decode(text, validate=True))
    except (ValueError, binascii.Error) as problem:
        raise BadKey("a public key is the base64 of 32 bytes, as `phaseline audit key` prints it") from problem


def public_text(key: Ed25519PublicKey) -> str:
    """The public key as `public_key` takes it."""
    raw = key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    return base64.b64encode(raw).decode()


class AnchorWriter:
    """Writes an anchor of new seals into a folder, at most one every `every_s`."""

    def __init__(
        self, log: SealLog, folder: Path, key: Ed25519PrivateKey, every_s: float, clock: Clock | None = None
    ) -> None:
        self._log = log
        self._folder = folder
        self._key = key
        self._every_s = every_s
        self._clock = clock or Clock()

    async def __call__(self, last: Seal) -> None:
        """Called with the newest seal. Raises `OSError` when the folder cannot be written."""
        newest = await asyncio.to_thread(self._newest)
        if newest is None or (newest[0] < last.no and self._clock.now_ms() / 1000 - newest[1] >= self._every_s):
            await self.write(last, newest[0] if newest else 0)

    async def write(self, last: Seal, after: int | None = None) -> Path:
        """Writes the anchor of this seal now; `after` is the seal of the anchor before it."""
        if after is None:
            newest = await asyncio.to_thread(self._newest)
            after = newest[0] if newest else 0
        events, jobs = await self._since(after, last.no)
        content = {"seal": last.no, "hash": last.hash.hex(), "at": last.at, "events": events, "jobs": jobs}
        content["public_key"] = public_text(self._key.public_key())
        signed = {**content, "signature": base64.b64encode(self._key.sign(_canonical(content))).decode()}
        return await asyncio.to_thread(self._keep, last.no, encode(signed) + b"\n")

    async def _since(self, after: int, through: int) -> tuple[int, dict[str, int] | None]:
        events = 0
        jobs: dict[str, int] | None = {}
        async for seal in self._log.bare_seals(after, through):
            events += seal.events
            if jobs is not None:
                jobs |= {job_id: last for job_id, _, last, _ in unpack_ranges(seal.ranges)}
                jobs = jobs if len(jobs) <= JOBS_MAX else None
        return events, jobs

    def _newest(self) -> tuple[int, float] | None:
        """The seal and the time of the newest anchor here."""
        self._folder.mkdir(parents=True, exist_ok=True)
        found = [(int(path.stem), path.stat().st_mtime) for path in _files(self._folder)]
        return max(found, default=None)

    def _keep(self, no: int, content: bytes) -> Path:
        path = self._folder / f"{no:012}.json"
        half = path.with_suffix(".tmp")
        with half.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        half.replace(path)
        return path


async def hold(log: SealLog, folder: Path, key: Ed25519PublicKey) -> tuple[list[Anchor], list[Finding]]:
    """Holds the log against every anchor in a folder; returns those the log meets, and what is wrong."""
    good: list[Anchor] = []
    findings: list[Finding] = []
    paths = await asyncio.to_thread(_files, folder)
    if not paths:  # whoever removed all of them must not be told that nothing is wrong
        findings.append(Finding("anchor", f"{folder} holds no anchor"))
    for path in paths:
        read = await asyncio.to_thread(_read, path, key)
        if isinstance(read, Finding):
            findings.append(read)
            continue
        wrong = await _held(log, read, good[-1].seal if good else 0)
        findings += wrong
        if not wrong:
            good.append(read)
    return good, findings


async def _held(log: SealLog, anchor: Anchor, agreed: int) -> list[Finding]:
    found: list[Finding] = []
    seal = await log.seal(anchor.seal)
    if seal is None:
        detail = f"seal {anchor.seal} was signed and is gone; up to seal {agreed} the log meets its anchors"
        found.append(Finding("anchor", detail, seal=anchor.seal))
    elif seal.hash.hex() != anchor.hash:
        detail = f"seal {anchor.seal} is not the one that was signed; up to seal {agreed} the log meets its anchors"
        found.append(Finding("anchor", detail, seal=anchor.seal))
    if found and anchor.jobs:
        sealed = await log.heads_sealed(list(anchor.jobs))
        for job_id, through in sorted(anchor.jobs.items()):
            now = sealed[job_id][0] if job_id in sealed else 0
            if now < through:
                gone = f"sealed up to event {through} when it was signed, now up to {now}"
                found.append(Finding("cut" if now else "missing", gone, job_id, now + 1, anchor.seal))
    return found


def _read(path: Path, key: Ed25519PublicKey) -> Anchor | Finding:
    try:
        with path.open("rb") as file:
            content: Any = decode(file.read(ANCHOR_BYTES_MAX))
        signature = base64.b64decode(content.pop("signature"), validate=True)
        key.verify(signature, _canonical(content))
        return Anchor(content["seal"], content["hash"], content["at"], content["jobs"])
    except InvalidSignature:
        return Finding("anchor", f"{path.name} was not signed by this key")
    except (ValueError, KeyError, TypeError, AttributeError):
        return Finding("anchor", f"{path.name} is no anchor")


def _canonical(content: dict[str, Any]) -> bytes:
    return encode(_sorted(content))


def _sorted(value: Any) -> Any:
    return {name: _sorted(value[name]) for name in sorted(value)} if isinstance(value, dict) else value


def _files(folder: Path) -> list[Path]:
    """Anchors by the number of their seal."""
    return sorted((path for path in folder.glob("*.json") if path.stem.isdecimal()), key=lambda path: int(path.stem))
