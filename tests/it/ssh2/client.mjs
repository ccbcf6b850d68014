// Runs a command, copies a file there and back, and connects through the server, all on one connection of npm's ssh2.
// usage: node client.mjs PORT USER KEY LOCAL REMOTE ECHO_PORT
import { createReadStream, readFileSync } from 'node:fs';
import { pipeline } from 'node:stream/promises';
import { Client } from 'ssh2';

const [port, username, key, local, remote, echoPort] = process.argv.slice(2);

// A method that tells its result by a callback, as a promise.
const call = (object, method, ...args) => new Promise((resolve, reject) => {
  object[method](...args, (error, result) => (error ? reject(error) : resolve(result)));
});

const all = async (stream) => {
  const pieces = [];
  for await (const piece of stream) pieces.push(piece);
  return Buffer.concat(pieces).toString();
};

const client = new Client();
const ready = new Promise((resolve, reject) => client.on('ready', resolve).on('error', reject));
client.connect({ host: '127.0.0.1', port: Number(port), username, privateKey: readFileSync(key), readyTimeout: 60000 });
await ready;

const command = await call(client, 'exec', 'cat; echo done >&2; exit 7');
const closed = new Promise((resolve) => command.on('close', (status) => resolve(status)));
const stderr = all(command.stderr);
command.end('by stdin');
console.log(JSON.stringify({ stdout: await all(command), stderr: (await stderr).trim(), status: await closed }));

const sftp = await call(client, 'sftp');
// In any order, as pieces are read from the disk; then in order.
await call(sftp, 'fastPut', local, remote, { concurrency: 64, chunkSize: 32768 });
await pipeline(createReadStream(local), sftp.createWriteStream(remote));
await call(sftp, 'fastGet', remote, `${local}.back`, { concurrency: 64, chunkSize: 32768 });
const { size } = await call(sftp, 'stat', remote);
console.log(JSON.stringify({ size }));

const forward = await call(client, 'forwardOut', '127.0.0.1', 1, '127.0.0.1', Number(echoPort));
forward.end('through the forward');
console.log(JSON.stringify({ forward: await all(forward) }));
client.end();
