/** Configurations, the endpoint and login links. Pure. */

/** Interface names of Linux, and so the file names that `wg-quick` accepts. */
const INTERFACE_MOST = 15;

/** The name of the file to save: `wg-quick` names the interface after it. */
export function confName(device: string): string {
  if (device.length <= INTERFACE_MOST) return `${device}.conf`;
  return `${device.slice(0, INTERFACE_MOST).replace(/[.-]+$/, '')}.conf`;
}

/** Whether the file has another name than the device. */
export function isShortened(device: string): boolean {
  return confName(device) !== `${device}.conf`;
}

/** The MTU of a peer: what it is unless it is set, and the bounds of the setting. */
export const MTU = { usual: 1280, least: 1280, most: 1420 } as const;

type Mtu = number | null | undefined;

/** `1400 bytes`, `1280 bytes (default)`. */
export function mtuOf(mtu: Mtu): string {
  return `${mtu ?? MTU.usual} bytes${mtu ? '' : ' (default)'}`;
}

/** The change of an MTU in a merge patch, which is empty if it stays; an empty field means the default. */
export function mtuPatch(before: Mtu, after: Mtu): { mtu?: number | null } {
  return (before ?? null) === (after ?? null) ? {} : { mtu: after ?? null };
}

/** The endpoint to propose: the name that this page is open under, unless devices cannot reach it. */
export function proposedEndpoint(hostname: string, port: number): string {
  const local = hostname === 'localhost' || hostname.endsWith('.localhost') || /^[\d.]+$/.test(hostname) || hostname.includes(':');
  return local ? '' : `${hostname}:${port}`;
}

/** The secret in a login link, wherever it stands in the text that was pasted. */
export function loginSecret(text: string): string | undefined {
  return /\bfgl_[a-z0-9_]+/i.exec(text)?.[0];
}
