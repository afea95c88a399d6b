// The examples do what they say, and README.md shows them as they are.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { after, test } from "node:test";
import { AdminService, createClient, createTransport } from "../lib/node.js";
import { deadline, packageDir, readmeBlocks, run, startController, tempDir, within } from "./harness.js";

const controller = await startController({ simulate: 1 });

/**
 * @param {string} name
 * @returns {string} the example without the comment that only tsc reads
 */
const source = (name) => readFileSync(join(packageDir, "examples", name), "utf8").replace("// @ts-check\n", "");

/**
 * Runs an example and compares what it prints with what README.md says.
 * @param {string} name
 * @param {{ args?: string[], env?: NodeJS.ProcessEnv }} how
 * @param {string} output
 */
async function expectOutput(name, { args = [], env = {} }, output) {
  assert.equal(await run("node", [`examples/${name}`, ...args], { env }), output);
  assert.ok(readmeBlocks("console").includes(`$ node ${name}\n${output}`), `README.md must show the output of ${name}`);
}

test("README.md shows the examples as they are", () => {
  assert.deepEqual(readmeBlocks("js"), ["watch.mjs", "whoami.mjs", "errors.mjs", "follow.mjs", "page.mjs"].map(source));
});

test("watch.mjs follows its command to the end, and ends by itself", { timeout: deadline }, async () => {
  const output = `sim-vm-0001 set_log_level PENDING
sim-vm-0001 set_log_level DELIVERED
sim-vm-0001 set_log_level SUCCEEDED
`;
  await expectOutput("watch.mjs", { args: [controller.url] }, output);
  await expectOutput("watch.mjs", { env: { CONTROLLER_URL: controller.url } }, output);
});

test("agent.mjs lives an agent's life, and another one when it is started again", { timeout: deadline }, async () => {
  const output = `accepted
register_runner received
runner registered
`;
  await expectOutput("agent.mjs", { args: [controller.grpcUrl] }, output);
  await expectOutput("agent.mjs", { args: [controller.url] }, output);

  const admin = createClient(AdminService, createTransport({ baseUrl: controller.url }));
  const shown = async () => (await admin.getVM({ vmId: "example-vm-0001" })).vm;
  let vm = await shown();
  // The last heartbeat is stored up to 100 ms after it came; the test's timeout bounds the wait.
  while (vm?.status !== "idle") vm = await shown();
  assert.deepEqual([vm.poolId, vm.runner?.configured, vm.boot], ["examples", true, 2n]);
});

test("whoami.mjs shows the caller, and fails when it cannot read the token", { timeout: deadline }, async () => {
  await expectOutput("whoami.mjs", { args: [controller.url] }, "anyone ADMIN\n");
  const missing = run("node", ["examples/whoami.mjs", controller.url], { env: { TOKEN_FILE: join(tempDir(), "missing") } });
  await assert.rejects(missing, /\[unauthenticated\] get a token: ENOENT/);
});

test("errors.mjs shows what the controller says", { timeout: deadline }, async () => {
  await expectOutput(
    "errors.mjs",
    { args: [controller.url] },
    `code:   InvalidArgument
reason: INVALID_FIELD
field:  command.type
rule:   must be 1 to 128 characters of A-Z a-z 0-9 . _ -, the first a letter or digit
`,
  );
});

test("follow.mjs misses and repeats nothing when the controller is killed", { timeout: deadline }, async () => {
  const dataDir = tempDir();
  const first = await startController({ dataDir });
  const follow = spawn("node", ["examples/follow.mjs", first.url], { cwd: packageDir, stdio: ["ignore", "pipe", "inherit"] });
  after(() => follow.kill());
  const lines = createInterface({ input: follow.stdout })[Symbol.asyncIterator]();
  const line = async () => (await within(lines.next(), "a line of follow.mjs")).value;
  /** @param {string} url @param {string} id */
  const send = (url, id) => createClient(AdminService, createTransport({ baseUrl: url })).sendCommand({ vmId: "vm-1", command: { id, type: "drain" } });

  assert.equal(await line(), "watching");
  await send(first.url, "one");
  assert.equal(await line(), "vm-1 one PENDING");
  await first.kill();
  const second = await startController({ dataDir, httpAddr: new URL(first.url).host });
  await send(second.url, "two");
  assert.equal(await line(), "vm-1 two PENDING");

  follow.kill();
  await once(follow, "close");
});
