/** The wire types under the names that the pages use. They are generated from the API's description. */

import type { components } from '../../generated/schema';

type Schemas = components['schemas'];

export type Overview = Schemas['Overview'];
export type Host = Schemas['Host'];
export type Tunnel = Schemas['Tunnel'];
export type Verdict = Schemas['Verdict'];
export type Service = Schemas['Service'];
export type ServiceCounts = Schemas['ServiceCounts'];
export type HostCounts = Schemas['HostCounts'];
export type Metric = Schemas['Metric'];
export type Problem = Schemas['Problem'];
export type IncidentDetails = Schemas['IncidentDetails'];
export type IncidentMember = Schemas['IncidentMember'];
export type Notification = Schemas['Notification'];
export type Event = Schemas['Event'];
export type Enrolment = Schemas['Enrolment'];
export type Device = Schemas['Device'];
export type Credentials = Schemas['Credentials'];
export type Me = Schemas['Me'];
