// The life of an agent on its stream, as the agent and an operator see it.
import assert from "node:assert/strict";
import { PassThrough } from "node:stream";
import { test } from "node:test";
import {
  AdminService, CommandService, CommandState, MIGletMessageSchema, RegistrationState, create, createClient, createTransport, durationFromMs,
} from "../lib/node.js";
import { deadline, startController, within } from "./harness.js";

/** @import { ControllerMessage, MessageInitShape, Transport } from "../lib/node.js" */

const controller = await startController();

/**
 * One connection of an agent.
 * @param {Transport} transport
 */
function connect(transport) {
  const outgoing = new PassThrough({ objectMode: true });
  const incoming = createClient(CommandService, transport).streamCommands(outgoing)[Symbol.asyncIterator]();
  return {
    /** @param {NonNullable<MessageInitShape<typeof MIGletMessageSchema>["message"]>} message */
    send: (message) => void outgoing.write(create(MIGletMessageSchema, { message })),
    /**
     * Returns the next message, which must be of this kind.
     * @template {"connectAck" | "command"} K
     * @param {K} kind
     * @returns {Promise<Extract<ControllerMessage["message"], { case: K }>["value"]>}
     */
    async next(kind) {
      const { done, value } = await within(incoming.next(), kind);
      if (done) throw new Error(`the stream ended before ${kind}`);
      assert.equal(value.message.case, kind);
      return /** @type {any} */ (value.message.value);
    },
    /** Half-closes the stream: nothing more comes, and it ends without an error. */
    async end() {
      outgoing.end();
      assert.equal((await within(incoming.next(), "the end")).done, true);
    },
  };
}

for (const protocol of /** @type {const} */ (["connect", "grpc", "grpc-web"])) {
  test(protocol, { timeout: deadline }, async () => {
    const transport = createTransport({ baseUrl: controller.grpcUrl, protocol });
    const admin = createClient(AdminService, transport);
    const vm = { vmId: `agent-${protocol}`, poolId: "tests" };
    /** @param {string} type */
    const operate = (type) => admin.sendCommand({ vmId: vm.vmId, command: { id: `${type}-${protocol}`, type }, wait: durationFromMs(deadline) });

    const agent = connect(transport);
    agent.send({ case: "connect", value: { ...vm, version: "test" } });
    assert.equal((await agent.next("connectAck")).accepted, true);

    const register = await agent.next("command");
    assert.equal(register.type, "register_runner");
    assert.ok(register.stringParams.registration_token);
    agent.send({ case: "commandAck", value: { commandId: register.id, success: true } });
    agent.send({ case: "event", value: { type: "runner_registered", data: { runner_name: "r1" } } });
    agent.send({ case: "heartbeat", value: { migletState: "idle", runnerState: { state: "idle", configured: true } } });

    const drained = operate("drain");
    const drain = await agent.next("command");
    assert.equal(drain.id, `drain-${protocol}`);
    agent.send({ case: "commandAck", value: { commandId: drain.id, success: true, result: { jobs: "0" } } });
    const { command } = await drained;
    assert.equal(command?.state, CommandState.SUCCEEDED);
    assert.deepEqual(command.ack?.result, { jobs: "0" });

    const seen = (await admin.getVM({ vmId: vm.vmId })).vm;
    assert.deepEqual([seen?.connected, seen?.poolId, seen?.registration?.state], [true, "tests", RegistrationState.REGISTERED]);
    const { events } = await admin.listEvents({ vmId: vm.vmId });
    assert.deepEqual(events.map(({ type, body }) => [type, body?.data]), [["runner_registered", { runner_name: "r1" }]]);
    await agent.end();

    // Back after a network drop: the runner is still there.
    const back = connect(transport);
    back.send({ case: "connect", value: vm });
    assert.equal((await back.next("connectAck")).accepted, true);
    back.send({ case: "heartbeat", value: { migletState: "idle", runnerState: { state: "idle", configured: true } } });
    const levelled = operate("set_log_level");
    const level = await back.next("command");
    assert.equal(level.type, "set_log_level", "register_runner does not come again");
    back.send({ case: "commandAck", value: { commandId: level.id, success: true } });
    assert.equal((await levelled).command?.state, CommandState.SUCCEEDED);
    await back.end();

    const { commands } = await admin.listCommands({ vmId: vm.vmId, type: "register_runner" });
    assert.equal(commands.length, 1);
    assert.equal(commands[0]?.command?.stringParams.registration_token, undefined, "operators see no token");
  });
}
