/** What the gateway dropped of a peer, for people. Pure. */

/** The meanings of the reasons, as the glossary has them. */
export const MEANINGS: Record<string, string> = {
  malformed: 'no WireGuard message',
  bad_mac1: 'not meant for this gateway',
  rate_limited: 'too many handshakes or queries for names',
  unknown_key: 'the key of no device',
  retired_key: 'a key that was replaced or removed',
  unknown_index: 'no such session',
  stale_stamp: 'a handshake that is not newer than the newest one',
  crypto: 'could not be decrypted',
  replay: 'arrived before',
  session_expired: 'the session is 180 s old or older',
  counter_exhausted: 'the packet counter is at its end',
  no_session: 'there is no session',
  bad_packet: 'no IP packet, or no query on the port of DNS',
  spoofed_source: "the source address is not the sender's",
  unsolicited: 'sent to the gateway without a request',
  no_route: 'the destination is unknown',
  too_big: 'larger than the MTU',
  budget: 'beyond the share of the device',
  not_granted: 'no grant covered it',
  clock_behind: 'its grant waits for the clock of the gateway, which is behind',
  clock_step: 'its grant waits, because the clock of the gateway was set',
  no_flow: 'belongs to no permitted connection',
  bad_reset: "a TCP reset outside of the receiver's window",
  flow_table_full: 'too many connections',
  flow_conflict: 'its replies could not be told from those of another connection',
  ip_options: 'has IP options or extension headers',
  fragment: 'a fragment without a permitted first one',
  ttl: 'its hop limit is used up',
  icmp_type: 'ICMP that is neither an echo nor an error',
};

export interface Drop {
  reason: string;
  count: number;
  /** Empty for a reason that this page does not know. */
  meaning: string;
}

/** The reasons that occurred, the greatest count first. */
export function dropsOf(counts: Record<string, number>): Drop[] {
  return Object.entries(counts)
    .filter(([, count]) => count > 0)
    .sort(([, a], [, b]) => b - a)
    .map(([reason, count]) => ({ reason: reason.replaceAll('_', ' '), count, meaning: MEANINGS[reason] ?? '' }));
}

/** The dropped packets of all reasons. */
export function droppedIn(counts: Record<string, number>): number {
  return Object.values(counts).reduce((sum, count) => sum + count, 0);
}
