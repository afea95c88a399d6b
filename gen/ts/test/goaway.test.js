// A server that goes away processes some calls and not others; the others are
// UNAVAILABLE, or made again on another connection.
import assert from "node:assert/strict";
import { once } from "node:events";
import net from "node:net";
import { after, test } from "node:test";
import * as node from "../lib/node.js";
import { deadline } from "./harness.js";

const [HEADERS, SETTINGS, GOAWAY] = [1, 4, 7];

/**
 * @param {number} type
 * @param {number} flags
 * @param {number} stream
 * @param {number[]} payload
 */
function frame(type, flags, stream, payload) {
  const header = Buffer.alloc(9);
  header.writeUIntBE(payload.length, 0, 3);
  header.writeUInt8(type, 3);
  header.writeUInt8(flags, 4);
  header.writeUInt32BE(stream, 5);
  return Buffer.concat([header, Buffer.from(payload)]);
}

/** @param {number} last */
const goaway = (last) => frame(GOAWAY, 0, 0, [0, 0, 0, last, 0, 0, 0, 0]);

/** @param {number} stream */
const emptyAnswer = (stream) => {
  const type = Buffer.from("application/proto");
  // :status 200 and content-type, without an index; the end of headers and stream.
  return frame(HEADERS, 5, stream, [0x88, 0x0f, 0x10, type.length, ...type]);
};

/**
 * Serves HTTP/2 by hand, with one call at a time on each connection.
 * @param {(socket: net.Socket, connection: number, stream: number) => void} called
 * @returns {Promise<node.Client<typeof node.AdminService>>}
 */
async function serve(called) {
  let connections = 0;
  const server = net.createServer((socket) => {
    const connection = ++connections;
    let received = Buffer.alloc(0);
    let begun = false;
    socket.on("error", () => {});
    socket.write(frame(SETTINGS, 0, 0, [0, 3, 0, 0, 0, 1])); // SETTINGS_MAX_CONCURRENT_STREAMS
    socket.on("data", (data) => {
      received = Buffer.concat([received, data]);
      if (!begun && received.length >= 24) [begun, received] = [true, received.subarray(24)]; // the preface
      while (begun && received.length >= 9) {
        const end = 9 + received.readUIntBE(0, 3);
        if (received.length < end) return;
        const [type, flags, stream] = [received.readUInt8(3), received.readUInt8(4), received.readUInt32BE(5)];
        received = received.subarray(end);
        if (type === SETTINGS && flags === 0) socket.write(frame(SETTINGS, 1, 0, []));
        if (type === HEADERS) called(socket, connection, stream);
      }
    });
  });
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const transport = node.createTransport({ baseUrl: `http://127.0.0.1:${/** @type {net.AddressInfo} */ (server.address()).port}` });
  after(() => {
    transport.close();
    server.close();
  });
  return node.createClient(node.AdminService, transport);
}

/** @param {unknown} err */
const unavailable = (err) => err instanceof node.ConnectError && err.code === node.Code.Unavailable;

test("a call that waits behind others when its connection goes away is made on a new one", { timeout: deadline }, async () => {
  /** @type {string[]} */
  const calls = [];
  /** @type {(value: net.Socket) => void} */
  let watched;
  const watching = new Promise((resolve) => (watched = resolve));
  const admin = await serve((socket, connection, stream) => {
    calls.push(`${connection}/${stream}`);
    if (connection === 1) watched(socket);
    else socket.write(emptyAnswer(stream));
  });
  const watch = admin.watchFleet({})[Symbol.asyncIterator]();
  const answer = watch.next();
  const socket = await watching;
  const sent = admin.sendCommand({ vmId: "vm" });
  setTimeout(() => socket.write(goaway(1)), 100); // The call waits, or is sent on a new connection anyway.
  assert.equal((await sent).command, undefined);
  assert.deepEqual(calls, ["1/1", "2/1"]);

  socket.destroy(); // The watch was among those that are processed.
  await assert.rejects(answer, unavailable);
});

test("a call that no connection processes is tried twice, and is UNAVAILABLE", { timeout: deadline }, async () => {
  /** @type {string[]} */
  const calls = [];
  const admin = await serve((socket, connection, stream) => {
    calls.push(`${connection}/${stream}`);
    socket.write(goaway(0));
  });
  await assert.rejects(admin.sendCommand({ vmId: "vm" }), unavailable);
  await assert.rejects(admin.getServerInfo({}), unavailable);
  await assert.rejects(admin.watchFleet({})[Symbol.asyncIterator]().next(), unavailable);
  assert.deepEqual(calls, ["1/1", "2/1", "3/1", "4/1", "5/1"], "a stream is not repeated");
});
