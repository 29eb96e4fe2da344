//! The options that set fields of the API. A refusal of the gateway names a field, such as `access[1].ports`, and a
//! person typed an option, such as `--tcp`.
//!
//! Pure. A field without an option keeps its name: an argument is called as its field is.

use clap::ArgMatches;
use clap::parser::ValueSource;

/// A field and its option. `[]` is any place in a list.
type Pair = (&'static str, &'static str);

/// The options of each command.
const COMMANDS: [(&str, &[&[Pair]]); 43] = [
    ("ack", &[&[("comment", "--comment"), ("expires", "--for")]]),
    ("booking add", &[BOOKING, ITEMS]),
    ("booking set", &[BOOKING]),
    ("contact add", &[CONTACT]),
    ("contact set", &[CONTACT, NAME]),
    ("customer add", &[CUSTOMER, NAME]),
    ("customer login-link", &[&[("person", "--person")]]),
    ("customer person add", &[PERSON, NAME]),
    ("customer person set", &[PERSON, NAME]),
    ("customer set", &[CUSTOMER, NAME]),
    ("device add", &[DEVICE, LOGIN, NEW_LOGIN, CHOSEN, &[("public_key", "--public-key")]]),
    ("device reissue", &[&[("public_key", "--public-key")]]),
    ("device set", &[DEVICE, LOGIN, &[("labels", "--label"), ("networks", "--network")]]),
    ("downtime add", &[DOWNTIME, &[("labels", "--label"), ("service", "--service")]]),
    ("downtime set", &[DOWNTIME]),
    ("enrolment approve", &[NAME, &[("labels", "--label")]]),
    ("explain", &[&[("at", "--at"), ("from", "--from"), ("protocol", "--udp"), ("to", "--to")]]),
    ("grant add", &[GRANT, NAME]),
    ("grant set", &[GRANT]),
    ("graph", &[TIME, &[("points", "--width")]]),
    ("host add", &[LOGIN, NEW_LOGIN, CHOSEN, &[("address", "--address"), ("via", "--via")]]),
    ("host set", &[SETTINGS, LIMITS, LOGIN, CHOSEN, HOST]),
    ("metrics", &[TIME, &[("points", "--points")]]),
    ("operator add", &[&[("mtu", "--mtu"), ("public_key", "--public-key"), ("user", "--user")]]),
    ("operator reissue", &[&[("public_key", "--public-key")]]),
    ("operator set", &[NAME, &[("mtu", "--mtu")]]),
    ("profile set", &[&[("extends", "--extends"), ("rental", "--rental"), ("summary", "--summary")]]),
    ("rental block", &[&[("from", "--from"), ("reason", "--reason"), ("until", "--until or --for")]]),
    (
        "rental device",
        &[WHOLE_ACCESS, &[("preparation_s", "--preparation"), ("turnaround_s", "--turnaround")]],
    ),
    ("rental end", &[&[("note", "--note"), ("reason", "--reason")]]),
    (
        "rental set",
        &[
            WHOLE_ACCESS,
            NAME,
            LIMITS,
            &[
                ("allowance_bytes", "--allowance"),
                ("cut_at_allowance", "--cut-at-allowance"),
                ("device", "--device"),
                ("maintenance", "--maintenance"),
                ("other_device_after_s", "--other-device-after"),
                ("renters", "--renter"),
                ("ssh", "--ssh"),
                ("until", "--until"),
            ],
        ],
    ),
    (
        "renter add",
        &[&[
            ("mtu", "--mtu"),
            ("person", "--person"),
            ("public_key", "--public-key"),
            ("ssh_keys", "--ssh-key"),
        ]],
    ),
    ("renter credentials", &[&[("public_key", "--public-key")]]),
    ("renter set", &[NAME, &[("mtu", "--mtu"), ("ssh_keys", "--ssh-key")]]),
    ("report availability", &[TIME, &[("label", "--label")]]),
    ("result", &[&[("timestamp", "--at")]]),
    ("rule add", &[RULE]),
    ("rule set", &[RULE, NAME]),
    ("service set", &[SETTINGS, LIMITS, &[("check", "--check")]]),
    ("subscription add", &[&[("kinds", "--kind")]]),
    ("subscription set", &[&[("kinds", "--kind"), ("url", "--address")]]),
    ("token create", &[TOKEN, CHOSEN]),
    ("user add", &[&[("role", "--role")]]),
];
const NAME: &[Pair] = &[("name", "--name")];
const TIME: &[Pair] = &[("from", "--from"), ("to", "--to")];
const CUSTOMER: &[Pair] = &[("contacts", "--contact"), ("external_ref", "--ref")];
const PERSON: &[Pair] = &[("email", "--email")];
/// A refusal of access as a whole, which is no entry of it.
const WHOLE_ACCESS: &[Pair] = &[("access", "--icmp or --tcp or --udp")];
const CHOSEN: &[Pair] = &[("labels", "--label"), ("profile", "--profile")];
const DEVICE: &[Pair] = &[("direct_address", "--direct"), ("mtu", "--mtu"), ("route", "--route")];
const LOGIN: &[Pair] = &[("ssh.port", "--ssh-port"), ("ssh.user", "--ssh-user")];
const NEW_LOGIN: &[Pair] = &[("ssh.host_key", "--host-key")];
const HOST: &[Pair] = &[
    ("address", "--address"),
    ("max_silence_s", "--max-silence"),
    ("notes", "--notes"),
    ("parents", "--parent"),
];
const SETTINGS: &[Pair] = &[
    ("flapping.enabled", "--flapping"),
    ("flapping.high", "--flapping-high"),
    ("flapping.ignore", "--flapping-ignore"),
    ("flapping.low", "--flapping-low"),
    ("freshness_s", "--freshness"),
    ("interval_s", "--interval"),
    ("max_check_attempts", "--attempts"),
    ("notify.delay_s", "--notify-delay"),
    ("notify.interval_s", "--notify-interval"),
    ("notify.states", "--notify-states"),
    ("notify.types", "--notify-types"),
    ("retry_s", "--retry"),
    ("timeout_s", "--timeout"),
    ("volatile", "--volatile"),
];
const LIMITS: &[Pair] =
    &[("thresholds[].crit", "--crit"), ("thresholds[].warn", "--warn"), ("thresholds", "--warn or --crit")];
const GRANT: &[Pair] = &[
    ("from", "--from"),
    ("reason", "--reason"),
    ("source.peer", "--peer"),
    ("source.role", "--role"),
    ("source.user", "--user"),
    ("target.host", "--to"),
    ("target.labels", "--to-labels"),
    ("until", "--until or --for"),
];
const CONTACT: &[Pair] = &[
    ("digest_at", "--digest"),
    ("emails", "--email"),
    ("group_wait_s", "--group-wait"),
    ("time_zone", "--time-zone"),
    ("webhook_url", "--webhook"),
];
const RULE: &[Pair] = &[
    ("contact", "--contact"),
    ("delay_s", "--delay"),
    ("labels", "--label"),
    ("period", "--period"),
    ("severity", "--severity"),
];
const TOKEN: &[Pair] = &[
    ("customer", "--customer"),
    ("expires_in_s", "--expires"),
    ("role", "--role"),
    ("scopes", "--scope"),
    ("ssh_user", "--ssh-user"),
    ("user", "--user"),
    ("uses", "--uses"),
];
const DOWNTIME: &[Pair] = &[
    ("comment", "--comment"),
    ("duration_s", "--flexible"),
    ("end", "--until or --for"),
    ("recurrence.every", "--every"),
    ("recurrence.first_date", "--first"),
    ("recurrence.from", "--from"),
    ("recurrence.last_date", "--last"),
    ("recurrence.time_zone", "--zone"),
    ("recurrence.to", "--to"),
    ("start", "--from"),
];
const BOOKING: &[Pair] =
    &[("hold_until", "--hold"), ("metadata", "--metadata"), ("notes", "--notes"), ("time_zone", "--zone")];
const ITEMS: &[Pair] = &[
    ("customer", "--customer"),
    ("external_ref", "--ref"),
    ("items[].access", "--icmp or --tcp or --udp"),
    ("items[].allowance_bytes", "--allowance"),
    ("items[].cut_at_allowance", "--cut-at-allowance"),
    ("items[].device", "--device"),
    ("items[].from", "--from"),
    ("items[].labels", "--any"),
    ("items[].maintenance", "--maintenance"),
    ("items[].name", "--name"),
    ("items[].other_device_after_s", "--other-device-after"),
    ("items[].profile", "--profile"),
    ("items[].renters", "--renter"),
    ("items[].ssh", "--ssh"),
    ("items[].thresholds[].crit", "--crit"),
    ("items[].thresholds[].warn", "--warn"),
    ("items[].thresholds", "--warn or --crit"),
    ("items[].until", "--until or --for"),
];

/// The options that each make one entry of `access`, in the order of the body.
const ACCESS: [Pair; 3] = [("icmp", "--icmp"), ("tcp", "--tcp"), ("udp", "--udp")];

/// The part of a command line that errors name.
#[derive(Clone, Debug, Default)]
pub(super) struct Given {
    /// The command, such as `grant add`.
    command: String,
    /// The options behind the entries of `access`.
    access: Vec<&'static str>,
}

impl Given {
    pub fn of(matches: &ArgMatches) -> Given {
        let (mut words, mut last) = (Vec::new(), matches);
        while let Some((word, below)) = last.subcommand() {
            words.push(word);
            last = below;
        }
        let access = ACCESS.into_iter().filter(|(id, _)| is_typed(last, id)).map(|(_, option)| option);
        Given { command: words.join(" "), access: access.collect() }
    }

    /// Returns the option that sets a field of the body.
    pub fn option(&self, field: &str) -> Option<&'static str> {
        // All items of a booking have the same access.
        let of_item =
            field.strip_prefix("items[").and_then(|rest| rest.split_once("].")).map(|(_, rest)| rest);
        if let Some(rest) = of_item.unwrap_or(field).strip_prefix("access[") {
            let place: usize = rest.split(']').next()?.parse().ok()?;
            return self.access.get(place).copied();
        }
        let field = without_places(field);
        let (_, lists) = COMMANDS.into_iter().find(|(command, _)| *command == self.command)?;
        let mut pairs = lists.iter().copied().flatten();
        pairs.find(|(name, _)| is_within(&field, name)).map(|(_, option)| *option)
    }
}

fn is_typed(matches: &ArgMatches, id: &str) -> bool {
    let exists = matches.try_contains_id(id).unwrap_or_default();
    exists && matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// Returns `thresholds[].warn` for `thresholds[2].warn`.
fn without_places(field: &str) -> String {
    let mut parts = field.split('[');
    let mut plain = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        plain.push('[');
        plain.push_str(part.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    plain
}

/// A field is within itself, its object and its list.
fn is_within(field: &str, name: &str) -> bool {
    field.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, FromArgMatches as _};

    use super::super::{Cli, Connection, run};
    use super::*;
    use crate::api::testing::TestApi;
    use crate::cli::client::Refused;
    use crate::store::access::Role;

    #[test]
    fn every_option_of_the_table_exists() {
        let root = Cli::command();
        for (command, lists) in COMMANDS {
            let of = |at, word: &str| {
                let at: &clap::Command = at;
                at.find_subcommand(word).unwrap_or_else(|| panic!("no command {command}"))
            };
            let found = command.split(' ').fold(&root, of);
            let has = |option: &str| found.get_arguments().any(|a| a.get_long() == option.strip_prefix("--"));
            for (field, options) in lists.iter().copied().flatten() {
                for option in options.split(" or ") {
                    assert!(has(option), "fleetgate {command} has no {option}, for {field}");
                }
            }
        }
    }

    #[test]
    fn a_field_has_the_option_that_made_it() {
        let given = |line: &str| Given::of(&Cli::command().try_get_matches_from(line.split(' ')).unwrap());
        let grant = given("fleetgate --json grant add --role operator --to-all-devices --udp 53 --tcp 0");
        assert_eq!(grant.option("access[0].ports"), Some("--tcp"), "as the body has them");
        assert_eq!(grant.option("access[1].ports"), Some("--udp"));
        assert_eq!(grant.option("access[2].ports"), None);
        assert_eq!(grant.option("source"), None, "several options set it");
        assert_eq!(grant.option("fromage"), None);
        let booking = given("fleetgate booking add --customer crm-17 --device cam --for 2h --udp 53 --tcp 0");
        assert_eq!(booking.option("items[3].access[0].ports[0]"), Some("--tcp"));
        assert_eq!(booking.option("items[3].access"), Some("--icmp or --tcp or --udp"));
        assert_eq!(booking.option("items[0].renters[2]"), Some("--renter"));
        assert_eq!(booking.option("items[0]"), None);
        let person = given("fleetgate customer person set y_1 --email x");
        assert_eq!((person.option("email"), person.option("customer")), (Some("--email"), None));
        let host = given("fleetgate host set nas --warn rta=x");
        assert_eq!(host.option("thresholds[12].warn"), Some("--warn"));
        assert_eq!(host.option("thresholds[12].metric"), Some("--warn or --crit"));
        assert_eq!(host.option("name"), None, "an argument");
        assert_eq!(given("fleetgate status").option("mtu"), None);
        assert_eq!(Given::default().option("mtu"), None);
    }

    #[tokio::test]
    async fn a_refusal_names_the_option_and_not_the_field() {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let api = TestApi::with_endpoint().await;
        let url = format!("http://{}", api.serve(api.router()).await);
        for (line, says) in [
            ("grant add --role operator --to-all-devices --icmp --tcp 0", vec!["--tcp: "]),
            ("grant add --user eve --to-all-devices --icmp", vec!["--user: no user is called \"eve\""]),
            ("device add cam --mtu 9", vec!["--mtu: "]),
            ("device add cam --label UPPER=x", vec!["--label: "]),
            ("host add nas --via cam --address x", vec!["--address: "]),
            ("customer add --ref k_38h601nahgbz6 --contact <>", vec!["--ref: ", "--contact: "]),
            ("renter add laptop --person y_1", vec!["--person: "]),
            ("renter add laptop --person y_1 --mtu 9 --public-key x", vec!["--mtu: ", "--public-key: "]),
            ("subscription add http://127.0.0.1:9/x --kind rental.x", vec!["--kind: "]),
            ("contact add ops --email x --digest 99", vec!["--email: ", "--digest: "]),
            ("explain --from w_38h601nahgbz6 --to cam", vec!["--from: no renter is called"]),
            ("graph cam rta --from 1h --to 2h", vec!["--from: a time before `--to` is expected"]),
            ("metrics cam rta --from 1h --to 2h", vec!["--from: a time before `--to` is expected"]),
            ("metrics cam rta --points 1", vec!["--points: 2 to 2000"]),
        ] {
            let words = ["fleetgate"].into_iter().chain(line.split(' '));
            let matches = Cli::command().try_get_matches_from(words).unwrap();
            let token = Some(api.token(Role::Admin).to_owned());
            let to = Connection { data: None, url: Some(url.clone()), token, json: false };
            let cli = Cli { to, ..Cli::from_arg_matches(&matches).unwrap() };
            let refused = run(cli).await.unwrap_err();
            let field = format!("{refused:#}");
            let named = format!("{:#}", Refused::in_options(refused, Given::of(&matches)));
            assert!(says.iter().all(|says| named.contains(says)), "{line}: {named}");
            assert!(!says.iter().any(|says| field.contains(says)), "{line}: {field}");
        }
    }
}
