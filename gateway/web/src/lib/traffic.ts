/** The traffic of a device by day, as bars. Pure; days are those of UTC. */

import type { TrafficDay } from '../api/types';

export interface DayBar extends TrafficDay {
  /** More than the budget. */
  over: boolean;
}

const DAY_MS = 86_400_000;

/** Every day up to `today` (ms), the oldest first: one without traffic is there with 0. */
export function daysOf(days: readonly TrafficDay[], count: number, today: number, budget: number | undefined): DayBar[] {
  const known = new Map(days.map((one) => [one.day, one]));
  return Array.from({ length: count }, (_, i) => {
    const day = new Date(today - (count - 1 - i) * DAY_MS).toISOString().slice(0, 10);
    const one = known.get(day) ?? { day, rx_bytes: 0, tx_bytes: 0, bytes: 0 };
    return { ...one, over: budget !== undefined && one.bytes > budget };
  });
}

const NICE = [1, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 10];

/** The upper end of the axis: a round number that is not below the bars, nor below a budget that is not far above them. */
export function topOf(bars: readonly DayBar[], budget: number | undefined): number {
  const most = Math.max(1, ...bars.map(({ bytes }) => bytes));
  const wanted = budget !== undefined && budget < most * 4 ? Math.max(most, budget * 1.05) : most;
  const size = 10 ** Math.floor(Math.log10(wanted));
  return (NICE.find((one) => one * size >= wanted) ?? 10) * size;
}

/** The whole month of a day. */
export function monthOf(bars: readonly TrafficDay[], month: string): number {
  return bars.filter(({ day }) => day.startsWith(month)).reduce((sum, { bytes }) => sum + bytes, 0);
}
