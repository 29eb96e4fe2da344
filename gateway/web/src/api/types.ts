/** The types of the API under the names that the pages use, generated from its description. */

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
export type Incident = Schemas['Incident'];
export type IncidentAcknowledgement = Schemas['IncidentAcknowledgement'];
export type Acknowledgement = Schemas['Acknowledgement'];
export type NewAcknowledgement = Schemas['NewAcknowledgement'];
export type Downtime = Schemas['Downtime'];
export type NewDowntime = Schemas['NewDowntime'];
export type DowntimeChange = Schemas['DowntimeChange'];
export type EnrolmentToken = Schemas['EnrolmentToken'];
export type Grant = Schemas['Grant'];
export type GrantAccess = Schemas['GrantAccess'];
export type GrantSource = Schemas['GrantSource'];
export type GrantTarget = Schemas['GrantTarget'];
export type NewGrant = Schemas['NewGrant'];
export type Operator = Schemas['Operator'];
export type User = Schemas['User'];
export type Gateway = Schemas['Gateway'];
export type HostSettings = Schemas['HostSettings'];
export type FieldError = Schemas['FieldError'];
export type ProblemDocument = Schemas['ProblemDocument'];
export type Affected = Schemas['Affected'];
