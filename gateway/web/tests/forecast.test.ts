import { expect, it } from 'vitest';
import { basisOf, type Forecast } from '../src/lib/forecast';

const forecast = (basis: Partial<Forecast['basis']>, accuracy: Partial<Forecast> = {}): Forecast => ({
  text: 'full in about 9 days',
  made_at: '2026-11-30T12:00:00Z',
  basis: { from: '2026-11-01T12:00:00Z', to: '2026-11-30T12:00:00Z', peaks: 29, slope_per_day: 1.52, spread: 0.2, ...basis },
  error_is_least: false,
  ...accuracy,
});

it('a forecast says what it is based on', () => {
  expect(basisOf(forecast({}))).toMatch(/^By 29 maxima from .*2026.* to .*2026.*, rising by 1\.5 % a day$/);
  expect(basisOf(forecast({ period_s: 86_400, peaks: 4, slope_per_day: -2 }))).toMatch(/^By 4 peaks before purges .*, falling by 2\.0 % a day$/);
  expect(basisOf(forecast({ slope_per_day: 0.01 }))).not.toContain('a day');
});

it('a forecast says how far earlier ones were off, by what happened', () => {
  const days = 2.2 * 86_400;
  const said = (accuracy: Partial<Forecast>): string => basisOf(forecast({}, accuracy)).split('a day').slice(1).join('a day');
  expect(said({ error_s: days })).toBe('; earlier forecasts were off by 2 d');
  expect(said({ error_s: 3_600 })).toBe('; earlier forecasts were off by less than a day');
  expect(said({ error_s: days, error_is_least: true })).toBe('; earlier forecasts were off by at least 2 d, as it is not full yet');
  expect(said({ error_s: 3_600, error_is_least: true })).toBe('; earlier forecasts were off by less than a day');
  expect(said({ change_s: days })).toBe('; those of earlier days differ from this one by 2 d');
  expect(said({ error_s: days, change_s: 0 })).toBe('; earlier forecasts were off by 2 d; those of earlier days differ from this one by less than a day');
});
