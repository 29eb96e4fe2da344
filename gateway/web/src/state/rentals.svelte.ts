/** Rentals, customers, and the devices that are rented. For operators, apart from the blocks of devices. */

import { all, api, ask, first } from '../api/client';
import type { RentalAvailability, Customer, DeviceAvailability, DeviceBlock, Rental, RentalState } from '../api/types';
import { customerName } from '../lib/customer';
import { withOffset } from '../lib/moment';
import { clock } from './clock.svelte';
import { WatchedList } from './watched.svelte';

/** The most rows that the API has in a page. */
const PAGE = 2000;
/** Newer customers are listed and offered; others are found by their reference or id. */
export const CUSTOMERS_MOST = 5000;
/** Rentals that a timeline loads. More of them are less than a pixel wide. */
export const RENTALS_MOST = 5000;
/** The newest blocks of a device that are looked at. */
const BLOCKS_MOST = 100;
/** Calls for blocks at the same time. */
const AT_ONCE = 6;
const DAY_MS = 86_400_000;

/** A hold that lapses has an event of its booking. */
const RENTAL_KINDS = ['rental.', 'booking.'];
const BLOCK_KINDS = ['device.blocked', 'device.unblocked'];

export const customers = new WatchedList<Customer>(
  () => first((after) => ask(api.GET('/api/v1/customers', { params: { query: { limit: PAGE, after } } })), CUSTOMERS_MOST),
  ['customer.'],
);

class CustomerNames {
  private readonly byId = $derived(new Map((customers.list ?? []).map((one) => [one.id, customerName(one)])));

  /** The name of a customer; the id of one that was erased. */
  of(id: string): string {
    return this.byId.get(id) ?? id;
  }
}

export const customerNames = new CustomerNames();

/** Which rentable devices that have all labels, and name the profile, are free between two times, by name; without `from`, from now. */
export function availability(from: number | undefined, to: number, label: string[], after?: string, profile?: string): Promise<RentalAvailability> {
  const query = { from: from === undefined ? undefined : withOffset(from), to: withOffset(to), label, profile, limit: PAGE, after };
  return ask(api.GET('/api/v1/rentals/availability', { params: { query } }));
}

/** The devices that can be rented, by name. */
export const rentable = new WatchedList<DeviceAvailability>(() => all((after) => availability(undefined, clock.instant() + DAY_MS, [], after)), ['device.']);

export interface RentalQuery {
  state?: RentalState | undefined;
  customer?: string | undefined;
  device?: string | undefined;
  /** Windows that end after it, and begin before `to`. */
  from?: number | undefined;
  to?: number | undefined;
}

/** The newest rentals that a query selects, at most `most`. */
export function rentalsOf({ from, to, ...query }: RentalQuery, most: number): WatchedList<Rental> {
  const times = { from: from === undefined ? undefined : withOffset(from), to: to === undefined ? undefined : withOffset(to) };
  const limit = Math.min(PAGE, most);
  return new WatchedList(() => first((after) => ask(api.GET('/api/v1/rentals', { params: { query: { ...query, ...times, limit, after } } })), most), RENTAL_KINDS);
}

async function blocksOfOne(device: string): Promise<DeviceBlock[]> {
  const params = { path: { device }, query: { limit: BLOCKS_MOST } };
  return (await ask(api.GET('/api/v1/devices/{device}/blocks', { params }))).items;
}

/** The newest blocks of some devices. */
export function blocksOf(devices: readonly string[]): WatchedList<DeviceBlock> {
  return new WatchedList(async () => {
    const found: DeviceBlock[] = [];
    for (let i = 0; i < devices.length; i += AT_ONCE) {
      const lists = await Promise.all(devices.slice(i, i + AT_ONCE).map(blocksOfOne));
      found.push(...lists.flat());
    }
    return found;
  }, BLOCK_KINDS);
}
