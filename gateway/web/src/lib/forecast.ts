/** The forecast of when a disk or the memory is full, as a sentence and what it is based on. */

import type { Service } from '../api/types';
import { millis, plural, span } from './format';

export type Forecast = NonNullable<Service['forecast']>;

const DAY_S = 86_400;
const DATE = new Intl.DateTimeFormat(undefined, { year: 'numeric', month: 'short', day: 'numeric' });

/** `By 12 peaks before purges from ... to ..., rising by 1.5 % a day; earlier forecasts were off by 2 d`. */
export function basisOf({ basis, error_s }: Forecast): string {
  const date = (time: string) => DATE.format(millis(time));
  const peaks = basis.period_s ? `${plural(basis.peaks, 'peak')} before purges` : plural(basis.peaks, 'maximum', 'maxima');
  const rise = Math.abs(basis.slope_per_day) < 0.05 ? '' : `, ${slope(basis.slope_per_day)} % a day`;
  return `By ${peaks} from ${date(basis.from)} to ${date(basis.to)}${rise}${error(error_s)}`;
}

function slope(perDay: number): string {
  return `${perDay > 0 ? 'rising' : 'falling'} by ${Math.abs(perDay).toFixed(1)}`;
}

function error(seconds: number | null | undefined): string {
  if (seconds === null || seconds === undefined) return '';
  const off = seconds < DAY_S ? 'less than a day' : span(Math.round(seconds / DAY_S) * DAY_S * 1000);
  return `; earlier forecasts were off by ${off}`;
}
