/** Rentals for people: states, names, and what stands in the way of a booking. Pure. */

import type { RentalAvailability, Conflict, DeviceBlock, GrantAccess, Rental, RentalChange, RentalContact, RentalState, RentalThreshold } from '../api/types';
import { bytes, millis, plural, span } from './format';
import { accessFrom, protocolsOf } from './grant';
import { momentWithOffset, windowOf } from './moment';
import { thresholdRows } from './thresholds';

export const STATES: readonly RentalState[] = ['held', 'booked', 'preparing', 'delayed', 'active', 'returning', 'overdue', 'cleaning', 'closed', 'cancelled', 'failed'];

type Times = Pick<Rental, 'from' | 'until' | 'occupied_from' | 'occupied_until' | 'ended_at' | 'state' | 'awaits_handover' | 'dispatched_at' | 'returned_at'>;

/** Milliseconds of a time that the API always sends. */
const at = (time: string): number => millis(time) ?? 0;

/** The state by the page's clock: time passes without an event. The gateway alone knows when a hold lapses. */
export function stateOf(rental: Times, now: number): RentalState {
  if (isAway(rental, now)) return isLate(rental, now) ? 'overdue' : 'returning';
  if (rental.state === 'cancelled' || rental.state === 'failed') return rental.state;
  if (rental.state === 'held') return now < at(rental.until) ? 'held' : 'cancelled';
  if (isWaiting(rental, now)) return now < at(rental.until) ? 'delayed' : 'failed';
  if (rental.ended_at || now >= endOf(rental)) return now < (millis(rental.occupied_until) ?? 0) ? 'cleaning' : 'closed';
  if (now < at(rental.occupied_from)) return 'booked';
  return now < at(rental.from) ? 'preparing' : 'active';
}

/** Whether the window has begun and the device is not handed over. */
function isWaiting(rental: Times, now: number): boolean {
  return rental.awaits_handover && !rental.ended_at && now >= at(rental.from);
}

/** Whether the rental has ended and its device has not come back. */
function isAway(rental: Times, now: number): boolean {
  if (rental.state === 'returning' || rental.state === 'overdue') return true;
  const closes = rental.state === 'held' || rental.state === 'cancelled' || rental.state === 'closed';
  return Boolean(rental.dispatched_at) && !rental.returned_at && !closes && now >= at(rental.until);
}

/** Whether the turnaround has passed. An answer from after the end does not say when, but in its state. */
function isLate({ state, occupied_until }: Times, now: number): boolean {
  return state === 'overdue' || now >= (millis(occupied_until) ?? Number.POSITIVE_INFINITY);
}

/** Until when the device is occupied; `undefined` while it has yet to come back. */
export function occupiedUntil(rental: Times, now: number): number | undefined {
  return isAway(rental, now) ? undefined : (millis(rental.occupied_until) ?? endOf(rental));
}

/** When the customer gives, or gave, the device back. One that was cancelled before its begin keeps its window. */
export function endOf(rental: Pick<Rental, 'from' | 'until' | 'ended_at'>): number {
  const ended = millis(rental.ended_at);
  return ended !== undefined && ended >= at(rental.from) ? ended : at(rental.until);
}

/** `8.1 GB of 10 GB (81 %), cut off there`; without an allowance `8.1 GB`. */
export function forwardedWords(rental: Pick<Rental, 'allowance_bytes' | 'cut_at_allowance' | 'forwarded_bytes'>): string {
  const forwarded = bytes(rental.forwarded_bytes);
  if (!rental.allowance_bytes) return forwarded;
  const percent = Math.floor((rental.forwarded_bytes * 100) / rental.allowance_bytes);
  const cut = !rental.cut_at_allowance ? '' : percent < 100 ? ', cut off there' : ', cut off until it is larger';
  return `${forwarded} of ${bytes(rental.allowance_bytes)} (${percent} %)${cut}`;
}

/** Whether the rental has its device, or may get it. */
export function isOpen(state: RentalState): boolean {
  return state === 'held' || state === 'booked' || state === 'preparing' || state === 'delayed' || state === 'active';
}

/** Whether it has begun and not ended. */
function hasBegun(state: RentalState): boolean {
  return state === 'delayed' || state === 'active';
}

/** `opens in 2 h 5 min`, `open, closes in 3 d 4 h`, `closed 12 min ago`; empty for one that never opens. */
export function gateWords(rental: Times, now: number): string {
  const state = stateOf(rental, now);
  const [from, end] = [at(rental.from), endOf(rental)];
  if (state === 'overdue') return 'not returned in time';
  if (state === 'cancelled' || (now < from && !isOpen(state))) return '';
  if (state === 'held') return now < from ? `opens in ${span(from - now)} if it is confirmed` : 'opens when it is confirmed';
  if (now < from) return `opens in ${span(from - now)}`;
  if (state === 'delayed') return 'opens when the device is handed over';
  if (rental.awaits_handover) return '';
  return isOpen(state) ? `open, closes in ${span(end - now)}` : `closed ${span(now - end)} ago`;
}

export type RentalCall = 'confirm' | 'hand-over' | 'dispatch' | 'return' | 'until' | 'access' | 'maintenance' | 'swap' | 'cancel' | 'end';

type Sent = Partial<Pick<Rental, 'delivery' | 'dispatched_at'>>;

/** What the API allows in a state. */
export function callsOf(state: RentalState, sent: Sent = {}): RentalCall[] {
  if (state === 'returning' || state === 'overdue') return ['return'];
  if (!isOpen(state)) return [];
  const first: RentalCall[] = state === 'held' ? ['confirm'] : state === 'delayed' ? ['hand-over'] : [];
  const sends: RentalCall[] = sent.delivery === 'shipped' && !sent.dispatched_at && state !== 'held' && state !== 'active' ? ['dispatch'] : [];
  const swaps: RentalCall[] = sent.dispatched_at ? [] : ['swap'];
  return [...first, ...sends, 'until', 'access', 'maintenance', ...swaps, hasBegun(state) ? 'end' : 'cancel'];
}

/** `returned early`, `no show`. */
export function reasonOf(name: string): string {
  return name.replaceAll('_', ' ');
}

/** The reason of an end beside its state; empty where the state says it already. */
export function reasonBeside(state: RentalState, reason: string | null | undefined): string {
  return reason && reason !== state ? reasonOf(reason) : '';
}

/** What a form changes apart from the window and the device. `renters`: `null` is all; `allowance`: `null` is no limit. */
export interface AccessInput {
  name: string;
  access: GrantAccess[];
  renters: string[] | null;
  allowance: number | null;
  cut: boolean;
  ssh: boolean;
  contacts: RentalContact[];
  thresholds: RentalThreshold[];
}

type Changeable = Pick<Rental, 'name' | 'access' | 'renters' | 'allowance_bytes' | 'cut_at_allowance' | 'ssh' | 'contacts'> & { thresholds?: RentalThreshold[] };

/** The fields that differ from the rental as it is. Access in another form is the same access. */
export function accessChanges(before: Changeable, after: AccessInput): RentalChange {
  const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b);
  const sorted = (ids: readonly string[] | null | undefined): string[] | null => (ids ? [...ids].sort() : null);
  return {
    ...(before.name === after.name ? {} : { name: after.name }),
    ...(same(accessFrom(protocolsOf(before.access)), after.access) ? {} : { access: after.access }),
    ...(same(sorted(before.renters), sorted(after.renters)) ? {} : { renters: after.renters }),
    ...((before.allowance_bytes ?? null) === after.allowance ? {} : { allowance_bytes: after.allowance }),
    ...(before.cut_at_allowance === after.cut ? {} : { cut_at_allowance: after.cut }),
    ...((before.ssh ?? false) === after.ssh ? {} : { ssh: after.ssh }),
    ...(same(plainContacts(before.contacts ?? []), plainContacts(after.contacts)) ? {} : { contacts: after.contacts }),
    ...(same(thresholdRows(before.thresholds ?? []), thresholdRows(after.thresholds)) ? {} : { thresholds: after.thresholds }),
  };
}

const plainContacts = (contacts: readonly RentalContact[]): (string | null)[][] => contacts.map(({ name, email }) => [name ?? null, email]);

/** The contacts of a form, whose empty lines are none. */
export function rentalContacts(rows: readonly { name: string; email: string }[]): RentalContact[] {
  const filled = rows.map(({ name, email }) => ({ name: name.trim(), email: email.trim() })).filter(({ name, email }) => name || email);
  return filled.map(({ name, email }) => ({ ...(name ? { name } : {}), email }));
}

/** The time of a block; `undefined` for one that ended before it began. */
export function blockTimes(block: Pick<DeviceBlock, 'from' | 'until' | 'ended_at'>): { from: number; until: number | undefined } | undefined {
  const from = at(block.from);
  const ends = [millis(block.until), millis(block.ended_at)].filter((end) => end !== undefined);
  const until = ends.length > 0 ? Math.min(...ends) : undefined;
  return until !== undefined && until <= from ? undefined : { from, until };
}

/** What stands in the way, in the reader's zone. */
export function conflictWords(conflict: Conflict): string {
  const from = millis(conflict.from);
  const latest = millis(conflict.latest_until);
  const until = millis(conflict.until);
  const first =
    conflict.device_name && from !== undefined
      ? `${conflict.device_name} is occupied ${until === undefined ? '' : 'from '}${windowOf(from, until)}, preparation and turnaround included.`
      : 'No device of the selection is free in this window.';
  return latest === undefined ? first : `${first} The latest possible end is ${momentWithOffset(latest)}.`;
}

type Used = Times & Pick<Rental, 'id'>;

/** The rentals of a device by what they are now: that which has it, and those that come, the next one first. */
export function ofDevice<R extends Used>(rentals: readonly R[], now: number): { present: R | undefined; next: R[] } {
  const byBegin = [...rentals].sort((a, b) => at(a.from) - at(b.from));
  const has = (...states: RentalState[]): R[] => byBegin.filter((one) => states.includes(stateOf(one, now)));
  const cleaned = byBegin.filter((one) => now >= endOf(one) && now < (millis(one.occupied_until) ?? 0) && one.state !== 'cancelled');
  return { present: has('active')[0] ?? has('overdue', 'returning')[0] ?? has('delayed')[0] ?? has('preparing')[0] ?? cleaned[0], next: has('held', 'booked', 'preparing') };
}

const HOUR = 3_600_000;

/** Lengths of a window that a form offers. */
export const LASTS = [4 * HOUR, 24 * HOUR, 2 * 24 * HOUR, 7 * 24 * HOUR, 14 * 24 * HOUR];

type Free = Pick<RentalAvailability, 'from' | 'to' | 'devices' | 'free' | 'items'>;

/** The devices that are free in the whole window of an answer. */
export function wholeFree({ from, to, items }: Free): string[] {
  const whole = items.filter(({ free }) => free.length === 1 && free[0]!.from === from && free[0]!.until === to);
  return whole.map(({ device_name }) => device_name);
}

/** Says of a device whether it is free then; without a name, how many devices are. */
export function freeWords(found: Free, device: string): string {
  const { devices, free, items } = found;
  if (!device) return devices === 0 ? 'No rentable device is selected.' : `${free} of ${plural(devices, 'rentable device')} ${free === 1 ? 'is' : 'are'} free then.`;
  if (!items.some(({ device_name }) => device_name === device)) return 'No rentable device has this name.';
  return `${device} is ${wholeFree(found).includes(device) ? '' : 'not '}free then.`;
}

/** What the page shows of the rentals. */
export interface RentalView {
  list: boolean;
  state: RentalState | undefined;
  customer: string;
  device: string;
  /** The first day of the timeline (`2026-12-10`); empty: today. */
  day: string;
  days: number;
}

const USUAL_DAYS = 14;

export function viewOf(search: string): RentalView {
  const query = new URLSearchParams(search);
  const text = (name: string): string => query.get(name) ?? '';
  return {
    list: text('view') === 'list',
    state: STATES.find((state) => state === text('state')),
    customer: text('customer'),
    device: text('device'),
    day: text('day'),
    days: Number(text('days')) || USUAL_DAYS,
  };
}

/** The query of a view, without what is usual. */
export function queryOf({ list, state, customer, device, day, days }: RentalView): string {
  const values = { view: list ? 'list' : '', state: state ?? '', customer, device, day, days: days === USUAL_DAYS ? '' : String(days) };
  const query = new URLSearchParams(Object.entries(values).filter(([, value]) => value !== '')).toString();
  return query && `?${query}`;
}
