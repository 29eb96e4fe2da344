/** What the customer's page asks the API for: the session of a person, the rentals, and the person's own devices. */

import { ask, clientOf, Refused } from './client';
import type { TierName } from './history';
import type { GrantAccess, RentalState, Renter, RenterWithCredentials } from './types';

export interface MySession {
  person: { id: string; name: string };
  customer: { id: string; name: string };
  time: string;
  expires_at: string;
}

export interface MyMetric {
  name: string;
  value?: number | null;
  unit: string;
  warn?: string | null;
  crit?: string | null;
  min?: number | null;
  max?: number | null;
}

export interface MyService {
  name: string;
  status: string;
  since?: string | null;
  output: string;
  /** In lists the output may be longer. */
  truncated: boolean;
  metrics: MyMetric[];
}

/** Of a service, or without one of the device. */
export interface MyChange {
  at: string;
  service?: string | null;
  status: string;
}

export interface MyRental {
  id: string;
  name: string;
  addresses: string[];
  /** By which protocols and ports; absent: not said. */
  access?: GrantAccess[];
  state: RentalState;
  from: string;
  until: string;
  time_zone?: string | null;
  delayed: string[];
  ssh: boolean;
  device: { name: string; status?: string | null; since?: string | null };
  services: MyService[];
  /** Not in lists. */
  changes?: MyChange[];
  /** `changes` leaves out earlier ones. */
  changes_truncated?: boolean;
}

/** A metric of a service, or without one of the device itself. */
export interface MySeries {
  service?: string | null;
  name: string;
  unit: string;
  min: (number | null)[];
  avg: (number | null)[];
  max: (number | null)[];
  count: number[];
}

/** What was measured within a rental. */
export interface MyValues {
  /** The begin of the first point. */
  start?: string | null;
  step_s: number;
  tier?: TierName | null;
  series: MySeries[];
  /** There are more metrics. */
  truncated: boolean;
}

/** The SSH key of one of the person's computers, and its certificate for a rental; without one the device takes the key itself. */
export interface MyCertificate {
  renter: string;
  key: string;
  certificate?: string | null;
  valid_from: string;
  valid_until: string;
}

/** How to log in to the device of a rental. */
export interface MyRentalSsh {
  account: string;
  port: number;
  addresses: string[];
  /** Empty: not known yet. */
  known_hosts: string;
  certificates: MyCertificate[];
}

/** A computer or phone of the person. */
export type MyRenter = Renter & { ssh_keys?: string[] };

interface Call<Data, Params = { path?: never }> {
  parameters: Params;
  responses: { 200: { headers: Record<string, unknown>; content: { 'application/json': Data } } };
}

interface Sent<Body> {
  requestBody: { content: { 'application/json': Body } };
}

type OfRenter = { path: { renter: string }; header?: { 'If-Match'?: string } };

/** Written by hand: what these calls answer is typed as the page uses it. */
interface MyPaths {
  '/api/v1/my': { get: Call<MySession> };
  '/api/v1/my/login': { post: Call<MySession> & Sent<{ token: string }> };
  '/api/v1/my/logout': { post: Call<undefined> };
  '/api/v1/my/rentals': { get: Call<{ items: MyRental[] }> };
  '/api/v1/my/rentals/{rental}': { get: Call<MyRental, { path: { rental: string } }> };
  '/api/v1/my/rentals/{rental}/values': { get: Call<MyValues, { path: { rental: string } }> };
  '/api/v1/my/rentals/{rental}/ssh': { get: Call<MyRentalSsh, { path: { rental: string } }> };
  '/api/v1/my/renters': { get: Call<{ items: MyRenter[] }>; post: Call<RenterWithCredentials> & Sent<{ name: string; public_key?: string }> };
  '/api/v1/my/renters/{renter}': { patch: Call<MyRenter, OfRenter> & Sent<{ ssh_keys: string[] }>; delete: Call<undefined, OfRenter> };
  '/api/v1/my/renters/{renter}/credentials': { post: Call<RenterWithCredentials, OfRenter> & Sent<{ public_key?: string }> };
}

const my = clientOf<MyPaths>();

/** Customers do not know what a gateway is. */
async function asked<T>(answer: Parameters<typeof ask<T>>[0]): Promise<T> {
  try {
    return await ask(answer);
  } catch (error) {
    if (error instanceof Refused && error.status === 0) throw new Refused(0, 'There is no connection at the moment. Try again soon.');
    throw error;
  }
}

export const mySession = (): Promise<MySession> => asked(my.GET('/api/v1/my'));

export const logIn = (token: string): Promise<MySession> => asked(my.POST('/api/v1/my/login', { body: { token } }));

export const logOut = (): Promise<undefined> => asked(my.POST('/api/v1/my/logout'));

export async function myRentals(): Promise<MyRental[]> {
  return (await asked(my.GET('/api/v1/my/rentals'))).items;
}

export const myRental = (rental: string): Promise<MyRental> => asked(my.GET('/api/v1/my/rentals/{rental}', { params: { path: { rental } } }));

export const myValues = (rental: string): Promise<MyValues> => asked(my.GET('/api/v1/my/rentals/{rental}/values', { params: { path: { rental } } }));

export const myRentalSsh = (rental: string): Promise<MyRentalSsh> => asked(my.GET('/api/v1/my/rentals/{rental}/ssh', { params: { path: { rental } } }));

export async function myRenters(): Promise<MyRenter[]> {
  return (await asked(my.GET('/api/v1/my/renters'))).items;
}

/** Without a public key the server makes the pair. */
const keyIn = (publicKey: string | undefined): { public_key?: string } => (publicKey === undefined ? {} : { public_key: publicKey });

export function addRenter(name: string, publicKey: string | undefined): Promise<RenterWithCredentials> {
  return asked(my.POST('/api/v1/my/renters', { body: { name, ...keyIn(publicKey) } }));
}

export function rekeyRenter(renter: string, publicKey: string | undefined): Promise<RenterWithCredentials> {
  return asked(my.POST('/api/v1/my/renters/{renter}/credentials', { params: { path: { renter } }, body: keyIn(publicKey) }));
}

/** Replaces the SSH keys of a renter. */
export function setSshKeys(renter: string, keys: string[]): Promise<MyRenter> {
  return asked(my.PATCH('/api/v1/my/renters/{renter}', { params: { path: { renter } }, body: { ssh_keys: keys } }));
}

export function removeRenter(renter: string): Promise<undefined> {
  return asked(my.DELETE('/api/v1/my/renters/{renter}', { params: { path: { renter } } }));
}
