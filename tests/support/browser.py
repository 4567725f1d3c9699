"""A headless Chromium, driven over its DevTools protocol, and a page served from an origin of its own."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx2
from websockets.asyncio.client import ClientConnection, connect

from tests.support.server import PATIENCE

NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
OPTIONS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)


def find_chromium() -> str | None:
    """Where Chromium is; None where there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """One page of a browser."""

    def __init__(self, devtools: ClientConnection) -> None:
        self._devtools = devtools
        self._numbers = itertools.count(1)

    async def command(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Send one command of the DevTools protocol and return its result."""
        number = next(self._numbers)
        await self._devtools.send(json.dumps({"id": number, "method": method, "params": parameters}))
        async with asyncio.timeout(PATIENCE):
            while (answer := json.loads(await self._devtools.recv())).get("id") != number:
                pass
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    async def value(self, expression: str) -> Any:
        """What an expression is in the page; it must be what JSON can say."""
        answer = await self.command("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    async def until(self, expression: str) -> None:
        """Wait until an expression is true in the page."""
        try:
            async with asyncio.timeout(PATIENCE):
                while not await self.value(expression):  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise AssertionError(f"never true in the page: {expression}") from None


@asynccontextmanager
async def browser_page(chromium: str, html: str) -> AsyncIterator[Page]:
    """Open a browser of its own on a page with this content."""
    async with _served(html) as url, _devtools(chromium) as address:
        async with httpx2.AsyncClient(base_url=address, timeout=PATIENCE, trust_env=False) as client:
            targets = (await client.get("/json/list")).json()
        target = next(each for each in targets if each["type"] == "page")
        async with connect(target["webSocketDebuggerUrl"], proxy=None, max_size=None) as devtools:
            page = Page(devtools)
            await page.command("Page.navigate", url=url)
            await page.until(f"location.href === {json.dumps(url)} && document.readyState === 'complete'")
            yield page


@asynccontextmanager
async def _devtools(chromium: str) -> AsyncIterator[str]:
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            *(chromium, *OPTIONS, f"--user-data-dir={profile}", "about:blank"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            process_group=0,
        )
        try:
            async with asyncio.timeout(PATIENCE):
                while (port := _port(profile)) is None:
                    assert process.returncode is None, f"{chromium} ended with {process.returncode}"
                    await asyncio.sleep(0.05)
            yield f"http://127.0.0.1:{port}"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


def _port(profile: str) -> int | None:
    """The port that a browser says it listens on; None as long as it has not said it whole."""
    with contextlib.suppress(FileNotFoundError):
        told = Path(profile, "DevToolsActivePort").read_text().splitlines()
        return int(told[0]) if len(told) > 1 else None
    return None


@asynccontextmanager
async def _served(html: str) -> AsyncIterator[str]:
    body = html.encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, EOFError):
            await reader.readuntil(b"\r\n\r\n")
            writer.write(head.encode() + body)
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()[:2]
        yield f"http://{host}:{port}/"
