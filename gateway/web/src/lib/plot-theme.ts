/** The colours of graphs, taken from the style sheet: a canvas does not know its variables. */

import type { Kind } from './states';

export interface Theme {
  surface: string;
  ink: string;
  soft: string;
  line: string;
  accent: string;
  quiet: string;
  band: string;
  gap: string;
  downtime: string;
  rental: string;
  incident: string;
  warning: string;
  critical: string;
  warningZone: string;
  criticalZone: string;
  lines: string[];
  /** The same, half as strong. */
  faint: string[];
  states: Record<Kind, string>;
}

/** Reads what the variables mean now, in the light or the dark theme. */
export function themeOf(box: HTMLElement): Theme {
  const probe = document.createElement('span');
  probe.hidden = true;
  box.append(probe);
  const color = (value: string): string => {
    probe.style.color = value;
    return getComputedStyle(probe).color;
  };
  const clear = (name: string, percent: number): string => color(`color-mix(in srgb, var(--${name}) ${percent}%, transparent)`);
  const theme: Theme = {
    surface: color('var(--surface)'),
    ink: color('var(--ink)'),
    soft: color('var(--soft)'),
    line: color('var(--line)'),
    accent: color('var(--accent)'),
    quiet: clear('quiet', 45),
    band: clear('accent', 20),
    gap: clear('quiet', 26),
    downtime: clear('quiet', 13),
    rental: color('var(--unsure)'),
    incident: clear('bad', 75),
    warning: clear('warning', 70),
    critical: clear('bad', 70),
    warningZone: clear('warning', 7),
    criticalZone: clear('bad', 7),
    lines: Array.from({ length: LINES }, (_, i) => color(`var(--series-${i + 1})`)),
    faint: Array.from({ length: LINES }, (_, i) => clear(`series-${i + 1}`, 50)),
    states: {
      up: color('var(--good-fill)'), ok: color('var(--good-fill)'), pending: color('var(--strong-line)'), unknown: clear('unsure', 60),
      unreachable: clear('unsure', 60), warning: color('var(--warning-fill)'), critical: color('var(--bad-fill)'), down: color('var(--bad)'),
    },
  };
  probe.remove();
  return theme;
}

/** As many as `app.css` has. */
export const LINES = 8;

/** Calls `act` when the theme changes. */
export function onTheme(act: () => void): () => void {
  const dark = matchMedia('(prefers-color-scheme: dark)');
  const chosen = new MutationObserver(act);
  chosen.observe(document.documentElement, { attributes: true, attributeFilter: ['data-theme'] });
  dark.addEventListener('change', act);
  return () => {
    chosen.disconnect();
    dark.removeEventListener('change', act);
  };
}
