"""An API key counts for what acts tell of it: a row that was put in or edited past them is found, and the key named."""

from functools import partial

import pytest
from sqlalchemy import Connection, text

from events.acts import By
from events.keys import ApiKey, draw
from events.seal_check import Finding
from phaseline import database
from tests.audit.scene import Scene

ADA = By("user:ada", None, "a new colleague")
DAY_MS = 24 * 3600 * 1000
PUT_IN = (
    "INSERT INTO api_keys (id, tenant, name, sha256, scopes, created_at) "
    "SELECT 'put-in', tenant, name, sha256, 'admin', 1 FROM api_keys WHERE id = :key"
)


async def a_key(scene: Scene, *, revoked: bool = False) -> str:
    now = await scene.log.now()
    key, _ = draw("default", "CI", ["submit", "read"], now_ms=now, expires_at=now + DAY_MS)
    await scene.log.add_key(key, ADA)
    if revoked:
        await scene.log.revoke_key(key.id, ADA)
    return key.id


async def test_keys_that_acts_tell_of_are_no_findings(scene: Scene) -> None:
    await a_key(scene)
    await a_key(scene, revoked=True)
    report = await scene.verify()
    assert (report.findings, report.keys) == ([], 2)


@pytest.mark.parametrize(
    ("edit", "finding"),
    [
        (PUT_IN, ("added", "no act tells")),
        ("UPDATE api_keys SET scopes = 'submit read cancel admin' WHERE id = :key", ("changed", "acts tell of submit read")),
        ("UPDATE api_keys SET expires_at = NULL WHERE id = :key", ("changed", "its expires_at is none")),
        ("UPDATE api_keys SET expires_at = expires_at + 1000 WHERE id = :key", ("changed", "its expires_at is")),
        ("UPDATE api_keys SET tenant = 'other' WHERE id = :key", ("changed", "its tenant is other")),
        ("UPDATE api_keys SET name = 'somebody' WHERE id = :key", ("changed", "its name is somebody")),
        ("UPDATE api_keys SET sha256 = :digest WHERE id = :key", ("changed", "its secret is another")),
        ("UPDATE api_keys SET revoked_at = 1 WHERE id = :key", ("changed", "no act tells of that")),
        ("UPDATE api_keys SET revoked_at = NULL WHERE id = :revoked", ("changed", "its row says it is not")),
        ("DELETE FROM api_keys WHERE id = :key", ("missing", "its row is gone")),
        ("UPDATE api_keys SET used_at = 1 WHERE id = :key", None),
    ],
)  # fmt: skip
async def test_a_row_that_was_edited_is_found_and_the_key_named(
    scene: Scene, edit: str, finding: tuple[str, str] | None
) -> None:
    await scene.write(1)
    key, other, revoked = await a_key(scene), await a_key(scene), await a_key(scene, revoked=True)
    await scene.sealer.seal()
    await scene.tamper(edit, key=key, revoked=revoked, digest=b"\x07" * 32)
    found = await scene.findings()
    if finding is None:
        assert found == []
        return
    [one] = found
    named = "put-in" if "put-in" in edit else revoked if ":revoked" in edit else key
    assert (one.what, one.key_id, one.job_id) == (finding[0], named, None)
    assert finding[1] in one.detail
    assert str(one).startswith(f"key {named}: ")
    assert other != named


async def test_keys_of_before_acts_are_told_of_once_by_the_migration_and_held_from_then_on(scene: Scene) -> None:
    """A row that says it is older than every act is no way past the audit."""
    now = await scene.log.now()
    old, _ = draw("default", "of before", ["admin"], now_ms=1)
    gone, _ = draw("acme", 'Zürich "東京"', ["read"], now_ms=now, expires_at=now + 1)
    told = await a_key(scene)
    insert = "INSERT INTO api_keys (id, tenant, name, sha256, scopes, created_at, expires_at, revoked_at) VALUES "
    for key, revoked in ((old, None), (gone, 5)):
        values: dict[str, object] = {
            "id": key.id,
            "tenant": key.tenant,
            "name": key.name,
            "sha": key.sha256,
            "scopes": key.scopes[0],
        }
        instants: dict[str, object] = {"created": key.created_at, "expires": key.expires_at, "revoked": revoked}
        put = insert + "(:id, :tenant, :name, :sha, :scopes, :created, :expires, :revoked)"
        await database.on_connection(scene.settings, partial(_do, put, values | instants))
    assert {finding.key_id for finding in await scene.findings()} == {old.id, gone.id}
    await database.downgrade(scene.settings, "0026")
    for _ in range(2):  # twice is once
        await database.migrate(scene.settings)
        await database.on_connection(
            scene.settings, partial(_do, "UPDATE alembic_version SET version_num = '0026'", {})
        )
    await database.migrate(scene.settings)
    assert len(await scene.log.acts("default", None, 9)) == 2
    [act] = await scene.log.acts("acme", None, 9)
    assert (act.actor, act.act().act, act.act().target) == ("system:migration", "key_recorded", gone.id)
    await scene.sealer.seal()
    report = await scene.verify()
    assert (report.findings, report.keys, report.unsealed) == ([], 3, 0)
    await scene.tamper("UPDATE api_keys SET scopes = 'read admin' WHERE id = :key", key=gone.id)
    await scene.tamper("UPDATE api_keys SET sha256 = :digest WHERE id = :key", key=old.id, digest=b"\x07" * 32)
    assert _named(await scene.findings()) == {gone.id: "changed", old.id: "changed"}
    assert told not in {old.id, gone.id}


async def test_keys_made_and_revoked_while_an_audit_runs_are_no_findings(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = await a_key(scene), await a_key(scene)
    await scene.tamper(PUT_IN, key=one)
    listed = scene.log.keys
    late = [scene.log.revoke_key(other, ADA), a_key(scene)]

    async def and_then_something_is_done() -> list[ApiKey]:
        found: list[ApiKey] = await listed()
        if late:
            await late.pop()
        return found

    monkeypatch.setattr(scene.log, "keys", and_then_something_is_done)
    assert _named(await scene.findings()) == {"put-in": "added"}
    assert late == []


def _do(statement: str, values: dict[str, object], connection: Connection) -> None:
    connection.execute(text(statement), values)
    connection.commit()


def _named(found: list[Finding]) -> dict[str | None, str]:
    return {finding.key_id: finding.what for finding in found}
