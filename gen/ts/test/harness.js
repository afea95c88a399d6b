// Runs the real controller, and programs that talk to it.
import { execFileSync, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after } from "node:test";
import { fileURLToPath } from "node:url";
import * as node from "../lib/node.js";
import * as web from "../lib/web.js";

/** How long anything may take before its test fails. */
export const deadline = 30_000;

export const packageDir = fileURLToPath(new URL("..", import.meta.url));

/**
 * Everything that can make a client: the entry point and the protocol.
 * @type {{ name: string, transport: (baseUrl: string) => node.Transport }[]}
 */
export const transports = [
  { name: "node-connect", transport: (baseUrl) => node.createTransport({ baseUrl, protocol: "connect" }) },
  { name: "node-grpc", transport: (baseUrl) => node.createTransport({ baseUrl, protocol: "grpc" }) },
  { name: "node-grpc-web", transport: (baseUrl) => node.createTransport({ baseUrl, protocol: "grpc-web" }) },
  { name: "web-connect", transport: (baseUrl) => web.createTransport({ baseUrl, protocol: "connect" }) },
  { name: "web-grpc-web", transport: (baseUrl) => web.createTransport({ baseUrl, protocol: "grpc-web" }) },
];

/** @type {(() => void)[]} */
const leftovers = [];
process.on("exit", () => leftovers.forEach((remove) => remove()));
process.on("SIGTERM", () => process.exit(1));

/**
 * Makes a directory that is removed when this process ends.
 * @returns {string}
 */
export function tempDir() {
  const dir = mkdtempSync(join(tmpdir(), "mig-controller-client-"));
  leftovers.push(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}

/** @type {string | undefined} */
let built = process.env.CONTROLLER_BIN;

function controllerBin() {
  if (built) return built;
  built = join(tempDir(), "controller");
  execFileSync("go", ["build", "-o", built, "./cmd/controller"], { cwd: join(packageDir, "../.."), stdio: "inherit" });
  return built;
}

/**
 * @typedef {object} Controller
 * @property {string} url where its HTTP port is
 * @property {string} grpcUrl where its gRPC port is
 * @property {() => Promise<void>} stop ends it with SIGTERM, and fails unless it exits with 0
 * @property {() => Promise<void>} kill ends it with SIGKILL
 */

/**
 * Starts a controller, on free ports by default. It is stopped at the
 * end of the test, or of the file when it is started outside of tests.
 * @param {{ simulate?: number, dataDir?: string, httpAddr?: string }} [options]
 * @returns {Promise<Controller>}
 */
export async function startController({ simulate = 0, dataDir = tempDir(), httpAddr = "localhost:0" } = {}) {
  const args = ["--http-addr", httpAddr, "--grpc-addr", "localhost:0", "--data-dir", dataDir, "--simulate", `${simulate}`];
  const child = spawn(controllerBin(), args, { stdio: ["ignore", "pipe", "pipe"] });
  const exit = once(child, "close");
  leftovers.unshift(() => child.kill("SIGKILL"));
  let log = "";
  child.stderr.on("data", (data) => (log += data));

  const timer = setTimeout(() => child.kill("SIGKILL"), deadline);
  /** @type {Map<string, string>} */
  const addresses = new Map();
  for await (const line of createInterface({ input: child.stdout })) {
    const [, name, address] = /^ {2}(http|grpc) addr +(\S+)$/.exec(line) ?? [];
    if (name && address) addresses.set(name, `http://${address}`);
    if (addresses.size === 2) break;
  }
  clearTimeout(timer);
  child.stdout.resume();
  const [url, grpcUrl] = [addresses.get("http"), addresses.get("grpc")];
  if (!url || !grpcUrl) throw new Error(`the controller did not start:\n${log}`);

  /** @type {Promise<void> | undefined} */
  let ended;
  /** @param {NodeJS.Signals} signal */
  const end = async (signal) => {
    child.kill(signal);
    const timer = setTimeout(() => child.kill("SIGKILL"), deadline);
    const [code] = await exit;
    clearTimeout(timer);
    if (code !== 0 && signal === "SIGTERM") throw new Error(`the controller ended with ${code}:\n${log}`);
  };
  const stop = () => (ended ??= end("SIGTERM"));
  after(stop);
  return { url, grpcUrl, stop, kill: () => (ended ??= end("SIGKILL")) };
}

/**
 * Runs a program to its end, and fails unless it exits with 0.
 * @param {string} command
 * @param {string[]} args
 * @param {{ cwd?: string, env?: NodeJS.ProcessEnv, timeout?: number }} [options]
 * @returns {Promise<string>} what it printed
 */
export async function run(command, args, { cwd = packageDir, env = {}, timeout = deadline } = {}) {
  const child = spawn(command, args, { cwd, env: { ...process.env, ...env }, stdio: ["ignore", "pipe", "pipe"], timeout });
  let [out, err] = ["", ""];
  child.stdout.on("data", (data) => (out += data));
  child.stderr.on("data", (data) => (err += data));
  const [code, signal] = await once(child, "close");
  if (code !== 0) throw new Error(`${command} ${args.join(" ")}: ${code ?? signal}\n${out}${err}`);
  return out;
}

/**
 * @param {string} language
 * @returns {string[]} the blocks of README.md that are in this language
 */
export function readmeBlocks(language) {
  const readme = readFileSync(join(packageDir, "README.md"), "utf8");
  return [...readme.matchAll(new RegExp(`^\`\`\`${language}\\n(.*?)^\`\`\`$`, "gms"))].map(([, text]) => text ?? "");
}

/**
 * Waits for a promise, and fails after the deadline.
 * @template T
 * @param {Promise<T>} promise
 * @param {string} what
 * @returns {Promise<T>}
 */
export async function within(promise, what) {
  /** @type {NodeJS.Timeout | undefined} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), deadline);
  });
  try {
    return /** @type {T} */ (await Promise.race([promise, late]));
  } finally {
    clearTimeout(timer);
  }
}
