import { createClient as connectClient } from "@connectrpc/connect";

/** @typedef {import("@connectrpc/connect").CallOptions} CallOptions */

/** @type {typeof import("./client.js").createClient} */
export function createClient(service, transport) {
  const client = connectClient(service, transport);
  const calls = /** @type {Record<string, any>} */ (client);
  for (const { methodKind, localName } of service.methods) {
    if (methodKind === "server_streaming" || methodKind === "bidi_streaming") {
      calls[localName] = endedByLeaving(calls[localName]);
    }
  }
  return client;
}

/**
 * @template I, O
 * @param {(input: I, options: CallOptions) => AsyncIterable<O>} call
 * @returns {(input: I, options?: CallOptions) => AsyncIterable<O>}
 */
function endedByLeaving(call) {
  return (input, options) => {
    const leaving = new AbortController();
    const signals = [leaving.signal, ...(options?.signal ? [options.signal] : [])];
    /** @type {AsyncIterator<O> | undefined} */
    let answers;
    const begun = () => (answers ??= call(input, { ...options, signal: AbortSignal.any(signals) })[Symbol.asyncIterator]());
    return {
      [Symbol.asyncIterator]: () => ({
        next: () => begun().next(),
        return: async () => {
          leaving.abort();
          return { done: true, value: undefined };
        },
      }),
    };
  };
}
