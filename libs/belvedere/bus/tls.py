"""The hub's own certificate authority, and the server certificate for its leaf port and the device HTTPS port.

    DATA/secrets/tls/   ca.pem ca.key server.pem server.key

A device gets ca.pem with its bundle and trusts nothing else. The server certificate is made again when the host names
change or it nears its end; the CA stays, so that enrolled devices are never locked out.
"""

from __future__ import annotations

import ipaddress
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from belvedere.bus.keyring import write_secret

CA_DAYS = 20 * 365  # an appliance in a ceiling outlives shorter ones, and there is no way to hand it another
SERVER_DAYS = 397
RENEW_BEFORE_DAYS = 60
CLOCK_SKEW = timedelta(days=1)  # an appliance without a battery clock may start in the past
ALWAYS = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class HubTls:
    """Where the certificates lie."""

    folder: Path

    @property
    def ca(self) -> Path:
        """What clients trust."""
        return self.folder / "ca.pem"

    @property
    def certificate(self) -> Path:
        """The server's certificate, followed by the CA's."""
        return self.folder / "server.pem"

    @property
    def key(self) -> Path:
        """The server's private key."""
        return self.folder / "server.key"

    def server_context(self) -> ssl.SSLContext:
        """For an HTTPS server beside the hub."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        context.load_cert_chain(self.certificate, self.key)
        return context

    def client_context(self) -> ssl.SSLContext:
        """For a client of it."""
        return ssl.create_default_context(cafile=str(self.ca))


def prepare(secrets: Path, host_names: Sequence[str] = (), now: datetime | None = None) -> HubTls:
    """Makes what is absent, about to end, or made for other names; `host_names` are DNS names or addresses."""
    now = now or datetime.now(UTC)
    tls = HubTls(secrets / "tls")
    tls.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    ca_key_path = tls.folder / "ca.key"
    if not tls.ca.exists() or not ca_key_path.exists():
        ca_key = ec.generate_private_key(ec.SECP256R1())
        write_secret(ca_key_path, _pem(ca_key))
        write_secret(tls.ca, _ca(ca_key, now).public_bytes(serialization.Encoding.PEM))
    names = tuple(dict.fromkeys((*ALWAYS, *host_names)))
    if not _still_good(tls, names, now):
        loaded = serialization.load_pem_private_key(ca_key_path.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        ca = x509.load_pem_x509_certificate(tls.ca.read_bytes())
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = _server(key, names, ca, loaded, now)
        write_secret(tls.key, _pem(key))
        write_secret(tls.certificate, certificate.public_bytes(serialization.Encoding.PEM) + tls.ca.read_bytes())
    return tls


def _still_good(tls: HubTls, names: Sequence[str], now: datetime) -> bool:
    if not tls.certificate.exists() or not tls.key.exists():
        return False
    certificate = x509.load_pem_x509_certificate(tls.certificate.read_bytes())
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    same = list(found) == [_name(name) for name in names]
    return same and certificate.not_valid_after_utc - now > timedelta(days=RENEW_BEFORE_DAYS)


def _name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)


def _builder(
    subject: str, issuer: x509.Name | None, key: ec.EllipticCurvePrivateKey, days: int, now: datetime
) -> x509.CertificateBuilder:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer or name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + timedelta(days=days))
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
    )


def _usage(**flags: bool) -> x509.KeyUsage:
    names = (
        "digital_signature",
        "content_commitment",
        "key_encipherment",
        "data_encipherment",
        "key_agreement",
        "key_cert_sign",
        "crl_sign",
        "encipher_only",
        "decipher_only",
    )
    return x509.KeyUsage(**{name: flags.get(name, False) for name in names})


def _ca(key: ec.EllipticCurvePrivateKey, now: datetime) -> x509.Certificate:
    builder = _builder("Belvedere hub CA", None, key, CA_DAYS, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
    return builder.add_extension(_usage(key_cert_sign=True, crl_sign=True), critical=True).sign(key, hashes.SHA256())


def _server(
    key: ec.EllipticCurvePrivateKey,
    names: Sequence[str],
    ca: x509.Certificate,
    ca_key: ec.EllipticCurvePrivateKey,
    now: datetime,
) -> x509.Certificate:
    builder = _builder("Belvedere hub", ca.subject, key, SERVER_DAYS, now)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_usage(digital_signature=True), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName([_name(name) for name in names]), critical=False)
    issuer = x509.AuthorityKeyIdentifier.from_issuer_public_key(ca_key.public_key())
    return builder.add_extension(issuer, critical=False).sign(ca_key, hashes.SHA256())


def _pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
