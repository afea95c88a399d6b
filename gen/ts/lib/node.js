import { createConnectTransport, createGrpcTransport, createGrpcWebTransport } from "@connectrpc/connect-node";
import { checkBaseUrl, checkProtocol, interceptorsOf } from "./options.js";
import { Sessions } from "./sessions.js";
import { unavailable } from "./unavailable.js";

export * from "./index.js";

/** @typedef {import("node:http2").SecureClientSessionOptions | undefined} Tls */

const liveness = { pingIntervalMs: 30_000, pingTimeoutMs: 15_000 };

/** @type {typeof import("./node.js").createTransport} */
export function createTransport(options = {}) {
  const baseUrl = checkBaseUrl(options.baseUrl ?? "http://localhost:8080");
  const protocol = checkProtocol(options.protocol, ["connect", "grpc", "grpc-web"]);
  if (options.tls && !baseUrl.startsWith("https:")) {
    throw new TypeError("tls must only be given with a baseUrl that begins with https://");
  }
  const interceptors = [...interceptorsOf(options, baseUrl), unavailable];
  const sessionManager = new Sessions(baseUrl, liveness, /** @type {Tls} */ (options.tls));
  const transport = open(protocol, { baseUrl, interceptors, sessionManager });
  return {
    unary: transport.unary,
    stream: transport.stream,
    close: () => sessionManager.abort(),
  };
}

/**
 * @param {"connect" | "grpc" | "grpc-web"} protocol
 * @param {{ baseUrl: string, interceptors: import("@connectrpc/connect").Interceptor[], sessionManager: Sessions }} options
 */
function open(protocol, options) {
  switch (protocol) {
    case "connect":
      return createConnectTransport({ ...options, httpVersion: "2" });
    case "grpc":
      return createGrpcTransport(options);
    case "grpc-web":
      return createGrpcWebTransport({ ...options, httpVersion: "2" });
  }
}
