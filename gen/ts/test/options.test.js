// Options do what they say, and a bad one is refused by name and rule.
import assert from "node:assert/strict";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import * as http from "node:http";
import * as http2 from "node:http2";
import { join } from "node:path";
import { after, test } from "node:test";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import * as node from "../lib/node.js";
import * as web from "../lib/web.js";
import { deadline, run, tempDir } from "./harness.js";

/** A server whose version is the Authorization header that it was sent. */
const handler = connectNodeAdapter({
  routes: (router) =>
    router.service(node.AdminService, {
      getServerInfo: (_, { requestHeader }) => ({ version: requestHeader.get("authorization") ?? "none" }),
    }),
});

/**
 * @param {import("node:net").Server} server
 * @returns {Promise<number>} its port
 */
async function listen(server) {
  /** @type {Set<import("node:net").Socket>} */
  const connections = new Set();
  server.on("connection", (socket) => connections.add(socket));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => {
    server.close();
    for (const socket of connections) socket.destroy();
  });
  return /** @type {import("node:net").AddressInfo} */ (server.address()).port;
}

/** @param {node.Transport} transport */
async function sentCredentials(transport) {
  const { version } = await node.createClient(node.AdminService, transport).getServerInfo({}, { timeoutMs: deadline });
  return version;
}

test("a bad option is refused by its name and rule", () => {
  const plain = "http://controller.example:8080";
  /** @type {[any, RegExp][]} */
  const bad = [
    [{ baseUrl: "localhost 8080" }, /^TypeError: baseUrl must be a URL/],
    [{ baseUrl: "" }, /^TypeError: baseUrl must be a URL/],
    [{ baseUrl: "localhost:8080" }, /^TypeError: baseUrl must begin with http/],
    [{ baseUrl: "http://user@localhost:8080" }, /^TypeError: baseUrl must have no user/],
    [{ baseUrl: "http://localhost:8080?a=b" }, /^TypeError: baseUrl must have no user/],
    [{ baseUrl: plain, protocol: "rest" }, /^TypeError: protocol must be one of connect, /],
    [{ baseUrl: plain, token: "t" }, /^TypeError: token must not cross the network in plaintext.*plaintextToken: true/],
    [{ baseUrl: plain, token: () => "t" }, /^TypeError: token must not cross the network in plaintext.*plaintextToken: true/],
    [{ baseUrl: "http://a.localhost", token: "t" }, /^TypeError: token must not cross the network/],
    [{ baseUrl: "http://127.0.0.1.example", token: "t" }, /^TypeError: token must not cross the network in plaintext.*plaintextToken: true/],
    [{ baseUrl: "http://localhost", token: "" }, /^TypeError: token must be printable/],
    [{ baseUrl: "http://localhost", token: "a\nb" }, /^TypeError: token must be printable/],
  ];
  for (const { createTransport } of [node, web]) {
    for (const [options, message] of bad) assert.throws(() => createTransport(options), message, JSON.stringify(options));
    createTransport({ baseUrl: plain, token: "t", plaintextToken: true });
    for (const host of ["localhost", "LOCALHOST", "127.0.0.1", "[::1]"]) createTransport({ baseUrl: `http://${host}`, token: "t" });
    createTransport({ baseUrl: "https://controller.example", token: "t" });
  }
  assert.throws(() => node.createTransport({ tls: {} }), /^TypeError: tls must only be given/);
  assert.throws(() => web.createTransport(), /^TypeError: baseUrl is required/);
});

test("the token goes with every call, and a function is asked each time", { timeout: deadline }, async () => {
  const baseUrls = {
    node: `http://localhost:${await listen(http2.createServer(handler))}/`,
    web: `http://localhost:${await listen(http.createServer(handler))}`,
  };

  for (const protocol of /** @type {const} */ (["connect", "grpc", "grpc-web"])) {
    assert.equal(await sentCredentials(node.createTransport({ baseUrl: baseUrls.node, protocol })), "none");
    assert.equal(await sentCredentials(node.createTransport({ baseUrl: baseUrls.node, protocol, token: "secret" })), "Bearer secret");
  }
  for (const protocol of /** @type {const} */ (["connect", "grpc-web"])) {
    assert.equal(await sentCredentials(web.createTransport({ baseUrl: baseUrls.web, protocol, token: "secret" })), "Bearer secret");
  }

  let asked = 0;
  const transport = node.createTransport({ baseUrl: baseUrls.node, token: async () => `token-${++asked}` });
  assert.equal(await sentCredentials(transport), "Bearer token-1");
  assert.equal(await sentCredentials(transport), "Bearer token-2");
  const wrong = node.createTransport({ baseUrl: baseUrls.node, token: () => "a b" });
  await assert.rejects(sentCredentials(wrong), /token must be printable/);
});

test("interceptors see every call, with the one given first outermost", { timeout: deadline }, async () => {
  const baseUrl = `http://localhost:${await listen(http2.createServer(handler))}`;
  /** @type {string[]} */
  const seen = [];
  /** @type {(name: string) => node.Interceptor} */
  const note = (name) => (next) => (req) => {
    seen.push(`${name} ${req.method.name}`);
    return next(req);
  };
  assert.equal(await sentCredentials(node.createTransport({ baseUrl, interceptors: [note("outer"), note("inner")] })), "none");
  assert.deepEqual(seen, ["outer GetServerInfo", "inner GetServerInfo"]);
});

test("a stream that nobody reads is not called, so its error cannot be left unhandled", { timeout: deadline }, async () => {
  const baseUrl = `http://localhost:${await listen(http2.createServer(handler))}`;
  /** @type {string[]} */
  const seen = [];
  /** @type {node.Interceptor} */
  const note = (next) => (req) => {
    seen.push(req.method.name);
    return next(req);
  };
  const transport = node.createTransport({ baseUrl, interceptors: [note] });
  node.createClient(node.AdminService, transport).watchFleet({});
  await sentCredentials(transport);
  assert.deepEqual(seen, ["GetServerInfo"]);
});

test("tls decides who is trusted, and shows the client's certificate", { timeout: deadline }, async () => {
  const dir = tempDir();
  const goroot = (await run("go", ["env", "GOROOT"])).trim();
  await run("go", ["run", join(goroot, "src/crypto/tls/generate_cert.go"), "--host", "controller.test", "--ca", "--duration", "1h"], { cwd: dir });
  const [cert, key] = [readFileSync(join(dir, "cert.pem"), "utf8"), readFileSync(join(dir, "key.pem"))];
  const server = http2.createSecureServer({ cert, key, requestCert: true, rejectUnauthorized: false }, handler);
  /** @type {boolean[]} */
  const shown = [];
  server.on("secureConnection", (socket) => shown.push(Object.keys(socket.getPeerCertificate()).length > 0));
  const baseUrl = `https://127.0.0.1:${await listen(server)}`;
  const servername = "controller.test";

  for (const protocol of /** @type {const} */ (["connect", "grpc", "grpc-web"])) {
    shown.length = 0;
    assert.equal(await sentCredentials(node.createTransport({ baseUrl, protocol, token: "t", tls: { ca: cert, servername } })), "Bearer t");
    assert.equal(await sentCredentials(node.createTransport({ baseUrl, protocol, tls: { ca: cert, servername, cert, key } })), "none");
    assert.equal(await sentCredentials(node.createTransport({ baseUrl, protocol, tls: { rejectUnauthorized: false } })), "none");
    assert.deepEqual(shown, [false, true, false]);
    await assert.rejects(sentCredentials(node.createTransport({ baseUrl, protocol })), /\[unavailable\] self-signed certificate/);
    await assert.rejects(sentCredentials(node.createTransport({ baseUrl, protocol, tls: { ca: cert } })), /\[unavailable\].*altnames/);
  }
});

test("close ends what is under way, and the next call connects anew", { timeout: deadline }, async () => {
  const watched = connectNodeAdapter({
    routes: (router) =>
      router.service(node.AdminService, {
        getServerInfo: () => ({ version: "v1" }),
        async *watchFleet(_, { signal }) {
          yield { cursor: "1" };
          await once(signal, "abort");
        },
      }),
  });
  const baseUrl = `http://localhost:${await listen(http2.createServer(watched))}`;
  const transport = node.createTransport({ baseUrl });
  const watch = async () => {
    for await (const _ of node.createClient(node.AdminService, transport).watchFleet({})) transport.close();
  };
  await assert.rejects(watch(), { code: node.Code.Canceled });
  assert.equal(await sentCredentials(transport), "v1");
});
