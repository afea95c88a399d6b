// The entry point for browsers needs nothing of Node.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { test } from "node:test";
import { createContext, runInContext } from "node:vm";
import { build } from "esbuild";
import { deadline, packageDir, startController, within } from "./harness.js";

/** @param {string} entry */
async function bundle(entry) {
  const { outputFiles, metafile } = await build({
    absWorkingDir: packageDir,
    stdin: { contents: entry, resolveDir: packageDir },
    bundle: true,
    platform: "browser",
    format: "iife",
    metafile: true,
    write: false,
    logLevel: "silent",
  });
  return { code: outputFiles[0]?.text ?? "", files: Object.keys(metafile.inputs) };
}

test("everything of the entry point is bundled without Node's modules", { timeout: deadline }, async () => {
  const { files } = await bundle(`export * from "@mig-controller/client/web"`);
  assert.ok(files.includes("lib/web.js"));
  assert.deepEqual(files.filter((file) => /node:|connect-node/.test(file)), []);
  // What this test would see if it were otherwise.
  await assert.rejects(bundle(`export * from "@mig-controller/client/node"`), /Could not resolve "node:/);
});

test("page.mjs runs with no more than a browser has, and shows the fleet", { timeout: deadline }, async () => {
  const controller = await startController({ simulate: 1 });
  const { code } = await bundle(readFileSync(join(packageDir, "examples/page.mjs"), "utf8"));
  const closed = new AbortController();
  /** @type {typeof fetch} */
  const pageFetch = (url, init) => fetch(url, { ...init, signal: AbortSignal.any([closed.signal, ...(init?.signal ? [init.signal] : [])]) });
  const shown = new Promise((resolve, reject) => {
    /** @param {string} text */
    const append = (text) => /^sim-vm-0001 idle$/m.test(text) && resolve(text);
    const page = {
      AbortController, AbortSignal, Headers, ReadableStream, Request, Response, TextDecoder, TextEncoder, URL, atob, btoa, clearTimeout, setTimeout,
      console: { error: reject },
      document: { querySelector: () => ({ append }) },
      fetch: pageFetch,
      location: new URL(controller.url),
    };
    runInContext(code, createContext(page));
  });
  try {
    await within(shown, "the VM on the page");
  } finally {
    closed.abort();
  }
});
