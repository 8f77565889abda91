"""What the settings `PHASELINE_OIDC_…` say of tokens, for the gateway and for `phaseline doctor`."""

from events.clock import Clock
from events.keys import SCOPES, Scope
from gateway.issuer_keys import IssuerAway, Source, fetched
from gateway.tokens import Accepted, Tokens
from phaseline.findings import Finding, failed, ok
from phaseline.settings import Misconfigured, Settings, words


def tokens(settings: Settings) -> Tokens | None:
    """What judges tokens; None without an issuer. Raises `Misconfigured`."""
    if not settings.oidc_issuer:
        return None
    return Tokens(_source(settings), _accepted(settings), Clock())


async def examined(settings: Settings) -> Finding:
    """Whether the settings fit together and the issuer gives keys that can be used."""
    try:
        source, accepted = _source(settings), _accepted(settings)
        keys = await fetched(source.issuer)
    except Misconfigured as wrong:
        return failed("tokens", str(wrong), "correct it: docs/operations.md tells what each setting means")
    except IssuerAway as away:
        cure = "start the issuer, or correct PHASELINE_OIDC_ISSUER; tokens of keys a gateway knows go on working"
        return failed("tokens", str(away), cure)
    named = {key.alg for key in keys.keys if key.alg}
    if named and not named & accepted.algorithms:
        cure = f"set PHASELINE_OIDC_ALGORITHMS={','.join(sorted(named))}, if that is meant"
        return failed("tokens", f"{source.issuer} signs with {', '.join(sorted(named))}", cure)
    return ok("tokens", f"{source.issuer} gives {len(keys.keys)} keys")


def _source(settings: Settings) -> Source:
    try:
        return Source(settings.oidc_issuer)
    except ValueError as problem:
        raise Misconfigured(f"PHASELINE_OIDC_ISSUER: {problem}") from problem


def _accepted(settings: Settings) -> Accepted:
    if not settings.oidc_audience:
        raise Misconfigured(
            "PHASELINE_OIDC_AUDIENCE: must be set with PHASELINE_OIDC_ISSUER, or tokens meant for others would do"
        )
    try:
        accepted = Accepted(
            settings.oidc_audience,
            frozenset(words(settings.oidc_algorithms)),
            settings.oidc_scope_claim,
            tenant_claim=settings.oidc_tenant_claim,
            leeway_s=settings.oidc_leeway_s,
            **({"scopes": scopes} if (scopes := _scopes(settings.oidc_scopes)) else {}),
        )
    except ValueError as problem:
        raise Misconfigured(f"PHASELINE_OIDC_ALGORITHMS: {problem}") from problem
    return accepted


def _scopes(text: str) -> dict[str, frozenset[Scope]]:
    found: dict[str, frozenset[Scope]] = {}
    for pair in words(text):
        theirs, _, ours = pair.rpartition("=")
        if not theirs or ours not in SCOPES:
            raise Misconfigured(f"PHASELINE_OIDC_SCOPES: {pair} must be THEIRS=OURS, OURS one of {', '.join(SCOPES)}")
        found[theirs] = found.get(theirs, frozenset()) | {ours}
    return found
