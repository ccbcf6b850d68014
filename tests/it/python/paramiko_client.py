"""Runs a command, copies a file there and back, and connects through the server, on one connection of paramiko.

usage: paramiko_client.py PORT USER KEY LOCAL REMOTE ECHO_PORT
"""
import json
import sys

import paramiko

port, user, key, local, remote, echo_port = sys.argv[1:]

client = paramiko.SSHClient()
client.set_missing_host_key_policy(paramiko.AutoAddPolicy())
client.connect(
    "127.0.0.1",
    int(port),
    user,
    pkey=paramiko.Ed25519Key.from_private_key_file(key),
    allow_agent=False,
    look_for_keys=False,
    timeout=60,
)

stdin, stdout, stderr = client.exec_command("cat; echo done >&2; exit 7")
stdin.write("by stdin")
stdin.channel.shutdown_write()
told = {"stdout": stdout.read().decode(), "stderr": stderr.read().decode().strip()}
print(json.dumps(told | {"status": stdout.channel.recv_exit_status()}))

sftp = client.open_sftp()
size = sftp.put(local, remote).st_size
# Asks for the whole file at once.
sftp.get(remote, local + ".back", prefetch=True)
print(json.dumps({"size": size}))

channel = client.get_transport().open_channel("direct-tcpip", ("127.0.0.1", int(echo_port)), ("127.0.0.1", 1))
channel.sendall(b"through the forward")
channel.shutdown_write()
print(json.dumps({"forward": channel.makefile("rb").read().decode()}))
client.close()
