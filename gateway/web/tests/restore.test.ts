import { describe, expect, it } from 'vitest';
import { kindWords, unlisted } from '../src/lib/restore';

describe('what a restore brought back', () => {
  it('has a title and a place where it is changed', () => {
    expect(kindWords('grant')).toEqual({ title: 'Grants', page: '/access' });
    for (const kind of ['user', 'operator', 'renter', 'token', 'grant', 'rental', 'subscription', 'enrolment_token']) {
      const { page, command } = kindWords(kind);
      expect(page ?? command, kind).toBeTruthy();
    }
  });

  it('of a later version is shown by its name', () => {
    expect(kindWords('gadget')).toEqual({ title: 'gadget' });
  });

  it('is counted where it is not listed', () => {
    const object = { id: 'p_1', name: null, details: '', changed_at: '2026-11-30T08:15:00Z' };
    expect(unlisted({ total: 3, objects: [object] })).toBe(2);
    expect(unlisted({ total: 0, objects: [] })).toBe(0);
  });
});
