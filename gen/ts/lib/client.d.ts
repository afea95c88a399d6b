import type { DescService } from "@bufbuild/protobuf";
import type { Client, Transport } from "@connectrpc/connect";

/**
 * Returns a client of a service: a method for each of the schema's, which takes
 * the request, also as a plain object with only the fields that matter, and
 * `{ signal, timeoutMs, headers }`.
 *
 * It is Connect's createClient with one difference: to leave the loop over a
 * stream's answers, by break, return or throw, ends the call. With Connect's own
 * only a signal does, and a program that forgets it never ends.
 */
export declare function createClient<S extends DescService>(service: S, transport: Transport): Client<S>;
