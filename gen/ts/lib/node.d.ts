/**
 * The client for Node: everything of `@mig-controller/client`, and
 * {@link createTransport} over HTTP/2.
 *
 * @module
 */
import type { Transport } from "@connectrpc/connect";
import type { CommonOptions } from "./options.js";

export * from "./index.js";

/** How to reach a controller. All of it may be left out. */
export interface TransportOptions extends CommonOptions {
  /**
   * The controller's address, `http://` or `https://`; a path at its end is kept,
   * for a proxy that has the controller there. Default: `http://localhost:8080`.
   */
  baseUrl?: string | URL | undefined;

  /**
   * What is spoken. The controller speaks all three on each of its ports; a
   * proxy before it may not. Default: `connect`.
   */
  protocol?: "connect" | "grpc" | "grpc-web" | undefined;

  /** For an https address that the defaults of Node do not fit. */
  tls?: TlsOptions | undefined;
}

/** Texts are PEM. The names are those of Node's `tls.connect`. */
export interface TlsOptions {
  /** Whom to trust instead of the authorities that Node knows. */
  ca?: string | Uint8Array | undefined;
  /** The client's certificate, with the chain up to its authority. */
  cert?: string | Uint8Array | undefined;
  /** The key of the client's certificate. */
  key?: string | Uint8Array | undefined;
  /** What the key is encrypted with. */
  passphrase?: string | undefined;
  /** The name that the server's certificate is for, if not the host of the address. */
  servername?: string | undefined;
  /** False trusts any server, and so anyone in between. For trials only. */
  rejectUnauthorized?: boolean | undefined;
}

/** A connection to a controller, for `createClient`. */
export interface ControllerTransport extends Transport {
  /**
   * Ends the connection at once, and with it all calls that are under way, with
   * the code CANCELED. A program that has no calls under way needs no close: it
   * ends by itself. A call after it opens a new connection.
   */
  close(): void;
}

/**
 * Returns a transport over HTTP/2, for all kinds of calls, the agent's stream
 * too. The connection is made with the first call, shared by all, and made anew
 * when it is lost. While calls are under way it is probed, so that a watch on a
 * dead network ends within a minute, with an error. What ends a call without an
 * answer of the controller has the code UNAVAILABLE. When its connection breaks, a call
 * is made once more if it changes nothing, or if it was not processed. It throws a
 * TypeError for an option that breaks its rule.
 *
 * ```js
 * const admin = createClient(AdminService, createTransport());
 * ```
 */
export declare function createTransport(options?: TransportOptions): ControllerTransport;
