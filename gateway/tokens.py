"""Bearer tokens of an OpenID Connect issuer: who they name, for which tenant, and what they may (RFC 7519, RFC 8725).

A token is a JWS signed with an asymmetric key the issuer publishes, by one of the algorithms a setting names. It is judged
by itself: nothing of it is stored, and it ends when it says.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from joserfc import jwt
from joserfc.errors import ClaimError, InvalidKeyIdError, JoseError
from joserfc.jwk import KeySet
from joserfc.jws import JWSRegistry

from events.clock import Clock
from events.keys import DEFAULT_TENANT, SCOPES, TENANT, Scope
from gateway.bearers import BadToken, Bearer
from gateway.issuer_keys import IssuerKeys, Source

# Asymmetric all of them: with `none` anybody signs, with HMAC whoever has read the public keys.
ALGORITHMS = frozenset({"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"})
CHARS_MAX = 8192  # as many as fit into a request's header
SUBJECT_CHARS_MAX = 255  # OpenID Connect Core 1.0 §2
_OURS: Mapping[str, frozenset[Scope]] = {scope: frozenset((scope,)) for scope in SCOPES}


@dataclass(frozen=True, slots=True)
class Accepted:
    """Which tokens are. `scopes` are ours by the words of the claim; without a `tenant_claim` all are the default's."""

    audience: str
    algorithms: frozenset[str] = frozenset({"RS256", "ES256"})
    scope_claim: str = "scope"
    scopes: Mapping[str, frozenset[Scope]] = field(default_factory=lambda: _OURS)
    tenant_claim: str = ""
    leeway_s: int = 30

    def __post_init__(self) -> None:
        unknown = self.algorithms - ALGORITHMS
        if unknown or not self.algorithms:
            named = ", ".join(sorted(unknown)) or "nothing"
            raise ValueError(f"{named}: must be some of {', '.join(sorted(ALGORITHMS))}")


class Tokens:
    """Judges tokens of one issuer."""

    def __init__(self, source: Source, accepted: Accepted, clock: Clock) -> None:
        self.keys = IssuerKeys(source)
        self._accepted = accepted
        self._signed = JWSRegistry(algorithms=accepted.algorithms, strict_check_header=False)
        self._claims = jwt.JWTClaimsRegistry(
            now=lambda: clock.now_ms() // 1000,
            leeway=accepted.leeway_s,
            iss={"essential": True, "value": source.issuer},
            aud={"essential": True, "value": accepted.audience},
            sub={"essential": True},
            exp={"essential": True},
        )

    async def who(self, text: str) -> Bearer:
        """Whom a token names. Raises `BadToken`, `IssuerAway`."""
        if len(text) > CHARS_MAX:
            raise BadToken(f"it has over {CHARS_MAX} characters")
        known = self.keys.known
        try:
            try:
                claims = self._verified(text, known)
            except InvalidKeyIdError:
                newer = await self.keys.newer(known)
                if newer is None:
                    raise
                claims = self._verified(text, newer)
            self._claims.validate(claims)
        except ClaimError as wrong:
            raise BadToken(_told(wrong)) from wrong
        except (JoseError, ValueError, RecursionError) as wrong:
            raise BadToken("its form, algorithm, key or signature is wrong") from wrong
        return self._bearer(claims)

    async def run(self) -> None:
        """Follows the issuer's keys until cancelled."""
        await self.keys.run()

    def _verified(self, text: str, keys: KeySet) -> dict[str, Any]:
        return jwt.decode(text, keys, registry=self._signed).claims

    def _bearer(self, claims: dict[str, Any]) -> Bearer:
        subject: str = claims["sub"]
        tenant: Any = DEFAULT_TENANT
        if not subject.isprintable() or len(subject) > SUBJECT_CHARS_MAX or subject == "anonymous":
            raise BadToken("the claim sub names nobody")
        if claim := self._accepted.tenant_claim:
            tenant = claims.get(claim)
            if not isinstance(tenant, str) or not TENANT.fullmatch(tenant):
                raise BadToken(f"the claim {claim} names no tenant")
        until = int(claims["exp"] + self._accepted.leeway_s) * 1000
        return Bearer(tenant, subject, self._granted(claims), until)

    def _granted(self, claims: dict[str, Any]) -> frozenset[Scope]:
        said = claims.get(self._accepted.scope_claim, "")
        words = said.split() if isinstance(said, str) else said if isinstance(said, list) else ()
        nothing: frozenset[Scope] = frozenset()
        return nothing.union(*(self._accepted.scopes.get(word, nothing) for word in words if isinstance(word, str)))


def _told(wrong: ClaimError) -> str:
    match wrong.error:
        case "expired_token":
            return "it has expired"
        case "missing_claim":
            return f"it lacks the claim {wrong.claim}"
        case _:
            return f"its claim {wrong.claim} is not one that is accepted here"
