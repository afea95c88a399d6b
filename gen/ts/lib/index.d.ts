/**
 * The schema of the MIG Controller: its services, messages and enums, and what
 * is needed to work with them. It opens no connections: that is for
 * `@mig-controller/client/node` and `@mig-controller/client/web`, which export
 * all of this too.
 *
 * @module
 */
export * from "../src/migcontroller/v1/access_pb.js";
export * from "../src/migcontroller/v1/access_service_pb.js";
export * from "../src/migcontroller/v1/admin_service_pb.js";
export * from "../src/migcontroller/v1/agent_service_pb.js";
export * from "../src/migcontroller/v1/command_pb.js";
export * from "../src/migcontroller/v1/error_pb.js";
export * from "../src/migcontroller/v1/event_pb.js";
export * from "../src/migcontroller/v1/heartbeat_pb.js";
export * from "../src/migcontroller/v1/vm_pb.js";
export * from "../src/migcontroller/v1/waiting_pb.js";
export * from "../src/miglet/commands/commands_pb.js";

export { Code, ConnectError } from "@connectrpc/connect";
export { clone, create, equals, fromBinary, fromJson, fromJsonString, isMessage, toBinary, toJson, toJsonString } from "@bufbuild/protobuf";
export { DurationSchema, TimestampSchema, durationFromMs, durationMs, timestampDate, timestampFromDate, timestampMs, timestampNow } from "@bufbuild/protobuf/wkt";

export type { CallOptions, Client, Interceptor, Transport } from "@connectrpc/connect";
export type { JsonObject, Message, MessageInitShape, MessageShape } from "@bufbuild/protobuf";
export type { Duration, Timestamp } from "@bufbuild/protobuf/wkt";

export { createClient } from "./client.js";
export { errorDetail } from "./errors.js";
