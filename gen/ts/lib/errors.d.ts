import type { ErrorDetail } from "../src/migcontroller/v1/error_pb.js";

/**
 * Says why the controller refused a call: the reason, and for a field that
 * breaks a rule, the field and the rule. Undefined for what the controller did
 * not say itself, such as a connection that failed, a deadline that passed, or
 * an error that is none of a call.
 *
 * ```js
 * try {
 *   await admin.sendCommand({ vmId, command: { type: "drain" } });
 * } catch (err) {
 *   if (errorDetail(err)?.reason !== ErrorReason.COMMAND_ID_TAKEN) throw err;
 * }
 * ```
 */
export declare function errorDetail(err: unknown): ErrorDetail | undefined;
