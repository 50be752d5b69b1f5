"""Requests a Job and prints its outcome. Usage: main.py [REQUEST]"""

import asyncio
import json
import os
import sys

import nats


async def main():
    request = sys.argv[1] if len(sys.argv) > 1 else '{"foo":"python"}'
    client = await nats.connect(os.environ["NATS_URL"])
    answer = await client.request(
        "jobs.simple.submit", request.encode(), timeout=60, headers={"Job-Wait": "outcome"}
    )
    await client.close()
    if answer.headers and (error := answer.headers.get("Nats-Service-Error")):
        sys.exit(error)
    print(json.loads(answer.data)["outcome"]["result"])


asyncio.run(main())
