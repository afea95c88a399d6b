// A simulated agent: connects, receives the command to register its runner, reports
// the registration, and disconnects.
// @ts-check
import { PassThrough } from "node:stream";
import { CommandService, MIGletMessageSchema, create, createClient, createTransport } from "@mig-controller/client/node";

/** @import { MessageInitShape } from "@mig-controller/client/node" */

const baseUrl = process.argv[2] ?? process.env.CONTROLLER_URL ?? "http://localhost:8080";
const controller = createClient(CommandService, createTransport({ baseUrl }));
const vm = { vmId: "example-vm-0001", poolId: "examples" };
const now = () => BigInt(Math.floor(Date.now() / 1000));

const outgoing = new PassThrough({ objectMode: true });
/** @param {NonNullable<MessageInitShape<typeof MIGletMessageSchema>["message"]>} message */
const send = (message) => outgoing.write(create(MIGletMessageSchema, { message }));

/** @param {boolean} configured */
const heartbeat = (configured) =>
  send({
    case: "heartbeat",
    value: {
      ...vm,
      migletState: configured ? "idle" : "ready",
      runnerState: { state: configured ? "idle" : "offline", configured },
      timestamp: now(),
    },
  });

send({ case: "connect", value: { ...vm, version: "example" } });
// A runner that is not configured shows that the agent has restarted and has not only
// lost its connection.
heartbeat(false);
for await (const { message } of controller.streamCommands(outgoing)) {
  if (message.case === "connectAck") {
    if (!message.value.accepted) throw new Error(`not accepted: ${message.value.message}`);
    console.log("accepted");
  }
  if (message.case !== "command" || message.value.type !== "register_runner") continue;
  // string_params has the token that the runner registers with. It is a secret.
  console.log("register_runner received");
  send({ case: "commandAck", value: { commandId: message.value.id, success: true, message: "configuration received" } });
  send({ case: "event", value: { ...vm, type: "runner_registered", timestamp: now() } });
  heartbeat(true);
  console.log("runner registered");
  outgoing.end();
}
