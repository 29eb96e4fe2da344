/** When a device is handed over: the gate and the readiness of a form. Pure. */

import type { DeviceRentalSettings, HandoverGate, NewDeviceRentalSettings } from '../api/types';
import { WrongField } from './fields';
import { span } from './format';

const MINUTE_S = 60;
/** The API has this time unless another one is set. */
const USUAL_S = 300;

export interface HandoverInput {
  gated: boolean;
  /** Minutes, as the field has them. */
  okFor: number | null | undefined;
  /** `null`: all of the device. */
  services: string[] | null;
  ready: boolean;
  reason: string;
}

type Handover = Pick<DeviceRentalSettings, 'gate' | 'ready' | 'not_ready_reason'>;

export function handoverInput({ gate, ready, not_ready_reason: reason }: Handover): HandoverInput {
  return { gated: Boolean(gate), okFor: (gate?.ok_for_s ?? USUAL_S) / MINUTE_S, services: gate?.services ?? null, ready, reason: reason ?? '' };
}

/** The page refuses a gate of no services: it would be open by oversight. */
function gateFrom({ gated, okFor, services }: HandoverInput): HandoverGate | null {
  if (!gated) return null;
  if (services?.length === 0) throw new WrongField('gate.services', 'choose a service, or let all of them count');
  return { ok_for_s: (okFor ?? 0) * MINUTE_S, services: services && [...services] };
}

export function handoverFrom(input: HandoverInput): Pick<NewDeviceRentalSettings, 'gate' | 'ready' | 'not_ready_reason'> {
  return { gate: gateFrom(input), ready: input.ready, ...(input.ready ? {} : { not_ready_reason: input.reason.trim() || null }) };
}

/** `The device has no service ssh, which its gate names: it is not handed over.`; empty if it has them all. */
export function lackedWords(lacked: readonly string[] | undefined): string {
  return lacked?.length ? `The device has no service ${lacked.join(', ')}, which its gate names: it is not handed over.` : '';
}

/** `Handed over once all services are OK for 5 min.`; empty without a gate. */
export function gateRule(gate: HandoverGate | null | undefined): string {
  if (!gate) return '';
  const what = gate.services ? gate.services.join(', ') : 'all services';
  const ms = (gate.ok_for_s ?? USUAL_S) * 1000;
  return `Handed over once ${what} ${gate.services?.length === 1 ? 'is' : 'are'} OK${ms > 0 ? ` for ${span(ms)}` : ''}.`;
}
