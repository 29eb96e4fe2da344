/** Rental settings that the profile of a device may say too: what the device itself has of them. Pure. */

import type { DeviceRentalSettings, NewDeviceRentalSettings } from '../api/types';

const NAMES = {
  preparation_s: 'preparation',
  turnaround_s: 'turnaround',
  access: 'access',
  gate: 'gate',
  delivery: 'delivery',
  ssh_root: 'root of the account',
  cleaning_command: 'cleaning command',
} as const;

type Name = keyof typeof NAMES;
type Origins = Pick<DeviceRentalSettings, 'origins'>;

const ALL = Object.keys(NAMES) as Name[];

/** The settings that can be none, whatever the profile says. */
const NONE = ['gate', 'cleaning_command'] as const;

/** Whether the gateway knows profiles that say how their devices are rented. */
export function knowsProfiles({ origins }: Origins): boolean {
  return origins !== undefined;
}

/** `From the profile: preparation, gate. By default: delivery.`; empty if the device says all of it. */
export function originWords({ origins = {} }: Origins): string {
  const named = (origin: string): string => ALL.filter((name) => origins[name] === origin).map((name) => NAMES[name]).join(', ');
  const [profile, usual] = [named('profile'), named('default')];
  return [profile && `From the profile: ${profile}.`, usual && `By default: ${usual}.`].filter(Boolean).join(' ');
}

/**
 * The body of a form without what it leaves to the profile: a setting that is not the device's own and that the form has
 * not changed. `untouched`: the body of the same form as it was opened.
 */
export function ownOnly(body: NewDeviceRentalSettings, untouched: NewDeviceRentalSettings, { origins }: Origins): NewDeviceRentalSettings {
  if (!origins) return body;
  const isLeft = (name: Name): boolean => origins[name] !== 'device' && JSON.stringify(body[name]) === JSON.stringify(untouched[name]);
  const isNone = (name: Name): boolean => !isLeft(name) && body[name] === null;
  const without = NONE.filter(isNone);
  const dropped = new Set<string>([...ALL.filter(isLeft), ...without]);
  const kept = Object.fromEntries(Object.entries(body).filter(([name]) => !dropped.has(name))) as NewDeviceRentalSettings;
  return without.length > 0 ? { ...kept, without: [...without] } : kept;
}

/** The body with everything left to the profile that it may say. */
export function leftToProfile(body: NewDeviceRentalSettings): NewDeviceRentalSettings {
  return { ...body, ...Object.fromEntries(ALL.map((name) => [name, null])) } as NewDeviceRentalSettings;
}
