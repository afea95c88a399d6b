import { Code, ConnectError, createClient as connectClient } from "@connectrpc/connect";

/** A watch gets an answer at least every 30 seconds; without one for so long it is broken. */
const silenceMs = 45_000;

/** @typedef {import("@connectrpc/connect").CallOptions} CallOptions */

/** @type {typeof import("./client.js").createClient} */
export function createClient(service, transport) {
  const client = connectClient(service, transport);
  const calls = /** @type {Record<string, any>} */ (client);
  for (const { methodKind, localName } of service.methods) {
    if (methodKind === "server_streaming" || methodKind === "bidi_streaming") {
      calls[localName] = endedByLeaving(calls[localName], localName === "watchFleet");
    }
  }
  return client;
}

/**
 * @template I, O
 * @param {(input: I, options: CallOptions) => AsyncIterable<O>} call
 * @param {boolean} watched whether silence ends it
 * @returns {(input: I, options?: CallOptions) => AsyncIterable<O>}
 */
function endedByLeaving(call, watched) {
  return (input, options) => {
    const leaving = new AbortController();
    const signals = [leaving.signal, ...(options?.signal ? [options.signal] : [])];
    /** @type {AsyncIterator<O> | undefined} */
    let answers;
    const begun = () => (answers ??= call(input, { ...options, signal: AbortSignal.any(signals) })[Symbol.asyncIterator]());
    return {
      [Symbol.asyncIterator]: () => ({
        next: () => (watched ? answered(begun(), leaving) : begun().next()),
        return: async () => {
          leaving.abort();
          return { done: true, value: undefined };
        },
      }),
    };
  };
}

/**
 * Returns the next answer, or ends the call with the code UNAVAILABLE when none
 * comes for too long.
 * @template O
 * @param {AsyncIterator<O>} answers
 * @param {AbortController} leaving
 * @returns {Promise<IteratorResult<O>>}
 */
async function answered(answers, leaving) {
  let silent = false;
  const timer = setTimeout(() => {
    silent = true;
    leaving.abort();
  }, silenceMs);
  try {
    return await answers.next();
  } catch (err) {
    throw silent ? new ConnectError("the watch got no answer for too long", Code.Unavailable, undefined, undefined, err) : err;
  } finally {
    clearTimeout(timer);
  }
}
