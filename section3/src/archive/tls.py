"""TLS towards an archive: whom to trust, and who we are."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

from archive.sending import ArchiveError


@dataclass(frozen=True)
class TlsFiles:
    """In PEM. authority: certificates to trust instead of the system's. own: our private key, and our certificate."""

    authority: Path | None = None
    own: tuple[Path, Path] | None = None

    def context(self) -> ssl.SSLContext:
        """Raises ArchiveError where a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.authority)
        except OSError as error:  # SSLError is one
            raise ArchiveError(f"no certificates can be read from {self.authority}") from error
        if self.own:
            key, certificate = self.own
            try:
                context.load_cert_chain(certificate, key, password=lambda: "")  # else it would ask at the terminal
            except OSError as error:
                reason = f"{key} and {certificate} cannot be used as private key (without password) and certificate"
                raise ArchiveError(reason) from error
        return context


SYSTEM = TlsFiles()  # trusts what the system trusts, and is nobody
