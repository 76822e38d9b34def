"""A web and S3 server that misbehaves by seed, for the test of chaos; a program, so that it can be killed.

usage: bad_server.py FOLDER PORT. GET /b/SEED.PERCENT.KIND+KIND/name gives FOLDER/name: objects under shards/ with the
chance of a fault, of one of the kinds. What happens depends on the seed, the range and how often it was asked for.
"""

import asyncio
import hashlib
import os
import re
import sys
from collections import Counter
from pathlib import Path
from urllib.parse import parse_qs, unquote

FOLDER = Path(sys.argv[1])
WRONG_AT_MOST = (
    1  # times in a life that the same range is given wrong: with two more lives, less than a loader reads it
)
OUTAGES_AT_MOST = 2  # in a life, for the same plan
asked: Counter[str] = Counter()
done: Counter[str] = Counter()
away: dict[str, float] = {}  # who asks -> until when there is no answer


def fault(plan: str, name: str, span: str) -> tuple[str, int]:
    """Kind of fault of this request, empty for none, and a number to go with it."""
    seed, percent, kinds = plan.split(".")
    what = f"{seed} {name} {span}"
    asked[what] += 1
    word = int.from_bytes(hashlib.sha256(f"{what} {asked[what]}".encode()).digest()[:8])
    if not name.startswith("shards/") or not kinds or word % 100 >= int(percent):
        return "", 0
    choice = kinds.split("+")
    kind = choice[(word >> 8) % len(choice)]
    if kind in ("wrong", "short"):
        done[what] += 1
        kind = kind if done[what] <= WRONG_AT_MOST else ""
    if kind == "outage":
        done[plan] += 1
        kind = kind if done[plan] <= OUTAGES_AT_MOST else ""
    return kind, word >> 16


async def answer(plan: str, name: str, span: str, head: bool, out: asyncio.StreamWriter) -> bool:
    """Answer one request; whether the connection goes on."""
    now = asyncio.get_running_loop().time()
    kind, number = ("", 0) if head else fault(plan, name, span)
    if kind == "outage":
        away[plan] = now + 0.05 + number % 6 / 10
    if kind == "cut" or away.get(plan, 0) > now:
        return False
    if kind == "stall":
        await asyncio.sleep(0.3)
        return False
    if kind == "slow":
        await asyncio.sleep(number % 4 / 40)
    path = FOLDER / name
    code = {"refused": "403 Forbidden", "busy": "503 Slow Down"}.get(kind) or (
        "" if path.is_file() else "404 Not Found"
    )
    if code:
        out.write(f"HTTP/1.1 {code}\r\nContent-Length: 0\r\n\r\n".encode())
        return True
    data, size, fields = path.read_bytes(), path.stat().st_size, ""
    if found := re.fullmatch(r"bytes=(\d+)-(\d+)", span):
        start, end = int(found[1]), min(int(found[2]) + 1, size)
        if kind == "short" and end - start > 2:
            end -= (end - start) // 2
        data, fields = data[start:end], f"Content-Range: bytes {start}-{end - 1}/{size}\r\n"
    if kind == "wrong" and data:
        at = number % len(data)
        data = data[:at] + bytes([data[at] ^ 0x55]) + data[at + 1 :]
    status = "206 Partial Content" if fields else "200 OK"
    fields += f'Content-Length: {len(data)}\r\nETag: "x"\r\nLast-Modified: Wed, 01 Jan 2025 00:00:00 GMT\r\n'
    out.write(f"HTTP/1.1 {status}\r\n{fields}\r\n".encode() + (b"" if head else data[: len(data) // 2]))
    if kind == "half":
        return False
    if kind == "slow":
        await out.drain()
        await asyncio.sleep(number % 3 / 40)
    if not head:
        out.write(data[len(data) // 2 :])
    return True


def listing(prefix: str) -> bytes:
    """S3's answer to the question what lies under a prefix; never a fault."""
    plan, _, below = prefix.partition("/")
    found = [path for path in sorted((FOLDER / below).rglob("*")) if path.is_file()]
    rows = "".join(
        f"<Contents><Key>{plan}/{path.relative_to(FOLDER)}</Key><Size>{path.stat().st_size}</Size>"
        "<LastModified>2025-01-01T00:00:00.000Z</LastModified><ETag>x</ETag></Contents>"
        for path in found
    )
    body = f"<ListBucketResult><IsTruncated>false</IsTruncated>{rows}</ListBucketResult>".encode()
    return f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body


async def connection(incoming: asyncio.StreamReader, out: asyncio.StreamWriter) -> None:
    """Requests one after the other, until one side has enough."""
    try:
        while line := (await incoming.readline()).decode():
            fields = {}
            while (field := (await incoming.readline()).decode().strip()) != "":
                key, _, value = field.partition(":")
                fields[key.lower()] = value.strip()
            method, target, _ = line.split()
            path, _, query = target.partition("?")
            if "list-type" in query:
                out.write(listing(parse_qs(query)["prefix"][0]))
                continue
            _, _, plan, name = unquote(path).split("/", 3)
            if not await answer(plan, name, fields.get("range", ""), method == "HEAD", out):
                break
            await out.drain()
    except ConnectionError:
        pass
    finally:
        out.close()


async def main() -> None:
    server = await asyncio.start_server(connection, "127.0.0.1", int(sys.argv[2]))
    print(server.sockets[0].getsockname()[1], flush=True)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    os.chdir("/")
    asyncio.run(main())
