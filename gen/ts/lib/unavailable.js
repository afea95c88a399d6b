import { MethodOptions_IdempotencyLevel } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError } from "@connectrpc/connect";
import { isRefusedStream } from "./sessions.js";

/**
 * Makes UNAVAILABLE of what ends a call without an answer of the controller, and makes
 * a call once more if its connection broke and that is safe: the call changes nothing,
 * or was not processed.
 * @type {import("@connectrpc/connect").Interceptor}
 */
export const unavailable = (next) => async (req) => {
  const safe = req.method.idempotency === MethodOptions_IdempotencyLevel.NO_SIDE_EFFECTS;
  for (let last = req.stream; ; last = true) {
    try {
      const res = await next(req);
      return res.stream ? { ...res, message: received(res.message, req.signal) } : res;
    } catch (err) {
      const reported = asUnavailable(err, req.signal);
      const again = isRefusedStream(reported) || (safe && reported !== err && !distrusted(err));
      if (last || !again) throw reported;
    }
  }
};

/**
 * @template T
 * @param {AsyncIterable<T>} answers
 * @param {AbortSignal} signal
 */
async function* received(answers, signal) {
  try {
    yield* answers;
  } catch (err) {
    throw asUnavailable(err, signal);
  }
}

/**
 * Returns the error, or one with UNAVAILABLE in its place if the connection is why.
 * @param {unknown} err
 * @param {AbortSignal} signal
 * @returns {unknown}
 */
function asUnavailable(err, signal) {
  if (!(err instanceof ConnectError) || signal.aborted || err.code === Code.Unavailable) return err;
  if (!nodeCode(err) && !/^http\/2 (stream|session|connection) /.test(err.rawMessage)) return err;
  return new ConnectError(err.rawMessage, Code.Unavailable, err.metadata, undefined, err.cause ?? err);
}

/**
 * Reports whether the server's certificate is why; that stays so.
 * @param {unknown} err
 */
function distrusted(err) {
  return /CERT|SIGNATURE|TLS|SSL/.test(nodeCode(err) ?? "");
}

/**
 * Returns Node's code of the error of a connection that is behind an error, if any.
 * @param {unknown} err
 * @returns {string | undefined}
 */
function nodeCode(err) {
  for (let cause = err; cause instanceof Error; cause = cause.cause) {
    const code = /** @type {{ code?: unknown }} */ (cause).code;
    if (typeof code === "string" && code !== "ABORT_ERR") return code;
  }
  return undefined;
}
