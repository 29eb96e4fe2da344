/** Formats numbers and times as text. Pure: it does not know the page. */

const SECOND = 1000;
const MINUTE = 60 * SECOND;
const HOUR = 60 * MINUTE;
const DAY = 24 * HOUR;

/** `12 s`, `3 min`, `2 h 5 min`, `3 d 4 h`, `45 d`. Negative spans count as none. */
export function span(ms: number): string {
  const s = Math.max(0, ms);
  if (s < MINUTE) return `${Math.floor(s / SECOND)} s`;
  if (s < HOUR) return `${Math.floor(s / MINUTE)} min`;
  if (s < DAY) return two(s, HOUR, 'h', MINUTE, 'min');
  if (s < 14 * DAY) return two(s, DAY, 'd', HOUR, 'h');
  return `${Math.floor(s / DAY)} d`;
}

function two(ms: number, big: number, bigName: string, small: number, smallName: string): string {
  const rest = Math.floor((ms % big) / small);
  const first = `${Math.floor(ms / big)} ${bigName}`;
  return rest === 0 ? first : `${first} ${rest} ${smallName}`;
}

/** Times ahead of the page's clock by less count as now: the clock ticks, and `Date` has whole seconds. */
const AHEAD = 5 * SECOND;

/** `just now`, `12 s ago`; `in 3 min` for a time that is clearly ahead. */
export function relative(at: number, now: number): string {
  const past = now - at;
  if (past <= -AHEAD) return `in ${span(-past)}`;
  return past < SECOND ? 'just now' : `${span(past)} ago`;
}

/** The time until the next check; an overdue one is due now. */
export function upcoming(at: number, now: number): string {
  return at - now < SECOND ? 'due now' : `in ${span(at - now)}`;
}

/** Milliseconds of an RFC 3339 time; `undefined` for no time and for an invalid one. */
export function millis(time: string | null | undefined): number | undefined {
  const ms = time ? Date.parse(time) : Number.NaN;
  return Number.isNaN(ms) ? undefined : ms;
}

/** Created once: creating one takes as long as a hundred uses. */
const TIME = { hour: '2-digit', minute: '2-digit', second: '2-digit' } as const;
const CLOCK = new Intl.DateTimeFormat(undefined, TIME);
const CALENDAR = new Intl.DateTimeFormat(undefined, {
  year: 'numeric',
  month: 'short',
  day: 'numeric',
  ...TIME,
  timeZoneName: 'short',
});

/** The exact time in the reader's own zone, with the zone. */
export function exact(ms: number): string {
  return CALENDAR.format(ms);
}

export function timeOfDay(ms: number): string {
  return CLOCK.format(ms);
}

const BYTE_UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/** Decimal units, three digits: `0 B`, `950 B`, `1.24 MB`. */
export function bytes(count: number): string {
  let value = Math.abs(count);
  let unit = 0;
  while (value >= 999.5 && unit < BYTE_UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${count < 0 ? '-' : ''}${unit === 0 ? value : digits(value)} ${BYTE_UNITS[unit]}`;
}

/** Three significant digits, never an exponent for what people read every day. */
export function digits(value: number): string {
  if (!Number.isFinite(value)) return String(value);
  const size = Math.abs(value);
  if (size >= 100 || Number.isInteger(value)) return groups(Math.round(value));
  if (size >= 0.001 || size === 0) return String(Number(value.toPrecision(3)));
  return value.toExponential(1);
}

/** Thin spaces between thousands, from five digits on. */
export function groups(value: number): string {
  const text = String(value);
  return Math.abs(value) < 10_000 ? text : text.replace(/\B(?=(\d{3})+(?!\d))/g, '\u2009');
}

const BYTE_FACTORS: Record<string, number> = {
  B: 1, KB: 1e3, MB: 1e6, GB: 1e9, TB: 1e12, KIB: 1024, MIB: 1024 ** 2, GIB: 1024 ** 3, TIB: 1024 ** 4,
};
const SECOND_FACTORS: Record<string, number> = { s: 1, ms: 1e-3, us: 1e-6, ns: 1e-9 };

/** The value of a metric in the unit that reads best. `null`: the plugin did not know it. */
export function metric(value: number | null | undefined, uom: string): string {
  if (value === null || value === undefined) return 'unknown';
  const byteFactor = BYTE_FACTORS[uom.toUpperCase()];
  if (byteFactor !== undefined) return bytes(value * byteFactor);
  const secondFactor = SECOND_FACTORS[uom];
  if (secondFactor !== undefined) return seconds(value * secondFactor);
  if (uom === '%') return `${digits(value)} %`;
  if (uom === '' || uom === 'c') return digits(value);
  if (uom === 'C' || uom === 'F') return `${digits(value)} °${uom}`;
  return `${digits(value)} ${uom}`;
}

function seconds(value: number): string {
  const size = Math.abs(value);
  if (size >= 120) return `${value < 0 ? '-' : ''}${span(size * 1000)}`;
  if (size >= 1 || size === 0) return `${digits(value)} s`;
  if (size >= 1e-3) return `${digits(value * 1e3)} ms`;
  return `${digits(value * 1e6)} µs`;
}

/** `1 host`, `2 hosts`. */
export function plural(count: number, one: string, many = `${one}s`): string {
  return `${groups(count)} ${count === 1 ? one : many}`;
}

/** The difference between the clock of a device and that of the gateway. */
export function skew(s: number): string {
  const size = Math.abs(s);
  if (size < 1) return 'accurate to 1 s';
  return `${span(size * 1000)} ${s > 0 ? 'ahead' : 'behind'}`;
}
