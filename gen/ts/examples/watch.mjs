// Sends a command to a simulated VM and follows it to its end.
// @ts-check
import { AdminService, CommandState, createClient, createTransport } from "@mig-controller/client/node";

const baseUrl = process.argv[2] ?? process.env.CONTROLLER_URL ?? "http://localhost:8080";
const admin = createClient(AdminService, createTransport({ baseUrl }));
const vmId = "sim-vm-0001";

let commandId;
for await (const { change } of admin.watchFleet({ vmId })) {
  if (commandId === undefined) {
    // The first message has only a cursor. From here on nothing is missed.
    const command = { type: "set_log_level", stringParams: { level: "debug" } };
    const sent = await admin.sendCommand({ vmId, command });
    commandId = sent.command?.command?.id;
  }
  if (change.case !== "command" || change.value.command?.id !== commandId) continue;
  console.log(vmId, change.value.command?.type, CommandState[change.value.state]);
  if (change.value.finishedAt) break;
}
