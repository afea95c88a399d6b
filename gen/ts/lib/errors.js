import { ConnectError } from "@connectrpc/connect";
import { ErrorDetailSchema } from "../src/migcontroller/v1/error_pb.js";

/** @type {typeof import("./errors.js").errorDetail} */
export function errorDetail(err) {
  if (!(err instanceof ConnectError)) return undefined;
  return err.findDetails(ErrorDetailSchema)[0];
}
