// Watches a live recording with asciinema-player's own engine, as a page would: the token goes along as a sub-protocol.
// usage: TOKEN=… node --experimental-websocket watch.mjs URL     prints one JSON object per thing that happens
import { readdirSync } from 'node:fs';

const Native = globalThis.WebSocket;
const token = `gatescribe.token.${process.env.TOKEN}`;
globalThis.WebSocket = class extends Native {
  constructor(url, protocols) { super(url, [...protocols, token]); }
};

const dist = new URL('./node_modules/asciinema-player/dist/', import.meta.url);
const file = readdirSync(dist).find((name) => /^core-.*\.js$/.test(name));
const { C: Core } = await import(new URL(file, dist));

const say = (what) => console.log(JSON.stringify(what));
const fail = (...words) => { console.error(...words); process.exit(1); };
const logger = { log() {}, debug() {}, info() {}, warn: fail, error: fail };

const core = new Core({ driver: 'websocket', url: process.argv[2] }, { logger });
core.addEventListener('error', (event) => fail('player error', event));
core.addEventListener('reset', (event) => say({ reset: event }));
core.addEventListener('output', (text) => say({ output: Array.isArray(text) ? text.join('') : text }));
core.addEventListener('ended', (event) => { say({ ended: event }); process.exit(0); });

core.terminalReady();
await core.init();
await core.play();
setTimeout(() => fail('nothing ended'), 60000);
