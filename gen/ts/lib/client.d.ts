import type { DescService } from "@bufbuild/protobuf";
import type { Client, Transport } from "@connectrpc/connect";

/**
 * Returns a client of a service: a method for each of the schema's, which takes
 * the request, also as a plain object with only the fields that matter, and
 * `{ signal, timeoutMs, headers }`.
 *
 * It is Connect's createClient with three differences, all in streams. To leave the
 * loop over the answers, by break, return or throw, ends the call: with Connect's
 * own only a signal does, and a program that forgets it never ends. And the call
 * begins when its first answer is asked for, so that an error always has a reader.
 * And a watch that gets no answer for 45 seconds ends with UNAVAILABLE: call again
 * with the last cursor.
 */
export declare function createClient<S extends DescService>(service: S, transport: Transport): Client<S>;
