import { describe, expect, it } from 'vitest';
import { baseOf, within } from '../src/lib/base';

describe('the place of the page', () => {
  it('is known by its scripts', () => {
    expect(baseOf('https://gw.example/assets/index-abc.js')).toBe('');
    expect(baseOf('https://gw.example/fleet/assets/index-abc.js')).toBe('/fleet');
    expect(baseOf('https://gw.example/a/assets/b/assets/index-abc.js')).toBe('/a/assets/b');
    expect(baseOf('http://localhost:5173/src/lib/base.ts')).toBe('');
  });

  it('is no part of the address of a page', () => {
    expect(within('', '/hosts/cam-07')).toBe('/hosts/cam-07');
    expect(within('/fleet', '/fleet/hosts/cam-07')).toBe('/hosts/cam-07');
    expect(within('/fleet', '/fleet/')).toBe('/');
    expect(within('/fleet', '/fleet')).toBe('/');
    expect(within('/fleet', '/fleeting')).toBe('/fleeting');
  });
});
