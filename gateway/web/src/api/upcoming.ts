/**
 * Fields and calls that the description of the API is about to gain, by hand. A field that an answer does not have is not
 * shown. Once `docs/openapi.json` has them, this file is not needed any more.
 */

/** The states of a shipped device that was not given back yet. */
export type AwayState = 'returning' | 'overdue';

/** Whether a device stays where it is, or is sent to the customer and back. */
export type DeliveryKind = 'mounted' | 'shipped';

export interface DeviceDelivery {
  delivery?: DeliveryKind;
  /** The account that renters log in as. Absent: none. */
  ssh_account?: string | null;
  /** What the helper on the device said. */
  ssh_mode?: 'certificates' | 'keys' | null;
  /** The account can become root. Always there where renters can have SSH. */
  ssh_root?: boolean;
  /** Runs on the device after each rental. */
  cleaning_command?: string | null;
}

/** What decides about each setting that a profile may say. */
export interface RentalOrigins {
  origins?: Record<string, 'device' | 'profile' | 'default'>;
}

/** Settings that `null` leaves to the profile, and those that are none whatever it says. */
export interface Inheritable {
  preparation_s?: number | null;
  turnaround_s?: number | null;
  without?: ('gate' | 'cleaning_command')[];
}

/** Is notified about the device while the rental runs. */
export interface RentalContact {
  name?: string | null;
  email: string;
}

/** What a rental has beside its window. */
export interface RentalExtras {
  ssh?: boolean;
  contacts?: RentalContact[];
}

/** The way of a device to the customer and back. */
export interface Shipped {
  delivery?: DeliveryKind;
  dispatched_at?: string | null;
  first_contact_at?: string | null;
  returned_at?: string | null;
}

interface Call<Params, Data> {
  parameters: Params;
  responses: { 200: { headers: Record<string, unknown>; content: { 'application/json': Data } } };
}

interface OfRental {
  path: { rental: string };
  header?: { 'If-Match'?: string };
}

interface LoginLink {
  parameters: { path: { customer: string } };
  requestBody: { content: { 'application/json': { person: string } } };
  responses: { 201: { headers: Record<string, unknown>; content: { 'application/json': { url?: string | null; expires_at: string } } } };
}

/** Calls for operators. */
export interface RentalPaths {
  '/api/v1/customers/{customer}/login-link': { post: LoginLink };
  '/api/v1/rentals/{rental}/dispatch': { post: Call<OfRental, unknown> };
  '/api/v1/rentals/{rental}/return': { post: Call<OfRental, unknown> };
}
