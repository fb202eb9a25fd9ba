"""Key agreement and the sealed letters between sites, which the coordinator relays and cannot read.

Each site has two X25519 keys in a run: one for the letters, one for the masks. Everything else is derived from them
with HKDF-SHA256 under a context that names what it is for, so that no key serves twice.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pybase64
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from v6_algorithm.errors import WireError

_NONCE_BYTES = 12
_KEY_HEX = 64


@dataclass(frozen=True)
class Participant:
    """One site of a run, as all the others know it.

    Attributes
    ----------
    site
        Its name.
    channel, mask
        Its public keys, 64 hexadecimal digits each.
    tag
        HMAC-SHA256 of name and keys under the secret that the nodes share, where they share one; else empty.
    """

    site: str
    channel: str
    mask: str
    tag: str = ""

    @classmethod
    def from_json(cls, content: Any) -> Participant:
        """Read one; raises WireError when it is malformed."""
        try:
            values = {key: content[key] for key in ("site", "channel", "mask", "tag")}
        except (KeyError, TypeError, IndexError):
            raise WireError("an entry of the participants' list is malformed") from None
        if not all(isinstance(value, str) for value in values.values()) or not values["site"]:
            raise WireError("an entry of the participants' list is malformed")
        for key in ("channel", "mask"):
            if len(values[key]) != _KEY_HEX or not set(values[key]) <= set("0123456789abcdef"):
                raise WireError(f"the {key} key of site '{values['site'][:60]}' is not 64 hexadecimal digits")
        return cls(**values)

    def to_json(self) -> dict[str, str]:
        """Return the JSON form."""
        return {"site": self.site, "channel": self.channel, "mask": self.mask, "tag": self.tag}


@dataclass(frozen=True)
class SiteKeys:
    """One site's two key pairs of a run."""

    site: str
    channel: X25519PrivateKey
    mask: X25519PrivateKey

    @classmethod
    def derive(cls, secret: bytes, run: str, site: str) -> SiteKeys:
        """Derive the pairs from a secret of the site's, the same at every call of a run."""
        made = [
            X25519PrivateKey.from_private_bytes(hkdf(secret, "private key", purpose, run, site))
            for purpose in ("channel", "mask")
        ]
        return cls(site, *made)

    def public(self, run: str, shared_secret: bytes | None = None) -> Participant:
        """Return what the others may know."""
        channel, mask = (key.public_key().public_bytes_raw().hex() for key in (self.channel, self.mask))
        return Participant(self.site, channel, mask, tag_of(shared_secret, run, self.site, channel, mask))

    def pair_seed(self, peer: Participant, context: str) -> bytes:
        """Return the seed that this site and a peer both know in a call, and nobody else."""
        pair = sorted([self.site, peer.site])
        return _agree(self.mask, peer.mask, "pair mask", context, *pair)

    def seal(self, peer: Participant, text: bytes, context: str) -> str:
        """Encrypt a letter to a peer."""
        key, about = self._letter(peer, self.site, peer.site, context)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return pybase64.b64encode_as_string(nonce + ChaCha20Poly1305(key).encrypt(nonce, text, about))

    def unseal(self, peer: Participant, letter: Any, context: str) -> bytes:
        """Decrypt a peer's letter; raises WireError for one of another sender, receiver or call."""
        key, about = self._letter(peer, peer.site, self.site, context)
        try:
            content = pybase64.b64decode(letter, validate=True)
            return ChaCha20Poly1305(key).decrypt(content[:_NONCE_BYTES], content[_NONCE_BYTES:], about)
        except (InvalidTag, ValueError, TypeError):
            raise WireError(
                f"the sealed shares of site '{peer.site}' do not open: they are of another call, another list of "
                "participants, or another key"
            ) from None

    def _letter(self, peer: Participant, sender: str, receiver: str, context: str) -> tuple[bytes, bytes]:
        about = _listed("letter", context, sender, receiver)
        return _agree(self.channel, peer.channel, "letter", context, sender, receiver), about


def tag_of(shared_secret: bytes | None, run: str, site: str, channel: str, mask: str) -> str:
    """Return the HMAC by which nodes that share a secret know each other's keys; empty where they share none."""
    if not shared_secret:
        return ""
    key = hkdf(shared_secret, "authentication of keys")
    return hmac.new(key, _listed(run, site, channel, mask), hashlib.sha256).hexdigest()


def check_participants(
    participants: Sequence[Participant], run: str, this_site: Participant, shared_secret: bytes | None
) -> None:
    """Refuse a list of participants that hides a site or is not of this run.

    Raises
    ------
    WireError
        Naming the site whose entry is wrong.
    """
    names = [participant.site for participant in participants]
    if names != sorted(set(names)):
        raise WireError("the participants' list must name each site once, in order")
    listed = [key for participant in participants for key in (participant.channel, participant.mask)]
    for participant in participants:
        if any(listed.count(key) > 1 for key in (participant.channel, participant.mask)):
            raise WireError(f"a key of site '{participant.site}' is listed twice")
        if shared_secret:
            expected = tag_of(shared_secret, run, participant.site, participant.channel, participant.mask)
            if not hmac.compare_digest(expected, participant.tag):
                raise WireError(
                    f"the keys of site '{participant.site}' do not bear the seal of the secret that the nodes share "
                    "(V6_ALGORITHM_AGGREGATION_SECRET)"
                )
    if this_site not in participants:
        wrong = "other keys than its own" if this_site.site in names else "no entry"
        raise WireError(f"the participants' list has {wrong} for site '{this_site.site}'")


def digest(content: Mapping[str, Any] | Sequence[Any]) -> str:
    """Return SHA-256 of some JSON, in one form."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()


def hkdf(secret: bytes, *purpose: str) -> bytes:
    """Derive 32 bytes for a purpose."""
    return HKDF(hashes.SHA256(), 32, None, _listed("v6-algorithm secure aggregation 1", *purpose)).derive(secret)


def _agree(private_key: X25519PrivateKey, peer: str, *purpose: str) -> bytes:
    try:
        shared = private_key.exchange(X25519PublicKey.from_public_bytes(bytes.fromhex(peer)))
    except ValueError:  # a point of small order
        raise WireError("a public key in the participants' list is not a usable one") from None
    return hkdf(shared, *purpose)


def _listed(*parts: str) -> bytes:
    return json.dumps(parts).encode()
