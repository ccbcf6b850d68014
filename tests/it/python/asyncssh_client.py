"""Runs a command, copies a file there and back, and connects through the server, on one connection of asyncssh.

usage: asyncssh_client.py PORT USER KEY LOCAL REMOTE ECHO_PORT
"""
import asyncio
import json
import sys

import asyncssh

port, user, key, local, remote, echo_port = sys.argv[1:]


async def main():
    # The certificate beside the key is offered by itself.
    options = {"username": user, "client_keys": [key], "known_hosts": None, "agent_path": None, "config": None}
    async with asyncssh.connect("127.0.0.1", int(port), **options) as client:
        done = await client.run("cat; echo done >&2; exit 7", input="by stdin")
        told = {"stdout": done.stdout, "stderr": done.stderr.strip(), "status": done.exit_status}
        print(json.dumps(told))

        async with client.start_sftp_client() as sftp:
            await sftp.put(local, remote, block_size=32768, max_requests=64)
            await sftp.get(remote, local + ".back", block_size=32768, max_requests=64)
            print(json.dumps({"size": await sftp.getsize(remote)}))

        reader, writer = await client.open_connection("127.0.0.1", int(echo_port))
        writer.write(b"through the forward")
        writer.write_eof()
        print(json.dumps({"forward": (await reader.read()).decode()}))
        writer.close()


asyncio.run(asyncio.wait_for(main(), 200))
