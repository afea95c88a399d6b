// AccessService is called like AdminService, with a token or a client certificate.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import * as http from "node:http";
import * as http2 from "node:http2";
import { join } from "node:path";
import { after, test } from "node:test";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import * as node from "../lib/node.js";
import * as web from "../lib/web.js";
import { deadline, packageDir, startController, tempDir } from "./harness.js";

/** Whoever sends credentials is the principal that they name. */
const handler = connectNodeAdapter({
  routes: (router) =>
    router
      .service(node.AccessService, {
        whoAmI: (_, { requestHeader }) => {
          const name = requestHeader.get("authorization");
          if (!name) throw new node.ConnectError("credentials are required", node.Code.Unauthenticated);
          return { principal: { name, role: node.Role.VIEWER, method: node.AuthMethod.TOKEN } };
        },
        createToken: ({ name, role, pools }) => ({ token: { id: "tok-1", name, role, pools }, secret: "migc_SECRET" }),
      })
      .service(node.AdminService, {
        async *watchFleet(_, { requestHeader }) {
          yield { cursor: requestHeader.get("authorization") ?? "none" };
        },
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
async function whoAmI(transport) {
  const { principal } = await node.createClient(node.AccessService, transport).whoAmI({}, { timeoutMs: deadline });
  return principal?.name;
}

test("AccessService is called with the token", { timeout: deadline }, async () => {
  const forNode = `http://localhost:${await listen(http2.createServer(handler))}`;
  const forWeb = `http://localhost:${await listen(http.createServer(handler))}`;
  const transports = [
    ...(/** @type {const} */ (["connect", "grpc", "grpc-web"])).map((protocol) => node.createTransport({ baseUrl: forNode, protocol, token: "t" })),
    ...(/** @type {const} */ (["connect", "grpc-web"])).map((protocol) => web.createTransport({ baseUrl: forWeb, protocol, token: "t" })),
  ];
  for (const transport of transports) {
    assert.equal(await whoAmI(transport), "Bearer t");
    const access = node.createClient(node.AccessService, transport);
    const { token, secret } = await access.createToken({ name: "ann", role: node.Role.OPERATOR, pools: ["builders"], ttl: node.durationFromMs(3_600_000) });
    assert.deepEqual([token?.name, token?.role, token?.pools, secret], ["ann", node.Role.OPERATOR, ["builders"], "migc_SECRET"]);
  }
  await assert.rejects(whoAmI(node.createTransport({ baseUrl: forNode })), { code: node.Code.Unauthenticated });
});

test("a function is asked before each call and watch, and its failure is that of the call", { timeout: deadline }, async () => {
  const forNode = `http://localhost:${await listen(http2.createServer(handler))}`;
  const forWeb = `http://localhost:${await listen(http.createServer(handler))}`;
  for (const [baseUrl, { createTransport }] of /** @type {const} */ ([[forNode, node], [forWeb, web]])) {
    /** @type {(() => string | Promise<string>)[]} */
    const answers = [];
    const transport = createTransport({ baseUrl, token: () => /** @type {() => string} */ (answers.shift())() });
    const watch = async () => {
      for await (const { cursor } of node.createClient(node.AdminService, transport).watchFleet({})) return cursor;
      return undefined;
    };
    for (const call of [() => whoAmI(transport), watch]) {
      answers.push(() => "first", async () => "second");
      assert.equal(await call(), "Bearer first");
      assert.equal(await call(), "Bearer second");

      const broken = new Error("no key in the agent");
      answers.push(() => Promise.reject(broken));
      await assert.rejects(call(), { code: node.Code.Unauthenticated, rawMessage: "get a token: no key in the agent", cause: broken });
      answers.push(() => {
        throw new node.ConnectError("the issuer is down", node.Code.Unavailable);
      });
      await assert.rejects(call(), { code: node.Code.Unavailable, rawMessage: "the issuer is down" });
      answers.push(() => "s3cret word");
      await assert.rejects(call(), (/** @type {any} */ err) => err.code === node.Code.Unauthenticated && /must be printable/.test(err.message) && !/s3cret/.test(err.message));
    }
  }
});

test("a token reaches other machines over https only, as in the other languages", () => {
  const addresses = JSON.parse(readFileSync(join(packageDir, "../testdata/plaintext-token.json"), "utf8"));
  assert.ok(addresses.allowed.length > 0 && addresses.refused.length > 0);
  for (const { createTransport } of [node, web]) {
    for (const token of ["t", () => "t"]) {
      for (const baseUrl of addresses.allowed) createTransport({ baseUrl, token });
      for (const baseUrl of addresses.refused) {
        assert.throws(() => createTransport({ baseUrl, token }), /^TypeError: token must not cross the network/, baseUrl);
        createTransport({ baseUrl, token, plaintextToken: true });
      }
    }
  }
});

test("a client certificate is the credentials too", { timeout: deadline }, async () => {
  const dir = tempDir();
  const files = ["-keyout", join(dir, "key.pem"), "-out", join(dir, "cert.pem")];
  const request = ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "1"];
  execFileSync("openssl", [...request, "-subj", "/CN=ann", "-addext", "subjectAltName=DNS:localhost", ...files], { stdio: "ignore" });
  const [cert, key] = [readFileSync(join(dir, "cert.pem"), "utf8"), readFileSync(join(dir, "key.pem"), "utf8")];
  const byCertificate = connectNodeAdapter({
    routes: (router) =>
      router.service(node.AccessService, {
        whoAmI: (_, { requestHeader }) => ({ principal: { name: requestHeader.get("x-subject") ?? "", method: node.AuthMethod.CERTIFICATE } }),
      }),
  });
  const server = http2.createSecureServer({ key, cert, ca: cert, requestCert: true, rejectUnauthorized: true }, (req, res) => {
    const { subject } = /** @type {import("node:tls").TLSSocket} */ (req.stream.session?.socket).getPeerCertificate();
    req.headers["x-subject"] = `${subject.CN}`;
    byCertificate(req, res);
  });
  const baseUrl = `https://localhost:${await listen(server)}`;
  for (const protocol of /** @type {const} */ (["connect", "grpc", "grpc-web"])) {
    assert.equal(await whoAmI(node.createTransport({ baseUrl, protocol, tls: { ca: cert, cert, key } })), "ann");
    await assert.rejects(whoAmI(node.createTransport({ baseUrl, protocol, tls: { ca: cert } })), { code: node.Code.Unavailable });
  }
});

test("the first token ends the access without credentials, and a role limits its holder", { timeout: deadline }, async () => {
  const { url } = await startController();
  /** @param {string} [token] */
  const as = (token) => {
    const transport = node.createTransport({ baseUrl: url, token });
    return { access: node.createClient(node.AccessService, transport), admin: node.createClient(node.AdminService, transport) };
  };
  const root = await as().access.createToken({ name: "root", role: node.Role.ADMIN });
  await assert.rejects(as().admin.listVMs({}), (/** @type {unknown} */ err) => node.errorDetail(err)?.reason === node.ErrorReason.UNAUTHENTICATED);

  const { access } = as(root.secret);
  const { secret, token } = await access.createToken({ name: "ann", role: node.Role.VIEWER });
  const ann = as(secret);
  assert.equal((await ann.access.whoAmI({})).principal?.name, "ann");
  const denied = ann.admin.cancelCommand({ commandId: "none" });
  await assert.rejects(denied, (/** @type {unknown} */ err) => node.errorDetail(err)?.reason === node.ErrorReason.PERMISSION_DENIED);
  await access.revokeToken({ tokenId: token?.id ?? "", reason: "left" });
  const { tokens } = await access.listTokens({ includeEnded: true });
  assert.deepEqual(tokens.map(({ name, revokedAt }) => [name, revokedAt !== undefined]), [["ann", true], ["root", false]]);
});
