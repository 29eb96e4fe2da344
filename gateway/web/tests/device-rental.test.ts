import { describe, expect, it } from 'vitest';
import { allowanceFrom, allowanceText } from '../src/lib/allowance';
import { deliveryFrom, deliveryInput, deliveryRule } from '../src/lib/delivery';
import { gateRule, handoverFrom, handoverInput, lackedWords } from '../src/lib/handover';
import { leftToProfile, originWords, ownOnly } from '../src/lib/terms';
import { thresholdRows, thresholdsFrom, thresholdWords } from '../src/lib/thresholds';

describe('an allowance', () => {
  const of = (text: string) => allowanceFrom(text, 'allowance_bytes');

  it('is read in any unit, and none is no limit', () => {
    expect([of('20 GB'), of('1,5gb'), of(' 2TB '), of('12 B'), of('')]).toEqual([20e9, 1.5e9, 2e12, 12, null]);
  });

  it('without a unit, or of nothing, is refused', () => {
    for (const text of ['20', 'much', '-1 GB', '1 GiB', '0 GB']) expect(() => of(text), text).toThrow(/expected|no amount/);
  });

  it('is shown exactly as it is', () => {
    for (const count of [1, 999, 1000, 1500, 123_456_789, 20e9, 1e15, 1_000_000_000_001]) expect(of(allowanceText(count))).toBe(count);
    expect([allowanceText(20e9), allowanceText(1.5e9), allowanceText(1_234_567), allowanceText(null)]).toEqual(['20 GB', '1.5 GB', '1234.567 kB', '']);
  });
});

describe('the handover of a device', () => {
  const none = { gate: null, ready: true, not_ready_reason: null };

  it('is sent as it was read', () => {
    for (const settings of [none, { ...none, gate: { ok_for_s: 90, services: ['ssh'] } }, { ...none, ready: false, not_ready_reason: 'a new battery' }]) {
      expect(handoverFrom(handoverInput(settings))).toEqual(settings.ready ? { gate: settings.gate, ready: true } : settings);
    }
    expect(handoverFrom(handoverInput({ ...none, gate: {} })).gate).toEqual({ ok_for_s: 300, services: null });
  });

  it('with a gate of no services is refused', () => {
    expect(() => handoverFrom({ ...handoverInput({ ...none, gate: {} }), services: [] })).toThrow('choose a service');
  });

  it('has its rule in words', () => {
    expect(gateRule(null)).toBe('');
    expect(gateRule({})).toBe('Handed over once all services are OK for 5 min.');
    expect(gateRule({ ok_for_s: 0, services: ['ssh'] })).toBe('Handed over once ssh is OK.');
  });

  it('names what its gate waits for in vain', () => {
    expect([lackedWords(undefined), lackedWords([])]).toEqual(['', '']);
    expect(lackedWords(['ssh', 'disk'])).toBe('The device has no service ssh, disk, which its gate names: it is not handed over.');
  });
});

describe('the delivery of a device', () => {
  it('sends only what the gateway has', () => {
    expect(deliveryFrom(deliveryInput({}), {})).toEqual({});
    expect(deliveryFrom({ delivery: 'shipped', account: ' renter ', root: true, cleaning: '' }, { delivery: 'mounted', ssh_root: false })).toEqual({ delivery: 'shipped', ssh_account: 'renter', ssh_root: true });
    expect(deliveryFrom({ delivery: 'mounted', account: '', root: true, cleaning: '' }, { ssh_root: true, ssh_account: 'renter' })).toEqual({ ssh_account: null, ssh_root: false });
  });

  it('has its rule in words', () => {
    expect(deliveryRule({ delivery: 'mounted' })).toBe('');
    expect(deliveryRule({ delivery: 'shipped', ssh_account: 'renter', ssh_root: true })).toBe('Sent to the customer. Renters log in as renter, who can become root.');
  });
});

describe('what a profile says of rentals', () => {
  const origins = { preparation_s: 'profile', turnaround_s: 'device', gate: 'profile', cleaning_command: 'device', delivery: 'default' } as const;
  const untouched = { rentable: true, preparation_s: 60, turnaround_s: 30, gate: { ok_for_s: 300, services: null }, cleaning_command: null };

  it('is not sent as the own unless the form changes it', () => {
    expect(ownOnly(untouched, untouched, { origins })).toEqual({ rentable: true, turnaround_s: 30, without: ['cleaning_command'] });
    expect(ownOnly({ ...untouched, preparation_s: 90 }, untouched, { origins })).toEqual({ rentable: true, preparation_s: 90, turnaround_s: 30, without: ['cleaning_command'] });
  });

  it('is none for the device if its form says so', () => {
    expect(ownOnly({ ...untouched, gate: null }, untouched, { origins }).without).toEqual(['gate', 'cleaning_command']);
  });

  it('is left alone by a gateway that knows none', () => {
    expect(ownOnly(untouched, untouched, {})).toEqual(untouched);
    expect(originWords({})).toBe('');
  });

  it('is named, and taken back as a whole', () => {
    expect(originWords({ origins })).toBe('From the profile: preparation, gate. By default: delivery.');
    expect(leftToProfile({ rentable: true, preparation_s: 60 })).toMatchObject({ rentable: true, preparation_s: null, gate: null, access: null });
  });
});

describe('the thresholds of a rental', () => {
  it('are sent as they were read, without empty lines', () => {
    const limits = [{ service: 'disk', metric: 'used', warn: '80', crit: null }, { service: 'ping', metric: 'rta', warn: null, crit: null }];
    expect(thresholdsFrom([...thresholdRows(limits), { service: ' ', metric: '', warn: '', crit: '' }])).toEqual(limits);
  });

  it('have words', () => {
    expect(thresholdWords({ service: 'disk', metric: 'used', warn: '80', crit: '90' })).toBe('disk used: warning 80, critical 90');
    expect(thresholdWords({ service: 'ping', metric: 'rta' })).toBe('ping rta: no limit');
  });
});
