-- What belongs to an open incident is looked up for each answer: without a walk through what left one.

create index incident_members_open on incident_members (host, service) where left_at is null;
