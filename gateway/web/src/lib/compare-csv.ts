/** The export of a comparison: a line per time, a column per host or group. Pure. */

import type { MetricsAnswer } from '../api/history';
import { field } from './samples';

export function compareCsv(answer: Pick<MetricsAnswer, 'start' | 'step_s'>, rows: readonly { name: string; uom: string; values: readonly (number | null | undefined)[] }[]): string {
  const start = Date.parse(answer.start) / 1000;
  const length = Math.max(0, ...rows.map(({ values }) => values.length));
  const head = ['time', 'unix', ...rows.map(({ name, uom }) => field(uom ? `${name} (${uom})` : name))].join(',');
  const lines = Array.from({ length }, (_, i) => {
    const at = start + i * answer.step_s;
    return [new Date(at * 1000).toISOString().replace('.000Z', 'Z'), at, ...rows.map(({ values }) => values[i] ?? '')].join(',');
  });
  return `${[head, ...lines].join('\n')}\n`;
}
