/**
 * The client for browsers, and for whatever else has `fetch`: everything of
 * `@mig-controller/client`, and {@link createTransport} over fetch.
 *
 * @module
 */
import type { Transport } from "@connectrpc/connect";
import type { CommonOptions } from "./options.js";

export * from "./index.js";

/** How to reach a controller. All of it may be left out on a page that the controller's origin serves. */
export interface TransportOptions extends CommonOptions {
  /**
   * The controller's address; may be relative to the page. Default: the origin
   * of the page.
   */
  baseUrl?: string | URL | undefined;

  /** What is spoken. Default: `connect`. */
  protocol?: "connect" | "grpc-web" | undefined;

  /** Makes the requests instead of the global fetch. */
  fetch?: typeof globalThis.fetch | undefined;
}

/**
 * Returns a transport over fetch, for calls with one answer and for watches.
 * The agent's stream needs `@mig-controller/client/node`. It throws a TypeError
 * for an option that breaks its rule.
 */
export declare function createTransport(options?: TransportOptions): Transport;
