-- Sessions of the people of customers, who see the rentals of their customer and nothing else.
create table person_sessions (
    hash blob primary key not null,             -- SHA-256 of the cookie
    person integer not null references people (id),
    created_at integer not null,
    seen_at integer not null,
    expires_at integer not null
) strict;
create index person_sessions_person on person_sessions (person, created_at);

-- One-time logins of these people. A used one is deleted.
create table person_login_links (
    hash blob primary key not null,
    person integer not null references people (id),
    created_at integer not null,
    expires_at integer not null
) strict;
create index person_login_links_person on person_login_links (person, created_at);
