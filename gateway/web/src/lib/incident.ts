/** How an incident is told: what phase it is in, who belongs to it, and what happened when. Pure. */

import type { Event, IncidentDetails, IncidentMember, Notification } from '../api/types';
import { plural } from './format';

export type Phase = 'open' | 'well' | 'over' | 'merged';

/** All may be well some time before it closes, in case it comes back. */
export function phaseOf(incident: Pick<IncidentDetails, 'state' | 'open_members'>): Phase {
  if (incident.state === 'merged') return 'merged';
  if (incident.state === 'closed') return 'over';
  return incident.open_members > 0 ? 'open' : 'well';
}

/** What is meant by a number of members: `8 of 12 hosts`, `2 of 3 services`, or, of both, `5 of 9`. */
export function tally(incident: Pick<IncidentDetails, 'open_members' | 'members' | 'listed'>): string {
  const { open_members: ill, members: all, listed } = incident;
  const services = listed.filter((member) => member.service).length;
  const word = services === 0 ? 'host' : services === listed.length ? 'service' : '';
  const whole = word ? plural(all, word) : String(all);
  return ill === all ? whole : `${ill} of ${whole}`;
}

export function nameOf(member: Pick<IncidentMember, 'host_name' | 'service'>): string {
  return member.service ? `${member.host_name}/${member.service}` : member.host_name;
}

export interface Moment {
  key: string;
  at: string;
  what: string;
  text: string;
  by?: string;
}

/** Notifications of one sort that follow each other so closely are one line. */
const CLOSE_MS = 120_000;
/** Names that a line holds before it counts. */
const NAMED = 3;

const OUTCOMES: Record<string, string> = {
  sent: 'Told',
  sending: 'Being told',
  waiting: 'Waits to be told',
  new: 'Waits to be told',
  held: 'Told to nobody',
  given_up: 'Could not be told',
};

/** Events and what was told of it, the newest first. */
export function timeline(incident: Pick<IncidentDetails, 'events' | 'notifications'>): Moment[] {
  // What is told in the moment of an event follows from that.
  const moments = [...bundles(incident.notifications).map(ofBundle), ...incident.events.map(ofEvent)];
  return moments.sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
}

function ofEvent(event: Event): Moment {
  const by = event.principal === 'system' ? undefined : event.principal;
  return { key: `e${event.seq}`, at: event.at, what: said(event.kind.replace(/^incident\./, '')), text: event.cause, by };
}

function said(words: string): string {
  const text = words.replaceAll(/[._]/g, ' ');
  return text.charAt(0).toUpperCase() + text.slice(1);
}

const sort = (n: Notification): string => [n.outcome, n.type, n.state, n.outcomes[0]?.reason ?? ''].join(' ');

/** They come the newest first. */
function bundles(notifications: Notification[]): Notification[][] {
  const all: Notification[][] = [];
  for (const one of notifications) {
    const last = all.at(-1)?.at(-1);
    if (last && sort(last) === sort(one) && Date.parse(last.at) - Date.parse(one.at) < CLOSE_MS) all.at(-1)?.push(one);
    else all.push([one]);
  }
  return all;
}

function ofBundle(bundle: Notification[]): Moment {
  const [newest] = bundle;
  if (!newest) throw new Error('a bundle holds at least one');
  const names = [...new Set(bundle.map((n) => nameOf({ host_name: n.host, service: n.service })))].reverse();
  const more = names.length - NAMED;
  const shown = more > 1 ? `${names.slice(0, NAMED).join(', ')} and ${more} more` : names.join(', ');
  const why = newest.outcome === 'held' ? newest.outcomes[0]?.text : undefined;
  const what = `${OUTCOMES[newest.outcome] ?? said(newest.outcome)}: ${wording(newest)}`;
  return { key: newest.id, at: newest.at, what, text: why ? `${shown} (${why})` : shown };
}

function wording(n: Notification): string {
  if (n.type === 'problem') return n.state;
  if (n.type === 'reminder') return `still ${n.state}`;
  return said(n.type).toLowerCase();
}
