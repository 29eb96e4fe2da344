import { describe, expect, it, vi } from 'vitest';

vi.hoisted(() => void (process.env.TZ = 'America/Toronto'));

import type { Availability, RentalReportDevice } from '../src/api/types';
import { amount, availabilityRows, changeWords, deviceName, lasted, percentWords, seconds, timesIn } from '../src/lib/report';

describe('a time in a report', () => {
  it('is in the zone of the booking, with the offset of that moment', () => {
    const at = timesIn('Europe/Vienna');
    expect(at('2026-12-10T23:30:05Z')).toBe('2026-12-11 00:30:05 UTC+01:00');
    expect(at('2026-07-10T12:00:00Z')).toBe('2026-07-10 14:00:00 UTC+02:00');
    expect(timesIn('Asia/Kolkata')('2026-07-10T12:00:00Z')).toBe('2026-07-10 17:30:00 UTC+05:30');
    expect(timesIn('UTC')('2026-07-10T12:00:00Z')).toBe('2026-07-10 12:00:00 UTC+00:00');
  });

  it('is in the zone of the reader when the booking has none, or one that the browser does not have', () => {
    for (const zone of [null, undefined, '', 'Mars/Olympus']) expect(timesIn(zone)('2026-12-10T12:00:00Z')).toBe('2026-12-10 07:00:00 UTC-05:00');
    expect(timesIn(null)('soon')).toBe('soon');
  });
});

describe('a number in a report', () => {
  it('is a percentage that is rounded down', () => {
    const words = [100, 99.9999, 0.9993 * 100, 99.999_999_999_9, 0, null, undefined].map(percentWords);
    expect(words).toEqual(['100.000 %', '99.999 %', '99.930 %', '99.999 %', '0.000 %', 'not known', 'not known']);
  });

  it('has its unit', () => {
    expect([seconds(0), seconds(0.4), seconds(59), seconds(11_100)]).toEqual(['0 s', 'under 1 s', '59 s', '3 h 5 min']);
    expect(lasted('2026-12-10T12:00:00Z', '2026-12-12T13:00:00Z')).toBe('2 d 1 h');
    expect(amount(1500, 3)).toBe('1.5 kB in 3 packets');
    expect(amount(0, 1)).toBe('0 B in 1 packet');
  });
});

describe('the parts of a report', () => {
  const availability: Availability = { percent: 50, available_s: 1, known_s: 2, unknown_s: 0, outside_maintenance: { percent: null, available_s: 0, known_s: 0 }, conditions: [] };
  const device: RentalReportDevice = { device: 'h_1', device_name: 'cam-1', from: '', until: '', availability, services: [{ service: 'ping', availability }] };

  it('list the services of a device below it', () => {
    const rows = availabilityRows([device, { ...device, device_name: 'cam-2', services: [] }]).map((row) => `${row.device} ${row.service}`);
    expect(rows).toEqual(['cam-1 ', 'cam-1 ping', 'cam-2 ']);
    expect([deviceName({ devices: [device] }, 'h_1'), deviceName({ devices: [device] }, 'h_2')]).toEqual(['cam-1', 'h_2']);
  });

  it('name what a change made different', () => {
    expect(changeWords({ change: 'booked', changed: [] })).toBe('Booked');
    expect(changeWords({ change: 'changed', changed: ['until', 'device', 'end_note'] })).toBe('Changed: end, device, end note');
  });
});
