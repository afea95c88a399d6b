// A watch that goes on from its cursor misses nothing and repeats nothing, also
// when the controller was restarted in between.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import { AdminService, CommandState, createClient, durationFromMs } from "../lib/index.js";
import { deadline, startController, tempDir, transports } from "./harness.js";

const vmId = "sim-vm-0001";

describe("watch", { concurrency: true }, () => {
  for (const { name, transport } of transports) {
    test(name, { timeout: deadline }, async () => {
      const dataDir = tempDir();
      const first = await startController({ simulate: 1, dataDir });
      const before = createClient(AdminService, transport(first.url));
      const wait = durationFromMs(deadline);

      let cursor = "";
      for await (const answer of before.watchFleet({ vmId })) {
        if (!cursor) await before.sendCommand({ vmId, command: { id: "seen", type: "drain" }, wait });
        cursor = answer.cursor;
        const { change } = answer;
        if (change.case === "command" && change.value.command?.id === "seen" && change.value.finishedAt) break;
      }
      await before.sendCommand({ vmId, command: { id: "while-away", type: "drain" }, wait });
      await first.stop();

      const second = await startController({ simulate: 1, dataDir });
      const after = createClient(AdminService, transport(second.url));
      await after.sendCommand({ vmId, command: { id: "after-restart", type: "drain" }, wait });
      const transitions = [];
      for await (const { change } of after.watchFleet({ cursor, vmId })) {
        if (change.case !== "command" || change.value.command?.type !== "drain") continue;
        transitions.push(`${change.value.command.id} ${CommandState[change.value.state]}`);
        if (change.value.command.id === "after-restart" && change.value.finishedAt) break;
      }
      assert.deepEqual(transitions, [
        "while-away PENDING",
        "while-away DELIVERED",
        "while-away SUCCEEDED",
        "after-restart PENDING",
        "after-restart DELIVERED",
        "after-restart SUCCEEDED",
      ]);
    });
  }
});
