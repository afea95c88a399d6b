// Prints every change of every command, across lost connections and restarts of
// the controller, until Ctrl-C.
// @ts-check
import { setTimeout } from "node:timers/promises";
import { AdminService, CommandState, ErrorReason, createClient, createTransport, errorDetail } from "@mig-controller/client/node";

const baseUrl = process.argv[2] ?? process.env.CONTROLLER_URL ?? "http://localhost:8080";
const admin = createClient(AdminService, createTransport({ baseUrl }));

let cursor = "";
for (;;) {
  try {
    for await (const answer of admin.watchFleet({ cursor })) {
      if (cursor === "") console.log("watching");
      if (answer.change.case === "command") {
        const { vmId, command, state } = answer.change.value;
        console.log(vmId, command?.id, CommandState[state]);
      }
      cursor = answer.cursor; // After the work: an unfinished change is received again.
    }
  } catch (err) {
    const reason = errorDetail(err)?.reason;
    if (reason === ErrorReason.INVALID_FIELD) throw err; // A retry would fail too.
    if (reason === ErrorReason.CURSOR_EXPIRED) cursor = ""; // Changes were missed: list the fleet to get its state.
    console.error(`${err}; trying again`);
  }
  await setTimeout(1000);
}
