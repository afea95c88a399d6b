// What ends a call without an answer of the controller is UNAVAILABLE, whatever
// Node calls it.
import assert from "node:assert/strict";
import { once } from "node:events";
import http2 from "node:http2";
import net from "node:net";
import { after, test } from "node:test";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import * as node from "../lib/node.js";
import { deadline } from "./harness.js";

/**
 * @param {net.Server} server
 * @returns {Promise<string>} its address
 */
async function listen(server) {
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  after(() => server.close());
  return `http://127.0.0.1:${/** @type {net.AddressInfo} */ (server.address()).port}`;
}

const handler = connectNodeAdapter({
  routes: ({ service }) => service(node.AdminService, { getServerInfo: () => ({ version: "v" }), sendCommand: () => ({}) }),
});

/** @type {Set<net.Socket>} those that break together */
const sockets = new Set();

/** @type {Record<string, (stream: http2.ServerHttp2Stream) => void>} */
const breaks = {
  "the stream is reset": (stream) => stream.close(http2.constants.NGHTTP2_INTERNAL_ERROR),
  "the stream is cancelled": (stream) => stream.close(http2.constants.NGHTTP2_CANCEL),
  "the session goes away": (stream) => stream.session?.goaway(http2.constants.NGHTTP2_ENHANCE_YOUR_CALM, 0),
  "the connection is reset": (stream) => stream.session?.destroy(new Error("reset"), http2.constants.NGHTTP2_INTERNAL_ERROR),
  "the connection is closed": () => sockets.forEach((socket) => socket.destroy()),
};

for (const protocol of /** @type {const} */ (["connect", "grpc", "grpc-web"])) {
  for (const [name, breaking] of Object.entries(breaks)) {
    test(`${protocol}: ${name}`, { timeout: deadline }, async () => {
      let broken = 0;
      let always = true;
      const server = http2.createServer((req, res) => {
        if (!always && broken > 0) return handler(req, res);
        broken++;
        breaking(req.stream);
      });
      server.on("sessionError", () => {});
      sockets.clear();
      server.on("connection", (socket) => sockets.add(socket));
      const transport = node.createTransport({ baseUrl: await listen(server), protocol });
      after(() => transport.close());
      const admin = node.createClient(node.AdminService, transport);
      /** @param {unknown} err */
      const unavailable = (err) => err instanceof node.ConnectError && err.code === node.Code.Unavailable;

      await assert.rejects(admin.sendCommand({ vmId: "vm" }), unavailable);
      assert.equal(broken, 1, "what changes something is not sent again");
      await assert.rejects(admin.watchFleet({})[Symbol.asyncIterator]().next(), unavailable);
      broken = 0;
      await assert.rejects(admin.getServerInfo({}), unavailable);
      assert.equal(broken, 2, "what changes nothing is tried once more");
      [broken, always] = [0, false];
      assert.equal((await admin.getServerInfo({})).version, "v");
    });
  }
}
