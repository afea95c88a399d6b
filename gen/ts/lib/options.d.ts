import type { Interceptor } from "@connectrpc/connect";

/** What the transports of Node and of browsers have in common. */
export interface CommonOptions {
  /**
   * Sent with every call as `Authorization: Bearer <token>`. A function is
   * asked before each call, for tokens that change. When it fails, the call does
   * so with the code UNAUTHENTICATED and the error as its cause, and is not sent;
   * a ConnectError of the function is the error of the call.
   */
  token?: string | (() => string | Promise<string>) | undefined;

  /**
   * Whether the token may cross the network in plaintext, over http to another machine,
   * where others can read it on its way. Unless this is true, that is refused.
   */
  plaintextToken?: boolean | undefined;

  /** What every call passes through, the first one outermost. */
  interceptors?: readonly Interceptor[] | undefined;
}

/**
 * Returns the address without a slash at its end. It throws a TypeError for
 * one that is not an address.
 */
export declare function checkBaseUrl(baseUrl: string | URL, base?: string): string;

/**
 * Returns the chosen protocol, or the first one for none. It throws a TypeError
 * for one that is not there.
 */
export declare function checkProtocol<P extends string>(protocol: P | undefined, protocols: readonly [P, ...P[]]): P;

/**
 * Returns the interceptors, and after them what sends the token. It throws a
 * TypeError for a token that cannot be sent or must not be.
 */
export declare function interceptorsOf(options: CommonOptions, baseUrl: string): Interceptor[];
