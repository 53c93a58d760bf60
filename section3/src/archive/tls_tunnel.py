"""A way through TLS for programs that cannot speak it.

DCMTK's getscu has no TLS, and its storescu does not look at the name in a certificate. So both speak plainly to a port
of this machine, open to one connection of this user, and what they say goes on by Python's own TLS, which does look.
"""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from archive.sending import ArchiveError

LOCALHOST = "127.0.0.1"
BLOCK = 1 << 16


class Tunnel:
    """From a port of this machine to a server by TLS. fault: what TLS had to say, if it failed on the way."""

    def __init__(self) -> None:
        self.port, self.fault = 0, ""

    async def open(self, host: str, port: int, context: ssl.SSLContext, timeout: float) -> None:
        try:
            self._far = await asyncio.wait_for(asyncio.open_connection(host, port, ssl=context), timeout)
        except asyncio.TimeoutError as error:  # noqa: UP041  another class before Python 3.11
            raise ArchiveError(f"no TLS connection within {timeout:g} s", transient=True) from error
        except ssl.SSLError as error:
            raise ArchiveError(f"TLS: {_words(error)}") from error
        except OSError as error:
            raise ArchiveError(f"no TLS connection: {error.strerror or error}", transient=True) from error
        self._server = await asyncio.start_server(self._serve, LOCALHOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not _is_of_this_user(writer.get_extra_info("peername")[1]):
            writer.close()
            return
        self._server.close()  # to nobody else
        from_far, to_far = self._far
        copies = [asyncio.create_task(self._copy(*way)) for way in ((reader, to_far), (from_far, writer))]
        await asyncio.wait(copies, return_when=asyncio.FIRST_COMPLETED)
        for one in copies:
            one.cancel()
        for one in (writer, to_far):
            one.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until one side ends."""
        try:
            while block := await reader.read(BLOCK):
                writer.write(block)
                await writer.drain()
        except ssl.SSLError as error:  # such as: they do not like our certificate
            self.fault = _words(error)
        except OSError:
            pass  # the program tells it in its own words

    async def close(self) -> None:
        if self.port:
            self._server.close()
            self._far[1].close()
            with suppress(OSError, asyncio.TimeoutError):
                await asyncio.wait_for(self._far[1].wait_closed(), 1)


@contextmanager
def tunnel(host: str, port: int, context: ssl.SSLContext, timeout: float) -> Iterator[Tunnel]:
    """A way to host:port, open when it is handed on. Raises ArchiveError."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    way = Tunnel()
    try:
        asyncio.run_coroutine_threadsafe(way.open(host, port, context, timeout), loop).result()
        yield way
    finally:
        asyncio.run_coroutine_threadsafe(way.close(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def _words(error: ssl.SSLError) -> str:
    """Such as: certificate verify failed: Hostname mismatch, certificate is not valid for 'pacs'."""
    detail = getattr(error, "verify_message", "")
    return (error.reason or "failed").lower().replace("_", " ") + (f": {detail.rstrip('.')}" if detail else "")


def _is_of_this_user(port: int) -> bool:
    """Whether a program of this user calls from that port of this machine; yes where no /proc tells."""
    table = Path("/proc/net/tcp")
    if not table.exists():
        return True
    rows = [line.split() for line in table.read_text().splitlines()[1:]]
    return any(row[1] == f"0100007F:{port:04X}" and int(row[7]) == os.getuid() for row in rows)
