/** Events of the log, titled as operators would. Pure. */

import type { Event } from '../api/types';

const TITLES: Record<string, string> = {
  'notification.suppressed': 'Notification not sent',
  'acknowledgement.added': 'Acknowledged',
  'acknowledgement.withdrawn': 'Acknowledgement withdrawn',
  'incident.acknowledgement_withdrawn': 'Acknowledgement withdrawn',
  'incident.acknowledgement_ended': 'Acknowledgement ended',
  'device.created': 'Device added',
  'device.rekeyed': 'Configuration reissued',
  'device.trusted': 'SSH host key trusted',
  'device.clock_reset': 'Clock reset',
  'device.rental_settings_changed': 'Rental settings changed',
  'device.rental_account_lost': 'Account for renters lost',
  'device.blocked': 'Blocked for rentals',
  'device.unblocked': 'Block ended',
  'rental.handed_over': 'Device handed over to its renters',
  'rental.dispatched': 'Device dispatched to its renters',
  'rental.arrived': 'Device heard from at its renters',
  'rental.returned': 'Device returned by its renters',
  'customer.created': 'Customer added',
  'person.created': 'Person added',
  'person.login_link_created': 'Link for a person made',
  'person.logged_in': 'Person logged in',
  'renter.created': 'Renter added',
  'renter.rekeyed': 'Configuration reissued',
  'subscription.created': 'Subscription added',
  'subscription.failing': 'Events of a rental not delivered',
  'operator.created': 'Operator added',
  'operator.rekeyed': 'Configuration reissued',
  'host.created': 'Host added',
  'host.trusted': 'SSH host key trusted',
  'host.awake': 'Woke up',
  'host.asleep': 'Fell asleep',
  'service.changed': 'Service changed',
  'service.reset': 'Service back to its profile',
  'check.requested': 'Check requested',
  'ssh.key_pinned': 'SSH host key pinned',
  'ssh.key_changed': 'SSH host key changed',
  'tunnel.endpoint_moved': 'Endpoint changed',
  'tunnel.first_handshake': 'First handshake',
  'tunnel.handshake_refused': 'Handshake refused',
  'state.not_listed': 'Soft changes not listed',
  'gateway.clock_untrusted': 'Clock of the gateway not trusted',
  'gateway.clock_trusted': 'Clock of the gateway trusted again',
  'gateway.clock_stepped': 'Clock of the gateway set',
  'gateway.restored': 'Gateway restored from a backup',
  'gateway.restore_unconfirmed': 'Restore waits for an admin',
  'restore.confirmed': 'Restore confirmed',
};

/** A kind without a title of its own: `incident.opened` is "Opened", `flapping.started` is "Flapping started". */
export function titleOf(event: Pick<Event, 'kind'>): string {
  const known = TITLES[event.kind];
  if (known) return known;
  const text = event.kind.replace(/^incident\./, '').replaceAll(/[._]/g, ' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

type Threshold = { metric: string; warn?: string | null; crit?: string | null };
type Thresholds = Record<string, Threshold>;

const dataOf = (event: Event): Record<string, unknown> => event.data as Record<string, unknown>;

type Settings = { thresholds?: Threshold[] } | null | undefined;

const thresholdsOf = (settings: unknown): Thresholds =>
  Object.fromEntries(((settings as Settings)?.thresholds ?? []).map((one) => [one.metric, one]));

/** The limits before a change: the event has them, or else the event before it. */
function formerly(event: Event, older: readonly Event[]): Thresholds {
  const { previous } = dataOf(event);
  if (previous !== undefined) return thresholdsOf(previous);
  const before = older.find((one) => one.kind.startsWith('service.') && serviceOf(one) === serviceOf(event));
  return thresholdsOf(before && dataOf(before).settings);
}

/** The object of a `service.changed` event: its service stands in the data. */
const serviceOf = (event: Event): string => event.service ?? String(dataOf(event).service ?? '');

/**
 * The text of an event beside its title. A changed service says what changed, such as `disk: warning limit 80 -> 90`.
 * `older` (the newest first) are the events before it. A text that repeats the end of the title is left out.
 */
export function causeOf(event: Event, older: readonly Event[]): string {
  if (event.kind !== 'service.changed') return titleOf(event).toLowerCase().endsWith(event.cause.toLowerCase()) ? '' : event.cause;
  const service = serviceOf(event);
  if (dataOf(event).disabled === true) return `${service}: disabled`;
  const changes = limitChanges(formerly(event, older), thresholdsOf(dataOf(event).settings));
  return changes.length > 0 ? `${service}: ${changes.join(', ')}` : service;
}

const LIMITS = [['warn', 'warning limit'], ['crit', 'critical limit']] as const;

function limitChanges(before: Thresholds, after: Thresholds): string[] {
  const metrics = [...new Set([...Object.keys(before), ...Object.keys(after)])];
  const several = metrics.length > 1;
  return metrics.flatMap((metric) =>
    LIMITS.flatMap(([key, words]) => {
      const [from, to] = [before[metric]?.[key] ?? '', after[metric]?.[key] ?? ''];
      if (from === to) return [];
      const name = several ? `${metric} ${words}` : words;
      return [from && to ? `${name} ${from} -> ${to}` : to ? `${name} ${to}` : `${name} ${from} removed`];
    }),
  );
}
