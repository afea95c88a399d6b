import { Code, ConnectError } from "@connectrpc/connect";
import { Http2SessionManager } from "@connectrpc/connect-node";

/** @typedef {import("node:http2").ClientHttp2Session} Session */
/** @typedef {import("node:http2").ClientHttp2Stream} Stream */

/**
 * The connections of a transport. A server that is about to close one announces the last
 * call that it processes (GOAWAY). Node ends the later ones, except those that were not
 * sent because the server allows no more calls at a time: without this class they would
 * wait until the others end.
 */
export class Sessions extends Http2SessionManager {
  /** @type {WeakMap<Session, Set<Stream>>} */
  #open = new WeakMap();

  /** @type {Http2SessionManager["request"]} */
  async request(method, path, headers, options) {
    const stream = await super.request(method, path, headers, options);
    const session = /** @type {Session | undefined} */ (stream.session);
    if (!session) return stream; // It is closed already.
    const open = this.#open.get(session) ?? this.#watch(session);
    open.add(stream);
    stream.once("close", () => open.delete(stream));
    return stream;
  }

  /** @param {Session} session */
  #watch(session) {
    /** @type {Set<Stream>} */
    const open = new Set();
    this.#open.set(session, open);
    session.on("goaway", (_, lastStreamID) => {
      for (const stream of open) {
        if (stream.id !== undefined && stream.id > lastStreamID) stream.destroy(refusedStream());
      }
    });
    return open;
  }
}

const refusal = "http/2 stream closed with error code REFUSED_STREAM (0x7)";

/** Returns the error of a call that the server has not begun to process. */
const refusedStream = () => new ConnectError(refusal, Code.Unavailable);

/**
 * Reports whether the server has not begun to process a call, so that it can be made
 * again whatever it does.
 * @param {unknown} err
 */
export function isRefusedStream(err) {
  if (!(err instanceof ConnectError) || err.code !== Code.Unavailable) return false;
  return err.rawMessage === refusal || err.rawMessage === "Stream closed with error code NGHTTP2_REFUSED_STREAM";
}
