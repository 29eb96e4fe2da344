/** The forecast of when a disk or the memory is full, as a sentence and what it is based on. */

import type { Service } from '../api/types';
import { millis, plural, span } from './format';

export type Forecast = NonNullable<Service['forecast']>;

const DAY_S = 86_400;
const DATE = new Intl.DateTimeFormat(undefined, { year: 'numeric', month: 'short', day: 'numeric' });

/** `By 12 peaks before purges from ... to ..., rising by 1.5 % a day; earlier forecasts were off by 2 d`. */
export function basisOf({ basis, ...forecast }: Forecast): string {
  const date = (time: string) => DATE.format(millis(time));
  const peaks = basis.period_s ? `${plural(basis.peaks, 'peak')} before purges` : plural(basis.peaks, 'maximum', 'maxima');
  const rise = Math.abs(basis.slope_per_day) < 0.05 ? '' : `, ${slope(basis.slope_per_day)} % a day`;
  return `By ${peaks} from ${date(basis.from)} to ${date(basis.to)}${rise}${[...accuracy(forecast)].map((words) => `; ${words}`).join('')}`;
}

function slope(perDay: number): string {
  return `${perDay > 0 ? 'rising' : 'falling'} by ${Math.abs(perDay).toFixed(1)}`;
}

type Accuracy = Pick<Forecast, 'error_s' | 'error_is_least' | 'change_s'>;

/** What happened judges a forecast; one whose time is not over can only be compared with the present one. */
function* accuracy({ error_s, error_is_least, change_s }: Accuracy): Generator<string> {
  const days = (seconds: number): string => (seconds < DAY_S ? 'less than a day' : span(Math.round(seconds / DAY_S) * DAY_S * 1000));
  const known = (seconds: number | null | undefined): seconds is number => seconds !== null && seconds !== undefined;
  if (known(error_s)) yield error_is_least && error_s >= DAY_S ? `earlier forecasts were off by at least ${days(error_s)}, as it is not full yet` : `earlier forecasts were off by ${days(error_s)}`;
  if (known(change_s)) yield `those of earlier days differ from this one by ${days(change_s)}`;
}
