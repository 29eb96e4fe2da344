//! The help of every command, as a terminal of the usual width shows it.

use clap::{Arg, Command, CommandFactory as _};

use super::table::{self, Column};
use super::{
    Cli, HELP_WIDTH, booking, customer, device, downtime, events, forwarded, grant, host, incident, operator,
    person, rental, rental_events, renter, report, restore_review, status, subscription, token, why,
};
use crate::api::testing::TestApi;
use crate::store::access::Role;

/// Wide enough that nothing wraps.
const UNWRAPPED: usize = 10_000;

/// Words of other trades than monitoring: what replaces them is in the glossary.
const NO_TERMS: [&str; 9] =
    ["told", "tell", "tells", "nobody", "somebody", "whoever", "knows", "well", "watched"];

/// The command itself and all below it, each with the name that a person types.
fn all(command: &Command) -> Vec<(String, Command)> {
    let mut found = vec![(command.get_bin_name().unwrap_or("fleetgate").to_owned(), command.clone())];
    found.extend(command.get_subcommands().filter(|c| c.get_name() != "help").flat_map(all));
    found
}

fn commands(width: usize) -> Vec<(String, Command)> {
    let mut root = Cli::command().term_width(width).max_term_width(width);
    root.build();
    all(&root)
}

/// `-h` and `--help`.
fn helps(command: &mut Command) -> [String; 2] {
    [command.render_help().to_string(), command.render_long_help().to_string()]
}

#[test]
fn every_help_fits_80_columns_and_splits_no_word() {
    let narrow = commands(HELP_WIDTH);
    assert!(narrow.len() > 80, "only {} commands were found", narrow.len());
    for ((name, mut narrow), (_, mut wide)) in narrow.into_iter().zip(commands(UNWRAPPED)) {
        for (shown, whole) in helps(&mut narrow).into_iter().zip(helps(&mut wide)) {
            for line in shown.lines() {
                assert!(line.chars().count() <= HELP_WIDTH, "{name}: {line}");
            }
            let words = |text: &str| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
            assert_eq!(words(&shown), words(&whole), "{name}");
        }
    }
}

/// A global option takes the value of an argument with its name. The command would go to another gateway then, or with
/// another token.
#[test]
fn no_argument_has_the_name_of_a_global_option() {
    let root = Cli::command();
    let globals: Vec<&Arg> = root.get_arguments().filter(|a| a.is_global_set()).collect();
    assert_eq!(globals.len(), 4, "data, url, token and json");
    let is_same = |own: &Arg, global: &Arg| {
        own.get_id() == global.get_id() || own.get_long().is_some() && own.get_long() == global.get_long()
    };
    for (_, command) in root.get_subcommands().flat_map(all) {
        for own in command.get_arguments() {
            let is_taken = globals.iter().any(|global| is_same(own, global));
            assert!(!is_taken, "{}: a global option is called {}", command.get_name(), own.get_id());
        }
    }
}

#[test]
fn every_command_option_and_argument_has_a_help() {
    for (name, command) in commands(HELP_WIDTH) {
        assert!(command.get_about().is_some(), "{name}");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name}: {}", argument.get_id());
        }
    }
}

#[test]
fn help_has_the_terms_of_the_glossary() {
    for (name, mut command) in commands(HELP_WIDTH) {
        for text in helps(&mut command) {
            let found = text.split(|c: char| !c.is_alphanumeric()).find(|word| NO_TERMS.contains(word));
            assert_eq!(found, None, "{name}:\n{text}");
        }
    }
}

/// As long as it gets: a name of 63 characters, an output of a plugin that says much.
const NAME: &str = "a-camera-on-the-roof-of-the-warehouse-beside-the-river-in-linz";
const OUTPUT: &str = "DISK CRITICAL - free space: / 1203 MB (3% inode=82%); /var/log 11 MB (0% inode=97%)";
const KEY: &str = "mUD4m9tbXHZpx8F0vlLZ0TmT8rY0bvv8Zd2q8dGHR1s=";
const ID: &str = "d_0123456789abc";
const STATE: &str = "\u{1b}[31mCRITICAL\u{1b}[0m (acknowledged, in downtime)";
const ADDRESS: &str = "100.100.100.100";
const TIME: &str = "2026-03-10 13:03Z";

/// The columns of a table, a long row, and the cells that must stay whole.
type LongRow = (&'static [Column], Vec<&'static str>, Vec<&'static str>);

fn long_rows() -> Vec<LongRow> {
    [rows_of_monitoring(), rows_of_access(), rows_of_rentals()].concat()
}

fn rows_of_monitoring() -> Vec<LongRow> {
    let problem = vec![STATE, "12d 23h", NAME, "a-service-of-some-length", ID, OUTPUT];
    let services = "1 critical, 2 unknown, 3 warning, 40 ok";
    let host =
        vec![STATE, "12d 23h", NAME, ADDRESS, services, "23h 59m ago", "23h 59m ago", "site=linz kind=cam"];
    let bars = "▁▂▃▄▅▆▇█▁▂▃▄▅▆▇█▁▂▃▄▅▆▇█";
    let service = vec![STATE, "12d 23h", NAME, "23h 59m ago", OUTPUT, "rta=12.5ms pl=0% time=0.2s", bars];
    let incident = vec![ID, "service", "12d 23h", "29 of 30", "user:somebody-with-a-name", OUTPUT];
    let downtime = vec![ID, NAME, TIME, TIME, "mon-fri 02:00-04:00 Europe/Vienna", "user:ada", OUTPUT];
    let message = vec![ID, "given_up", NAME, "somebody-with-a-name@example.org", "12", "99", TIME, OUTPUT];
    let availability = vec![NAME, NAME, NAME, "98.610 %", "100.000 %", "12d 23h", "12d 23h"];
    vec![
        (&status::COLUMNS, problem, vec!["12d 23h", ID, "CRITICAL"]),
        (&host::COLUMNS, host, vec!["12d 23h", ADDRESS, "CRITICAL"]),
        (&host::SERVICE_COLUMNS, service, vec!["12d 23h", "CRITICAL"]),
        (&incident::COLUMNS, incident, vec![ID, "12d 23h", "29 of 30"]),
        (&downtime::COLUMNS, downtime, vec![ID, TIME]),
        (&why::COLUMNS, message, vec![ID, "given_up"]),
        (&report::COLUMNS, availability, vec!["98.610 %", "12d 23h"]),
    ]
}

fn rows_of_access() -> Vec<LongRow> {
    let device = vec![ID, NAME, ADDRESS, "timelapse-camera-of-linz", "tunnel", KEY];
    let operator = vec![ID, NAME, "somebody-with-a-name", ADDRESS, "23h 59m ago", "connected"];
    let grant = vec![ID, "withdrawn", NAME, NAME, "icmp, tcp 22 443 8000-8100", TIME, TIME, OUTPUT];
    let token = vec!["enrolment", ID, NAME, "operator of ada (rentals)", TIME, "23h 59m ago", "revoked"];
    let sent = vec![TIME, NAME, NAME, ID, NAME, "tcp others", "999.9 GB", "999.9 GB"];
    let review = vec!["enrolment token", NAME, OUTPUT, TIME];
    vec![
        (&device::COLUMNS, device, vec![ID, ADDRESS, "tunnel"]),
        (&operator::COLUMNS, operator, vec![ID, ADDRESS, "connected"]),
        (&grant::COLUMNS, grant, vec![ID, TIME, "withdrawn"]),
        (&token::COLUMNS, token, vec![ID, TIME, "revoked"]),
        (&forwarded::COLUMNS, sent, vec![TIME, "tcp others", "999.9 GB"]),
        (&restore_review::COLUMNS, review, vec!["enrolment token", TIME]),
    ]
}

fn rows_of_rentals() -> Vec<LongRow> {
    let zoned = "2026-03-10 14:03 CET";
    let rental = vec![ID, "returning", NAME, zoned, zoned, NAME];
    let booking = vec![ID, NAME, ID, zoned, NAME, TIME];
    let customer = vec![ID, NAME, NAME, "Ada <ada@example.org>, Bob <bob@example.org>"];
    let person = vec![ID, ID, NAME, "somebody-with-a-name@example.org"];
    let renter = vec![ID, NAME, ID, ADDRESS, "23h 59m ago", "connected"];
    let subscription = vec![ID, "failing", "1000", "https://booking.example.com/fleet", OUTPUT];
    vec![
        (&rental::COLUMNS, rental, vec![ID, "returning", zoned]),
        (&booking::COLUMNS, booking, vec![ID, TIME]),
        (&customer::COLUMNS, customer, vec![ID]),
        (&person::COLUMNS, person, vec![ID]),
        (&renter::COLUMNS, renter, vec![ID, ADDRESS, "connected"]),
        (&subscription::COLUMNS, subscription, vec![ID, "failing"]),
    ]
}

/// Returns a line as a terminal shows it.
fn plain(line: &str) -> String {
    anstream::adapter::strip_str(line).to_string()
}

#[test]
fn tables_fit_80_and_120_columns_and_keep_ids_and_times_whole() {
    for (columns, cells, whole) in long_rows() {
        for width in [80, 120] {
            let row = cells.iter().map(|cell| (*cell).to_owned()).collect();
            let lines: Vec<String> =
                table::render(columns, vec![row], Some(width)).iter().map(|line| plain(line)).collect();
            assert!(lines.iter().all(|line| line.chars().count() <= width), "{lines:#?}");
            assert!(whole.iter().all(|cell| lines[1].contains(cell)), "{lines:#?}");
            assert!(lines[1].contains('\u{2026}'), "{lines:#?}");
        }
    }
}

#[test]
fn an_event_of_a_rental_is_one_line_of_the_terminal() {
    let happened = format!("{:<28}", "rental.allowance_reached");
    let window = "from 2026-03-10 14:03Z until 2026-03-12 14:03Z";
    let cells = [TIME, ID, &happened, ID, window].map(str::to_owned);
    for width in [80, 120] {
        let line = table::row(&rental_events::COLUMNS, &cells, Some(width));
        assert!(line.chars().count() <= width && line.contains(happened.trim_end()), "{line}");
    }
}

#[test]
fn a_table_to_a_pipe_has_everything() {
    for (columns, cells, _) in long_rows() {
        let row = cells.iter().map(|cell| (*cell).to_owned()).collect();
        let lines = table::render(columns, vec![row], None);
        assert!(cells.iter().all(|cell| lines[1].contains(cell)), "{lines:#?}");
    }
}

#[test]
fn a_short_table_is_not_cut() {
    let row = ["\u{1b}[31mDOWN\u{1b}[0m", "3m", "cam-07", "", ID, "no answer"].map(str::to_owned).to_vec();
    let lines: Vec<String> =
        table::render(&status::COLUMNS, vec![row], Some(80)).iter().map(|line| plain(line)).collect();
    let expected = [
        "STATE  FOR  HOST    SERVICE  INCIDENT         OUTPUT",
        "DOWN   3m   cam-07           d_0123456789abc  no answer",
    ];
    assert_eq!(lines, expected);
}

#[test]
fn an_event_is_one_line_of_the_terminal() {
    let object = format!("{:<24}", format!("{NAME}/disk"));
    let what = "suppressed: problem OK -> CRITICAL";
    let cells = ["2026-03-10 13:03:22Z", &object, what, OUTPUT, "[user:ada]"].map(str::to_owned);
    for width in [80, 120] {
        let line = table::row(&events::COLUMNS, &cells, Some(width));
        assert!(line.chars().count() <= width && line.starts_with("2026-03-10 13:03:22Z"), "{line}");
    }
    assert!(table::row(&events::COLUMNS, &cells, None).contains(OUTPUT));
}

/// The commands in `fleetgate ...` of a text: the words that look like names of commands.
fn named(text: &str) -> Vec<Vec<&str>> {
    let is_name = |w: &&str| {
        !w.is_empty() && !w.starts_with('-') && w.chars().all(|c| c.is_ascii_lowercase() || c == '-')
    };
    let code =
        text.split("`fleetgate ").skip(1).map(|rest| rest.split(['`', '\n']).next().unwrap_or_default());
    code.map(|code| code.split(' ').take_while(is_name).collect()).collect()
}

/// The README and the pages of `docs/`.
fn pages() -> Vec<String> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("in the repository");
    let docs = std::fs::read_dir(root.join("docs")).expect("docs").flatten().map(|entry| entry.path());
    let docs = docs.filter(|path| path.extension().is_some_and(|e| e == "md"));
    let all = docs.chain([root.join("README.md")]);
    all.map(|path| std::fs::read_to_string(path).expect("a text")).collect()
}

/// The words of a command as a shell reads them, up to its end.
fn words(line: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in line.chars() {
        match (c, quote) {
            (c, Some(end)) if c == end => quote = None,
            (c, Some(_)) => word.get_or_insert_default().push(c),
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            ('|' | ';' | '>' | '&' | ')', None) => break,
            ('#', None) if word.is_none() => break,
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, None) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The commands in the blocks of a page that a person copies into a shell.
fn copied(page: &str) -> Vec<Vec<String>> {
    let blocks = page.split("```sh\n").skip(1).filter_map(|rest| rest.split("```").next());
    let lines = blocks.flat_map(|block| {
        block.replace("\\\n", " ").lines().map(|line| line.trim().to_owned()).collect::<Vec<_>>()
    });
    let command = |line: String| {
        let begun = line.strip_prefix("fleetgate ");
        let command = begun.or_else(|| line.split_once("$(fleetgate ").map(|(_, rest)| rest));
        command.map(words)
    };
    lines.filter_map(command).collect()
}

#[test]
fn every_command_of_the_docs_is_taken_as_it_is_printed() {
    let all: Vec<Vec<String>> = pages().iter().flat_map(|page| copied(page)).collect();
    assert!(all.len() > 150, "only {} commands were found", all.len());
    for command in all {
        let line = ["fleetgate".to_owned()].into_iter().chain(command.iter().cloned());
        if let Err(error) = Cli::command().try_get_matches_from(line) {
            panic!("fleetgate {}:\n{error}", command.join(" "));
        }
    }
}

#[test]
fn every_command_that_docs_and_advice_name_exists() {
    let mut texts = pages();
    texts.extend(super::advice::COMMANDS.iter().map(|(_, command)| format!("`{command}`")));
    let cli = Cli::command();
    let mut count = 0;
    for words in texts.iter().flat_map(|text| named(text)) {
        let mut command = &cli;
        for word in words {
            // A word after the last subcommand is an argument.
            if !command.has_subcommands() {
                break;
            }
            let next = command.find_subcommand(word);
            command = next
                .unwrap_or_else(|| panic!("no command is called {word:?} below {:?}", command.get_name()));
            count += 1;
        }
    }
    assert!(count > 100, "only {count} were found");
}

/// Returns an operator's client of a gateway in memory.
pub(super) async fn connected() -> (super::client::Client, TestApi) {
    connected_as(Role::Operator).await
}

/// Returns a client of a gateway in memory, with a token of this role.
pub(super) async fn connected_as(role: Role) -> (super::client::Client, TestApi) {
    // Another test may have been first.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let api = TestApi::with_endpoint().await;
    let url = Some(format!("http://{}", api.serve(api.router()).await));
    let token = Some(api.token(role).to_owned());
    let to = super::Connection { data: None, url, token, json: false };
    (super::client::Client::new(&to).expect("a client"), api)
}
