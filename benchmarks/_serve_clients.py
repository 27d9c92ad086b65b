"""Many viewers of ``turntable serve`` in one process: each holds an event stream open and reads all that comes.

    python benchmarks/_serve_clients.py PORT COUNT

Prints ``ready`` when all have had their first event. On SIGTERM prints, as JSON, how many events and bytes each viewer got.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys


class Viewer:
    """One viewer."""

    def __init__(self) -> None:
        self.events = 0
        self.bytes = 0
        self.first = asyncio.Event()

    async def watch(self, port: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET /events HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        while data := await reader.read(1 << 16):
            self.bytes += len(data)
            self.events += data.count(b"event: ")
            if self.events:
                self.first.set()


async def main(port: int, count: int) -> None:
    viewers = [Viewer() for _ in range(count)]
    watching = [asyncio.create_task(viewer.watch(port)) for viewer in viewers]
    await asyncio.gather(*(viewer.first.wait() for viewer in viewers))
    print("ready", flush=True)
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    await stop.wait()
    for task in watching:
        task.cancel()
    print(json.dumps([(viewer.events, viewer.bytes) for viewer in viewers]))


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
