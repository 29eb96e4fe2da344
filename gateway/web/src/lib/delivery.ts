/** Whether a device is sent to the customer, and the account that renters log in as. Pure. */

import type { DeviceRentalSettings, NewDeviceRentalSettings } from '../api/types';

type Settings = Pick<DeviceRentalSettings, 'delivery' | 'ssh_account' | 'ssh_mode' | 'ssh_root' | 'cleaning_command'>;

/** As a form has it: an empty text is none. */
export interface DeliveryInput {
  delivery: 'mounted' | 'shipped';
  account: string;
  root: boolean;
  cleaning: string;
}

/** Whether the gateway has logins of renters at all. */
export function knowsSsh({ ssh_root: root }: Settings): boolean {
  return root !== undefined;
}

export function deliveryInput({ delivery, ssh_account: account, ssh_root: root, cleaning_command: cleaning }: Settings): DeliveryInput {
  return { delivery: delivery ?? 'mounted', account: account ?? '', root: root ?? false, cleaning: cleaning ?? '' };
}

/** The fields that the gateway has. */
export function deliveryFrom(input: DeliveryInput, before: Settings): Pick<NewDeviceRentalSettings, 'delivery' | 'ssh_account' | 'ssh_root' | 'cleaning_command'> {
  const account = input.account.trim() || null;
  return {
    ...(before.delivery === undefined ? {} : { delivery: input.delivery }),
    ...(knowsSsh(before) ? { ssh_account: account, ssh_root: input.root && account !== null } : {}),
    ...(before.cleaning_command === undefined ? {} : { cleaning_command: input.cleaning.trim() || null }),
  };
}

/** `Sent to the customer. Renters log in as alice.`; empty for a device that stays and has no account. */
export function deliveryRule({ delivery, ssh_account: account, ssh_root: root }: Settings): string {
  const sent = delivery === 'shipped' ? 'Sent to the customer.' : '';
  const logs = account ? `Renters log in as ${account}${root ? ', who can become root' : ''}.` : '';
  return [sent, logs].filter(Boolean).join(' ');
}
