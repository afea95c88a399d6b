import { createConnectTransport, createGrpcWebTransport } from "@connectrpc/connect-web";
import { checkBaseUrl, checkProtocol, interceptorsOf } from "./options.js";

export * from "./index.js";

/** @type {typeof import("./web.js").createTransport} */
export function createTransport(options = {}) {
  const origin = /** @type {{ location?: { origin: string } }} */ (globalThis).location?.origin;
  if (options.baseUrl === undefined && origin === undefined) {
    throw new TypeError("baseUrl is required outside of a page");
  }
  const baseUrl = checkBaseUrl(options.baseUrl ?? "/", origin);
  const protocol = checkProtocol(options.protocol, ["connect", "grpc-web"]);
  const transport = {
    baseUrl,
    interceptors: interceptorsOf(options, baseUrl),
    ...(options.fetch && { fetch: options.fetch }),
  };
  return protocol === "connect" ? createConnectTransport(transport) : createGrpcWebTransport(transport);
}
