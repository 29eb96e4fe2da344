/** The forecast of when a disk or the memory is full, as a sentence and what it is based on. */

import type { Service } from '../api/types';
import { millis, plural, span } from './format';

export type Forecast = NonNullable<Service['forecast']>;

const DAY_S = 86_400;
const DATE = new Intl.DateTimeFormat(undefined, { year: 'numeric', month: 'short', day: 'numeric' });

/** `By 12 peaks before purges from ... to ..., rising by 1.5 % a day; those of earlier days differ by 2 d`. */
export function basisOf({ basis, error_s, full_at, made_at }: Forecast): string {
  const date = (time: string) => DATE.format(millis(time));
  const peaks = basis.period_s ? `${plural(basis.peaks, 'peak')} before purges` : plural(basis.peaks, 'maximum', 'maxima');
  const rise = Math.abs(basis.slope_per_day) < 0.05 ? '' : `, ${slope(basis.slope_per_day)} % a day`;
  return `By ${peaks} from ${date(basis.from)} to ${date(basis.to)}${rise}${error(error_s, full_at ? millis(full_at)! > millis(made_at)! : undefined)}`;
}

function slope(perDay: number): string {
  return `${perDay > 0 ? 'rising' : 'falling'} by ${Math.abs(perDay).toFixed(1)}`;
}

/** Before it is full (`ahead`), earlier forecasts can only be compared with this one; while nothing fills, they are off by the time since they were for. */
function error(seconds: number | null | undefined, ahead: boolean | undefined): string {
  if (seconds === null || seconds === undefined) return '';
  const off = seconds < DAY_S ? 'less than a day' : span(Math.round(seconds / DAY_S) * DAY_S * 1000);
  if (ahead) return `; those of earlier days differ by ${off}`;
  return `; earlier forecasts were off by ${ahead === undefined && seconds >= DAY_S ? 'at least ' : ''}${off}`;
}
