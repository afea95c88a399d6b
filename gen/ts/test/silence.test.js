// A watch that gets no answer any more ends, so that it can be resumed.
import assert from "node:assert/strict";
import { test } from "node:test";
import { createRouterTransport } from "@connectrpc/connect";
import { AdminService, Code, ConnectError, createClient } from "../lib/index.js";
import { deadline } from "./harness.js";

test("a watch without an answer for 45 seconds is UNAVAILABLE", { timeout: deadline }, async (t) => {
  let ended = false;
  const transport = createRouterTransport(({ service }) => {
    service(AdminService, {
      async *watchFleet(_, { signal }) {
        yield { cursor: "c1" };
        await new Promise((resolve) => signal.addEventListener("abort", resolve));
        ended = true;
      },
    });
  });
  t.mock.timers.enable({ apis: ["setTimeout"] });
  const answers = createClient(AdminService, transport).watchFleet({})[Symbol.asyncIterator]();
  assert.equal((await answers.next()).value.cursor, "c1");
  const next = answers.next();
  t.mock.timers.tick(44_000);
  assert.equal(ended, false);
  t.mock.timers.tick(1_000);
  await assert.rejects(next, (err) => err instanceof ConnectError && err.code === Code.Unavailable);
});
