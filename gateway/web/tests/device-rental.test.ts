import { describe, expect, it } from 'vitest';
import { allowanceFrom, allowanceText } from '../src/lib/allowance';
import { deliveryFrom, deliveryInput, deliveryRule } from '../src/lib/delivery';
import { gateRule, handoverFrom, handoverInput } from '../src/lib/handover';

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
