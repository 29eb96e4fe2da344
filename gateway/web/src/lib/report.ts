/** The report of a rental in words and units. Pure. */

import type { Availability, RentalReport, RentalReportDevice } from '../api/types';
import { bytes, millis, plural, span } from './format';
import { sentence } from './verdict';

const PARTS = { year: 'numeric', month: '2-digit', day: '2-digit', hour: '2-digit', minute: '2-digit', second: '2-digit', hourCycle: 'h23', timeZoneName: 'longOffset' } as const;

function formatIn(zone: string | null | undefined): Intl.DateTimeFormat {
  try {
    return new Intl.DateTimeFormat('en-GB', zone ? { ...PARTS, timeZone: zone } : PARTS);
  } catch {
    // A zone that this browser does not have: the reader's own, which the offset names.
    return new Intl.DateTimeFormat('en-GB', PARTS);
  }
}

/** Formats times in a zone, or in the reader's own: `2026-12-10 14:00:00 UTC+01:00`. */
export function timesIn(zone: string | null | undefined): (time: string) => string {
  const format = formatIn(zone);
  return (time) => {
    const at = millis(time);
    if (at === undefined) return time;
    const parts = new Map(format.formatToParts(at).map(({ type, value }) => [type, value]));
    const of = (name: Intl.DateTimeFormatPartTypes): string => parts.get(name) ?? '';
    const offset = of('timeZoneName').replace('GMT', '') || '+00:00';
    return `${of('year')}-${of('month')}-${of('day')} ${of('hour')}:${of('minute')}:${of('second')} UTC${offset}`;
  };
}

/** `99.930 %`, rounded down: 100 % means not a moment less. */
export function percentWords(percent: number | null | undefined): string {
  if (percent === null || percent === undefined) return 'not known';
  const thousandths = Math.floor(percent * 1000 + 1e-6);
  return `${((percent < 100 ? Math.min(thousandths, 99_999) : thousandths) / 1000).toFixed(3)} %`;
}

/** A part of a second is not zero. */
export function seconds(s: number): string {
  return s > 0 && s < 1 ? 'under 1 s' : span(s * 1000);
}

/** `3 h 5 min` between two times. */
export function lasted(from: string, until: string): string {
  return seconds(((millis(until) ?? 0) - (millis(from) ?? 0)) / 1000);
}

const DIFFERENT: Record<string, string> = { until: 'end' };

/** `Changed: end, device`. */
export function changeWords({ change, changed }: Pick<RentalReport['changes'][number], 'change' | 'changed'>): string {
  const what = changed.map((name) => DIFFERENT[name] ?? name.replaceAll('_', ' ')).join(', ');
  return sentence(what ? `${change}: ${what}` : change);
}

/** What a report says of a device or service. */
export interface AvailabilityRow {
  device: string;
  /** Empty for the device itself. */
  service: string;
  availability: Availability;
}

/** Each device, and its services below it. */
export function availabilityRows(devices: readonly RentalReportDevice[]): AvailabilityRow[] {
  return devices.flatMap(({ device_name: device, availability, services }) => [
    { device, service: '', availability },
    ...services.map((one) => ({ device, service: one.service, availability: one.availability })),
  ]);
}

/** The name of a device of the report; the id of one that is none. */
export function deviceName(report: Pick<RentalReport, 'devices'>, id: string): string {
  return report.devices.find(({ device }) => device === id)?.device_name ?? id;
}

/** `1.5 kB in 3 packets`. */
export function amount(count: number, packets: number): string {
  return `${bytes(count)} in ${plural(packets, 'packet')}`;
}
