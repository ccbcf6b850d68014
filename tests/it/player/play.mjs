// Plays a cast with asciinema-player's own engine: loads it, seeks to its end, and prints what a terminal would get.
// usage: node play.mjs FILE     prints one JSON object: { duration, size, output, input, resizes }
import { readFileSync, readdirSync } from 'node:fs';

const dist = new URL('./node_modules/asciinema-player/dist/', import.meta.url);
const file = readdirSync(dist).find((name) => /^core-.*\.js$/.test(name));
const { C: Core } = await import(new URL(file, dist));

const fail = (...words) => { console.error(...words); process.exit(1); };
const logger = { log() {}, debug() {}, info() {}, warn: fail, error: fail };
const seen = { duration: null, size: null, output: '', input: 0, resizes: [] };

const core = new Core({ data: readFileSync(process.argv[2], 'utf8') }, { logger, preload: true });
core.addEventListener('error', (event) => fail('player error', event));
core.addEventListener('metadata', (meta) => { seen.duration = meta.duration; seen.size = meta.size ?? null; });
core.addEventListener('reset', (event) => { seen.output = ''; seen.resizes = []; seen.size = event.size; });
core.addEventListener('output', (text) => { seen.output += Array.isArray(text) ? text.join('') : text; });
core.addEventListener('input', () => { seen.input += 1; });
core.addEventListener('resize', (event) => { seen.resizes.push(event); });

core.terminalReady();
await core.init();
seen.duration = await core.getDuration();
await core.seek('100%');
console.log(JSON.stringify(seen));
process.exit(0);
