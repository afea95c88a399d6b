// What operators' tools are promised, over every transport.
import assert from "node:assert/strict";
import { describe, test } from "node:test";
import {
  AdminService, Code, CommandState, ConnectError, ErrorReason, createClient, durationFromMs, errorDetail, timestampDate,
} from "../lib/index.js";
import { deadline, startController, transports } from "./harness.js";

/** @import { ErrorDetail } from "../lib/index.js" */

const controller = await startController({ simulate: 5 });

/**
 * Makes a call that must be refused.
 * @param {() => Promise<unknown>} call
 * @returns {Promise<{ code: string | undefined, detail: Partial<ErrorDetail> | undefined }>}
 */
async function refusal(call) {
  try {
    await call();
  } catch (err) {
    assert.ok(err instanceof ConnectError, `${err}`);
    const detail = errorDetail(err);
    return {
      code: Code[err.code],
      detail: detail && { reason: detail.reason, field: detail.field, rule: detail.rule },
    };
  }
  throw new Error("the call was not refused");
}

for (const { name, transport } of transports) {
  describe(name, { timeout: deadline }, () => {
    const admin = createClient(AdminService, transport(controller.url));
    const wait = durationFromMs(deadline);
    const offline = `offline-${name}`;

    test("a command goes through to a live VM while its sender waits", async () => {
      const id = `sent-${name}`;
      const { command } = await admin.sendCommand({ vmId: "sim-vm-0001", command: { id, type: "drain" }, wait });
      assert.equal(command?.state, CommandState.SUCCEEDED);
      assert.equal(command.command?.id, id);
      assert.equal(command.ack?.success, true);
      assert.ok(command.acceptedAt && Math.abs(timestampDate(command.acceptedAt).getTime() - Date.now()) < deadline);

      const again = await admin.sendCommand({ vmId: "sim-vm-0001", command: { id, type: "drain" } });
      assert.equal(again.command?.attempts, 1, "the same id again sends nothing");
    });

    test("a refusal has a code, reason, field and rule", async () => {
      const invalid = await refusal(() => admin.sendCommand({ vmId: offline, command: { type: "drain now" } }));
      assert.equal(invalid.code, "InvalidArgument");
      assert.equal(invalid.detail?.reason, ErrorReason.INVALID_FIELD);
      assert.equal(invalid.detail.field, "command.type");
      assert.match(invalid.detail.rule ?? "", /^must be 1 to 128 characters/);

      const none = { field: "", rule: "" };
      const id = `taken-${name}`;
      await admin.sendCommand({ vmId: "sim-vm-0001", command: { id, type: "drain" }, wait });
      assert.deepEqual(await refusal(() => admin.sendCommand({ vmId: "sim-vm-0001", command: { id, type: "shutdown" } })), {
        code: "AlreadyExists",
        detail: { reason: ErrorReason.COMMAND_ID_TAKEN, ...none },
      });
      assert.deepEqual(await refusal(() => admin.getCommand({ commandId: `nowhere-${name}` })), {
        code: "NotFound",
        detail: { reason: ErrorReason.NOT_FOUND, ...none },
      });
      assert.deepEqual(await refusal(() => admin.cancelCommand({ commandId: id })), {
        code: "FailedPrecondition",
        detail: { reason: ErrorReason.COMMAND_ENDED, ...none },
      });
    });

    test("a deadline of the caller ends a call", async () => {
      const ended = await refusal(async () => {
        for await (const answer of admin.watchFleet({ vmId: offline }, { timeoutMs: 100 })) assert.ok(answer.cursor);
      });
      assert.deepEqual(ended, { code: "DeadlineExceeded", detail: undefined });
    });

    test("a watch is refused with details too", async () => {
      const refused = await refusal(async () => {
        for await (const answer of admin.watchFleet({ cursor: "no cursor" })) assert.fail(answer.cursor);
      });
      assert.equal(refused.code, "InvalidArgument");
      assert.equal(refused.detail?.field, "cursor");
    });

    test("pages have every item once, in order", async () => {
      const vmId = `paged-${name}`;
      const ids = ["1", "2", "3", "4", "5"].map((n) => `${vmId}-${n}`);
      for (const id of ids) await admin.sendCommand({ vmId, command: { id, type: "drain" } });

      const pages = [];
      let pageToken = "";
      do {
        const page = await admin.listCommands({ vmId, pageSize: 2, pageToken });
        pages.push(page.commands.map((record) => record.command?.id));
        if (pages.length === 1) {
          const other = await refusal(() => admin.listCommands({ vmId: offline, pageSize: 2, pageToken: page.nextPageToken }));
          assert.equal(other.code, "InvalidArgument", "a page_token with other filters");
          assert.equal(other.detail?.field, "page_token");
        }
        pageToken = page.nextPageToken;
      } while (pageToken && pages.length < 5);
      const [i1, i2, i3, i4, i5] = ids;
      assert.deepEqual(pages, [[i5, i4], [i3, i2], [i1]], "the latest first");

      assert.deepEqual((await admin.listVMs({ pageSize: 2 })).vms.map((vm) => vm.vmId), ["sim-vm-0001", "sim-vm-0002"]);
    });

    test("the controller says who it is", async () => {
      const info = await admin.getServerInfo({});
      assert.ok(info.version);
      assert.equal(typeof info.liveSessions, "bigint");
    });

    test("leaving the loop ends a watch, and a signal does", async () => {
      for await (const answer of admin.watchFleet({})) {
        assert.ok(answer.cursor);
        break;
      }
      const signal = AbortSignal.timeout(100);
      const ended = await refusal(async () => {
        for await (const answer of admin.watchFleet({ vmId: offline }, { signal })) assert.ok(answer.cursor);
      });
      assert.equal(ended.code, "Canceled");
    });
  });
}
