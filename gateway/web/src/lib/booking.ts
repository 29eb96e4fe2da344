/** What the forms of bookings and blocks send. Pure. */

import type { Customer, NewBooking, NewBookingItem, NewDeviceBlock } from '../api/types';
import { allowanceFrom } from './allowance';
import { customerOf } from './customer';
import { fromLocal } from './downtime';
import { accessFrom, type Protocols } from './grant';
import { parseLabels } from './labels';
import { withOffset } from './moment';
import { rentalContacts } from './rental';
import { chosenRenters } from './renter';

/** Times are as `<input type="datetime-local">` has them, and texts as they were typed. */
export interface BookingInput {
  customer: string;
  what: 'device' | 'labels';
  device: string;
  labels: string;
  /** The one that any device is to name; empty: any. */
  profile: string;
  from: string;
  until: string;
  /** Of the rental; empty: the gateway makes one. */
  name: string;
  access: 'all' | 'some';
  protocols: Protocols;
  /** `null`: all of the customer. */
  renters: string[] | null;
  /** As it was typed; empty: no limit. */
  allowance: string;
  cut: boolean;
  ssh: boolean;
  contacts: { name: string; email: string }[];
  hold: boolean;
  holdUntil: string;
  reference: string;
  notes: string;
}

/** Where the API has the values of the one item of such a booking. */
export const itemPath = (name: string): string => `items[0].${name}`;

/** A field with its time, or without one nothing: the API has its own meaning for that. */
function time<K extends string>(name: K, text: string): { [key in K]?: string } {
  const ms = fromLocal(text);
  return (ms === undefined ? {} : { [name]: withOffset(ms) }) as { [key in K]?: string };
}

/** Who gets in, and by which protocols; what is left out is all of it. */
function gate({ name, access, protocols, renters }: BookingInput): Pick<NewBookingItem, 'name' | 'access' | 'renters'> {
  const chosen = chosenRenters(renters, itemPath('renters'));
  return {
    ...(name.trim() ? { name: name.trim() } : {}),
    ...(access === 'some' ? { access: accessFrom(protocols) } : {}),
    ...(chosen ? { renters: chosen } : {}),
  };
}

/** How much is forwarded, logins, and who is notified; what is left out is none of it. */
function extras({ allowance, cut, ssh, contacts }: BookingInput): Pick<NewBookingItem, 'allowance_bytes' | 'cut_at_allowance' | 'ssh' | 'contacts'> {
  const most = allowanceFrom(allowance, itemPath('allowance_bytes'));
  const notified = rentalContacts(contacts);
  return {
    ...(most === null ? {} : { allowance_bytes: most, ...(cut ? { cut_at_allowance: true } : {}) }),
    ...(ssh ? { ssh: true } : {}),
    ...(notified.length > 0 ? { contacts: notified } : {}),
  };
}

/** A device, or what any device must have. */
function wanted({ what, device, labels, profile }: BookingInput): Pick<NewBookingItem, 'device' | 'labels' | 'profile'> {
  const named = profile.trim();
  if (what === 'device') return { device: device.trim() };
  if (!named) return { labels: parseLabels(labels, itemPath('labels')) };
  return { profile: named, ...(labels.trim() ? { labels: parseLabels(labels, itemPath('labels')) } : {}) };
}

/** A label without `=` is refused here; the API would take it for none. */
export function bookingFrom(input: BookingInput, customers: readonly Customer[], zone: string): NewBooking {
  const reference = input.reference.trim();
  return {
    customer: customerOf(input.customer, customers),
    items: [{ ...wanted(input), ...time('from', input.from), until: time('until', input.until).until ?? '', ...gate(input), ...extras(input) }],
    time_zone: zone,
    notes: input.notes.trim(),
    ...(input.hold ? time('hold_until', input.holdUntil) : {}),
    ...(reference ? { external_ref: reference } : {}),
  };
}

export function blockFrom({ from, until, reason, force }: { from: string; until: string; reason: string; force: boolean }): NewDeviceBlock {
  return { reason: reason.trim(), force, ...time('from', from), ...time('until', until) };
}

const MINUTE = 60_000;

/** The same length from a whole minute on, because a field has no seconds. */
export function wholeMinutes(from: number, until: number): [from: number, until: number] {
  const late = Math.ceil(from / MINUTE) * MINUTE - from;
  return [from + late, until + late];
}
