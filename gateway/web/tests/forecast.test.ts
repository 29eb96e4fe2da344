import { expect, it } from 'vitest';
import { basisOf, type Forecast } from '../src/lib/forecast';

const forecast = (basis: Partial<Forecast['basis']>, error_s?: number): Forecast => ({
  text: 'full in about 9 days',
  made_at: '2026-11-30T12:00:00Z',
  basis: { from: '2026-11-01T12:00:00Z', to: '2026-11-30T12:00:00Z', peaks: 29, slope_per_day: 1.52, spread: 0.2, ...basis },
  error_s,
});

it('a forecast says what it is based on', () => {
  expect(basisOf(forecast({}))).toMatch(/^By 29 maxima from .*2026.* to .*2026.*, rising by 1\.5 % a day$/);
  expect(basisOf(forecast({ period_s: 86_400, peaks: 4, slope_per_day: -2 }))).toMatch(/^By 4 peaks before purges .*, falling by 2\.0 % a day$/);
  expect(basisOf(forecast({ slope_per_day: 0.01 }))).not.toContain('a day');
});

it('a forecast says how far earlier ones were off, or differ from it while it is not full', () => {
  const days = 2.2 * 86_400;
  expect(basisOf({ ...forecast({}, 3_600), full_at: '2026-12-09T12:00:00Z' })).toMatch(/; those of earlier days differ by less than a day$/);
  expect(basisOf({ ...forecast({}, days), full_at: '2026-12-09T12:00:00Z' })).toMatch(/; those of earlier days differ by 2 d$/);
  expect(basisOf({ ...forecast({}, days), full_at: '2026-11-30T12:00:00Z' })).toMatch(/; earlier forecasts were off by 2 d$/);
  expect(basisOf(forecast({}, days))).toMatch(/; earlier forecasts were off by at least 2 d$/);
  expect(basisOf(forecast({}, 3_600))).toMatch(/; earlier forecasts were off by less than a day$/);
});
