/** The problems in one line. Pure. */

import type { Overview } from '../api/types';
import { plural } from './format';
import type { Kind } from './states';

export interface Headline {
  kind: Kind;
  text: string;
}

/** Open problems only. Handled problems (acknowledged or in downtime) are counted if there is no open one. */
export function headline({ hosts, services, handled = 0 }: Overview): Headline {
  const wrong: [number, Kind, string][] = [
    [hosts.down, 'down', `${plural(hosts.down, 'host')} down`],
    [hosts.unreachable, 'unreachable', `${plural(hosts.unreachable, 'host')} unreachable`],
    [services.critical, 'critical', `${plural(services.critical, 'service')} critical`],
    [services.warning, 'warning', `${plural(services.warning, 'service')} warning`],
    [services.unknown, 'unknown', `${plural(services.unknown, 'service')} unknown`],
    [hosts.stale, 'unknown', `${plural(hosts.stale, 'host')} stale`],
  ];
  const found = wrong.filter(([count]) => count > 0);
  const worst = found[0];
  if (worst) return { kind: worst[1], text: found.map(([, , text]) => text).join(', ') };
  if (handled > 0) return { kind: 'ok', text: `No open problems, ${handled} handled` };
  if (hosts.up === 0) return { kind: 'pending', text: hosts.pending ? 'Waiting for first results' : 'No hosts yet' };
  return { kind: 'ok', text: 'No problems' };
}

/** The title of the tab, which is often all that is visible. */
export function tabTitle(overview: Overview | undefined, lost: boolean): string {
  if (lost) return 'disconnected · fleetgate';
  if (!overview) return 'fleetgate';
  const { hosts, services } = overview;
  const bad = [
    hosts.down && `${hosts.down} down`,
    hosts.unreachable && `${hosts.unreachable} unreachable`,
    services.critical && `${services.critical} critical`,
  ].filter(Boolean);
  return [...bad, 'fleetgate'].join(' · ');
}
