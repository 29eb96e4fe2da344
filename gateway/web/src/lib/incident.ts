/** An incident for people: its phase, its members and their output, who was notified, and its timeline. Pure. */

import type { Event, Incident, IncidentDetails, IncidentMember, Notification, Problem } from '../api/types';
import { titleOf } from './event';
import { plural } from './format';
import { problemText } from './verdict';
import { authorOf } from './who';

export type Phase = 'open' | 'recovered' | 'closed' | 'merged';

/** An incident stays open for a while after the last recovery, in case a member fails again. */
export function phaseOf(incident: Pick<Incident, 'state' | 'open_members'>): Phase {
  if (incident.state === 'merged') return 'merged';
  if (incident.state === 'closed') return 'closed';
  return incident.open_members > 0 ? 'open' : 'recovered';
}

/** A number of members: `8 of 12 hosts`, `2 of 3 services`, or, of both, `5 of 9`. */
export function tally(incident: Pick<IncidentDetails, 'open_members' | 'members' | 'listed'>): string {
  const { open_members: failing, members: all, listed } = incident;
  const services = listed.filter((member) => member.service).length;
  const word = services === 0 ? 'host' : services === listed.length ? 'service' : '';
  const whole = word ? plural(all, word) : String(all);
  return failing === all ? whole : `${failing} of ${whole}`;
}

export function nameOf(member: Pick<IncidentMember, 'host_name' | 'service'>): string {
  return member.service ? `${member.host_name}/${member.service}` : member.host_name;
}

interface Sources {
  problems: readonly Problem[];
  notifications: readonly Notification[];
  /** The current output of a host. */
  hostText: (id: string) => string | undefined;
}

/**
 * The output of a member. While it fails: the list of problems has it, or the host itself. After that: what its last
 * problem notification said.
 */
export function outputOf(member: IncidentMember, { problems, notifications, hostText }: Sources): string {
  const notified = () => notifications.find((n) => isOf(n, member) && n.type === 'problem')?.cause;
  if (member.left_at) return notified() ?? '';
  const problem = problems.find((p) => p.host === member.host && (p.service ?? '') === (member.service ?? ''));
  if (problem) return problemText(problem);
  const own = member.service || !member.host ? undefined : hostText(member.host);
  return own || notified() || '';
}

function isOf(n: Notification, member: IncidentMember): boolean {
  return n.host_id === member.host && (n.service ?? '') === (member.service ?? '');
}

/** What became of notifications for one address, or why they were not sent. */
export interface Receipt {
  key: string;
  what: string;
  sent: boolean;
  /** How many notifications. */
  count: number;
  /** The newest of them: `down`, `recovery`. */
  last: string;
  at: string;
  /** Why, in the API's words. */
  why: string;
}

/** Notifications come the newest first, and so do the receipts. Sent ones come before those that were not. */
export function receipts(notifications: readonly Notification[]): Receipt[] {
  const found = new Map<string, Receipt>();
  for (const n of notifications) {
    for (const outcome of n.outcomes) {
      const what = outcomeWords(outcome);
      const known = found.get(what);
      if (known) known.count += 1;
      else {
        const why = outcome.outcome === 'sent' ? '' : outcome.text;
        found.set(what, { key: what, what, sent: outcome.outcome === 'sent', count: 1, last: wording(n), at: outcome.at ?? n.at, why });
      }
    }
  }
  return [...found.values()].sort((a, b) => Number(b.sent) - Number(a.sent));
}

type Outcome = Notification['outcomes'][number];

/** `Mailed ops@example.com`, `Not sent: no contact`. */
function outcomeWords(outcome: Outcome): string {
  const to = outcome.address ?? outcome.contact ?? '';
  const whom = to && ` to ${to}`;
  switch (outcome.outcome) {
    case 'sent':
      return outcome.channel === 'webhook' ? `Posted${whom}` : `Mailed ${to}`;
    case 'sending':
      return `Sending${whom}`;
    case 'waiting':
      return `Waiting to be sent${whom}`;
    case 'given_up':
      return `Could not be sent${whom}`;
    default:
      return `Not sent: ${reasonWords(outcome.reason ?? outcome.text)}`;
  }
}

const REASONS: Record<string, string> = {
  downtime: 'in downtime',
  host_down: 'the host is down',
  not_current: 'stale',
  parent_in_doubt: 'the parent is being checked',
  rental: 'in preparation for a rental, on its way, or in the maintenance of its rental',
};

function reasonWords(reason: string): string {
  return REASONS[reason] ?? reason.replaceAll('_', ' ');
}

export interface Moment {
  key: string;
  at: string;
  what: string;
  text: string;
  by?: string;
}

/** Notifications of one kind that follow each other so closely are one line. */
const CLOSE_MS = 120_000;
/** Names in a line before the rest is counted. */
const NAMED = 3;

/** Events and notifications, the newest first. */
export function timeline(incident: Pick<IncidentDetails, 'events' | 'notifications'>): Moment[] {
  // A notification of the same moment as an event follows from it.
  const moments = [...bundles(incident.notifications).map(ofBundle), ...incident.events.map(ofEvent)];
  return moments.sort((a, b) => Date.parse(b.at) - Date.parse(a.at));
}

function ofEvent(event: Event): Moment {
  const by = event.principal === 'system' ? undefined : authorOf(event.principal);
  return { key: `e${event.seq}`, at: event.at, what: titleOf(event), text: event.cause, by };
}

const outcomesOf = (n: Notification): string[] =>
  n.outcomes.length > 0 ? [...new Set(n.outcomes.map(outcomeWords))] : ['Waiting to be sent'];
const sort = (n: Notification): string => [n.type, n.state, ...outcomesOf(n)].join(' ');

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
  if (!newest) throw new Error('a bundle has at least one notification');
  const names = [...new Set(bundle.map((n) => nameOf({ host_name: n.host, service: n.service })))].reverse();
  const more = names.length - NAMED;
  const shown = more > 1 ? `${names.slice(0, NAMED).join(', ')} and ${more} more` : names.join(', ');
  return { key: newest.id, at: newest.at, what: outcomesOf(newest).join(', '), text: `${wording(newest)}: ${shown}` };
}

function wording(n: Notification): string {
  if (n.type === 'problem') return n.state;
  if (n.type === 'reminder') return `still ${n.state}`;
  return n.type.replaceAll('_', ' ');
}
