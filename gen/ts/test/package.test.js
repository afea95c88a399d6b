// What npm publishes is whole: it installs into a new project, is well typed
// there under strict settings, and runs.
import assert from "node:assert/strict";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { packageDir, readmeBlocks, run, startController, tempDir } from "./harness.js";

const timeout = 120_000;

/** @param {string} path */
const readJSON = (path) => JSON.parse(readFileSync(join(packageDir, path), "utf8"));

test("everything of the schema is exported", () => {
  for (const index of ["lib/index.js", "lib/index.d.ts"]) {
    const text = readFileSync(join(packageDir, index), "utf8");
    for (const dir of ["src/migcontroller/v1", "src/miglet/commands"]) {
      const files = readdirSync(join(packageDir, dir)).filter((name) => name.endsWith("_pb.js"));
      assert.ok(files.length > 0);
      for (const file of files) assert.ok(text.includes(`export * from "../${dir}/${file}";`), `${index} lacks ${dir}/${file}`);
    }
  }
});

test("the package installs, type-checks and runs in a new project", { timeout }, async () => {
  const project = tempDir();
  const [packed] = JSON.parse(await run("npm", ["pack", "--json", "--loglevel=error", "--pack-destination", project]));
  /** @type {string[]} */
  const files = packed.files.map((/** @type {{ path: string }} */ { path }) => path);
  assert.deepEqual(files.filter((path) => !/^(lib|src|examples)\//.test(path)), ["LICENSE", "README.md", "package.json"]);
  assert.ok(files.includes("src/migcontroller/v1/admin_service_pb.js") && files.includes("lib/web.d.ts"), `${files}`);

  // What the ranges of the dependencies allow changes; the versions tested do not.
  const { packages } = readJSON("package-lock.json");
  const versions = Object.fromEntries(
    Object.keys(readJSON("package.json").dependencies).map((name) => [name, packages[`node_modules/${name}`].version]),
  );
  const typesNode = packages["node_modules/@types/node"].version;
  writeFileSync(join(project, "package.json"), JSON.stringify({ type: "module", private: true, overrides: versions }));
  const install = ["install", "--no-audit", "--no-fund", "--loglevel=error", "--prefer-offline"];
  await run("npm", [...install, `./${packed.filename}`, `@types/node@${typesNode}`], { cwd: project, timeout });

  const [watch = "", whoami = "", errors = "", follow = "", page = ""] = readmeBlocks("js");
  writeFileSync(join(project, "watch.ts"), watch);
  writeFileSync(join(project, "whoami.ts"), whoami);
  writeFileSync(join(project, "errors.ts"), errors);
  writeFileSync(join(project, "follow.ts"), follow);
  writeFileSync(join(project, "page.js"), page);
  const strict = ["--noEmit", "--strict", "--exactOptionalPropertyTypes", "--noUncheckedIndexedAccess", "--target", "es2022"];
  const tsc = (/** @type {string[]} */ ...args) => run(join(packageDir, "node_modules/.bin/tsc"), [...strict, ...args], { cwd: project, timeout });
  const forNode = ["watch.ts", "whoami.ts", "errors.ts", "follow.ts", "--types", "node"];
  const forBrowsers = ["page.js", "--allowJs", "--checkJs", "--types", ""];
  await tsc(...forNode, "--module", "nodenext");
  await tsc(...forNode, "--module", "esnext", "--moduleResolution", "bundler");
  await tsc(...forBrowsers, "--module", "nodenext");
  await tsc(...forBrowsers, "--module", "esnext", "--moduleResolution", "bundler");
  writeFileSync(join(project, "wrong.ts"), watch.replace("sent.command?.command?.id", "sent.command?.id"));
  await assert.rejects(tsc("wrong.ts", "--types", "node", "--module", "nodenext"), /'id' does not exist/, "types that allow anything");

  const controller = await startController({ simulate: 1 });
  writeFileSync(join(project, "watch.mjs"), watch);
  const output = await run("node", ["watch.mjs", controller.url], { cwd: project });
  assert.ok(readmeBlocks("console").includes(`$ node watch.mjs\n${output}`), output);
});

test("every entry point has what its types declare", async () => {
  const reexports = (/** @type {string} */ path) => readFileSync(join(packageDir, path), "utf8").match(/^export (\*|\{[^}]*\}) from ".*";$/gm);
  assert.ok(reexports("lib/index.js"));
  assert.deepEqual(reexports("lib/index.js"), reexports("lib/index.d.ts"));
  const { exports } = readJSON("package.json");
  for (const entry of [".", "./node", "./web"]) {
    const module = await import(join(packageDir, exports[entry].default));
    for (const name of ["AdminService", "AccessService", "CommandService", "AgentService", "ErrorReason", "createClient", "create", "ConnectError", "Code", "errorDetail"]) {
      assert.ok(module[name], `${entry} exports ${name}`);
    }
    assert.equal(typeof module.createTransport, entry === "." ? "undefined" : "function");
  }
});

test("the license is the project's", () => {
  assert.equal(readFileSync(join(packageDir, "LICENSE"), "utf8"), readFileSync(join(packageDir, "../../LICENSE"), "utf8"));
});
