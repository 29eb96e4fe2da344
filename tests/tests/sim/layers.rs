//! Checks the layers of docs/architecture.md. A failure prints the rule's reason.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::path::{Path, PathBuf};

use fleetgate_tests::layers::{mentions, sources};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ stands in the repository").to_owned()
}

/// Modules that are compiled for tests only, by name. `mentions` cuts off the tests at a file's
/// end, after `#[cfg(test)]`.
const TESTS: [&str; 4] = ["/tests/", "/tests.rs", "/testing.rs", "/sensors/shells.rs"];

/// Forbids `words` in every source of `dirs` but those whose path contains one of `except`.
fn forbid(reason: &str, dirs: &[&str], except: &[&str], words: &[&str]) {
    let files: Vec<PathBuf> = dirs.iter().flat_map(|d| sources(&root().join(d))).collect();
    assert!(!files.is_empty(), "{dirs:?} hold no sources: the check looks in the wrong place");
    let own = |f: &PathBuf| f.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned();
    let excepted = |f: &PathBuf| except.iter().chain(&TESTS).any(|e| own(f).contains(e));
    let found: Vec<String> = files.iter().filter(|f| !excepted(f)).flat_map(|f| mentions(f, words)).collect();
    assert!(found.is_empty(), "{reason}\n{}", found.join("\n"));
}

/// Whether the module above a file names it.
fn is_module(file: &Path) -> bool {
    let is_folder = file.file_name().is_some_and(|name| name == "mod.rs");
    let of = if is_folder { file.parent() } else { Some(file) };
    let Some((stem, dir)) = of.and_then(|of| of.file_stem().zip(of.parent())) else { return false };
    let declared = format!("mod {};", stem.to_string_lossy());
    let above = [dir.join("mod.rs"), dir.join("lib.rs"), dir.join("main.rs"), dir.with_extension("rs")];
    let names = |text: String| text.lines().any(|line| line.ends_with(&declared));
    above.iter().filter_map(|above| std::fs::read_to_string(above).ok()).any(names)
}

#[test]
fn every_source_is_compiled() {
    let dirs = ["keys/src", "probes/src", "gateway/engine/src", "gateway/src"];
    let files = dirs.iter().flat_map(|dir| sources(&root().join(dir)));
    let is_root = |file: &PathBuf| ["lib.rs", "main.rs"].iter().any(|name| file.ends_with(name));
    let left_out: Vec<PathBuf> = files.filter(|file| !is_root(file) && !is_module(file)).collect();
    assert!(left_out.is_empty(), "no module names these files, so that nothing compiles them: {left_out:?}");
}

#[test]
fn the_pure_crates_touch_nothing() {
    forbid(
        "the pure crates are told the time and carried their messages, so that days of behaviour can be \
         simulated in seconds: no clock, runtime, socket, file, environment or database",
        &["keys/src", "probes/src", "gateway/engine/src"],
        &[],
        &[
            "Instant::now",
            "SystemTime",
            // Calendar functions get both the time and the zone as arguments.
            "Timestamp::now",
            "Zoned::now",
            "TimeZone::system",
            "TimeZone::get",
            "tokio::",
            "sqlx",
            "axum",
            "serde",
            "std::fs",
            "std::env::",
            "UdpSocket",
            "TcpStream",
            "std::thread",
        ],
    );
}

#[test]
fn boringtun_is_named_in_one_folder_of_the_engine() {
    forbid(
        "boringtun reads its own clock and has traps: noise/ fences them, and keeps it replaceable",
        &["gateway/engine/src"],
        &["tunnel/noise"],
        &["boringtun::"],
    );
}

#[test]
fn the_program_reads_its_clocks_in_one_file() {
    forbid(
        "one clock: a second reading in the same turn makes states that cannot be reproduced",
        &["gateway/src"],
        &["gateway/src/clock.rs"],
        &["Instant::now", "SystemTime::now", "Timestamp::now", "Zoned::now"],
    );
}

#[test]
fn probes_know_no_wireguard_and_no_other_crate_of_ours() {
    forbid(
        "probes are packets and answers; what carries them is none of their business",
        &["probes/src"],
        &[],
        &["wireguard", "boringtun", "fleetgate_keys", "fleetgate_engine"],
    );
    forbid("keys stand below everything", &["keys/src"], &[], &["fleetgate_probes", "fleetgate_engine"]);
}

#[test]
fn the_two_halves_of_the_engine_speak_by_messages_only() {
    forbid(
        "the tunnel may run on several threads: it must not reach into the monitor",
        &["gateway/engine/src/tunnel"],
        &[],
        &["crate::monitor"],
    );
    forbid(
        "the monitor asks questions; it must not reach into the tunnel",
        &["gateway/engine/src/monitor"],
        &[],
        &["crate::tunnel"],
    );
}

#[test]
fn the_gateway_never_starts_a_process() {
    forbid(
        "probes are in-process code with typed arguments and commands run on the device over SSH: \
         a spawned process is a command injection waiting to happen; `fleetgate ssh` becomes ssh on the \
         machine of the person",
        &["gateway/src", "gateway/engine/src"],
        &["gateway/src/cli/reach/ssh.rs"],
        &["std::process::Command", "process::Command::new", "tokio::process"],
    );
}

/// Files that still write names into paths with `format!`. This list only becomes shorter.
const PATHS_BY_HAND: [&str; 1] = ["cli/operator.rs"];

#[test]
fn a_name_in_a_path_of_the_command_line_is_one_part() {
    let begins: Vec<String> = ('a'..='z').map(|first| format!("format!(\"/{first}")).collect();
    forbid(
        "a name with a slash would lead to another path: write api_path!(\"/hosts/{}\", host) of cli/client.rs",
        &["gateway/src/cli"],
        &PATHS_BY_HAND,
        &begins.iter().map(String::as_str).collect::<Vec<_>>(),
    );
}

#[test]
fn sql_stays_in_the_store() {
    forbid(
        "sqlx stays in store/, the one seam for another database",
        &["gateway/src"],
        &["gateway/src/store/"],
        &["sqlx::"],
    );
}

/// The files outside of the store that name the library of the database or the connection that the
/// store lends them.
const NAME_SQLX: [&str; 35] = [
    "api/contacts.rs",
    "api/devices/mod.rs",
    "api/downtimes/mod.rs",
    "api/enrol/mod.rs",
    "api/enrolments/admit_device.rs",
    "api/enrolments/mod.rs",
    "api/gateway.rs",
    "api/grants/mod.rs",
    "api/host_settings/mod.rs",
    "api/hosts/dependents.rs",
    "api/hosts/mod.rs",
    "api/incidents.rs",
    "api/notifications.rs",
    "api/operators.rs",
    "api/overview/summary.rs",
    "api/profiles.rs",
    "api/request/idempotency.rs",
    "api/request/transaction.rs",
    "api/rules.rs",
    "api/services/mod.rs",
    "api/services/overrides.rs",
    "api/tests/counts.rs",
    "api/tests/enrolments.rs",
    "api/tests/etags.rs",
    "api/tests/hostile.rs",
    "api/tests/repeated.rs",
    "api/users.rs",
    "notification/delivery/hand_over.rs",
    "notification/delivery/record.rs",
    "notification/delivery/tests.rs",
    "notification/dispatcher/mod.rs",
    "notification/dispatcher/tests/mod.rs",
    "notification/routing.rs",
    "verdict/mod.rs",
    "writer/commit.rs",
];

#[test]
fn the_files_that_name_sqlx_only_become_fewer() {
    let base = root().join("gateway/src");
    let own = |file: &PathBuf| file.strip_prefix(&base).expect("below it").to_string_lossy().into_owned();
    let named: BTreeSet<String> = sources(&base)
        .iter()
        .filter(|file| names(file, &["sqlx::", "SqliteConnection"]))
        .map(own)
        .filter(|file| !file.starts_with("store/"))
        .collect();
    let listed: BTreeSet<String> = NAME_SQLX.map(str::to_owned).into();
    let more: Vec<&String> = named.difference(&listed).collect();
    assert!(
        more.is_empty(),
        "the store is the one seam for another database: give it a function, or a type of its own, \
         instead of naming sqlx in {more:?}"
    );
    let gone: Vec<&String> = listed.difference(&named).collect();
    assert!(gone.is_empty(), "these do not name sqlx any more; take them off NAME_SQLX: {gone:?}");
}

/// Whether the code of a file, tests included, contains one of `words`.
fn names(file: &Path, words: &[&str]) -> bool {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let code = |line: &str| line.split("//").next().unwrap_or_default().to_owned();
    text.lines().map(code).any(|line| words.iter().any(|word| line.contains(word)))
}

const CRATES: [&str; 5] = ["keys/src", "probes/src", "gateway/engine/src", "gateway/src", "tests/src"];

#[test]
fn a_folder_s_module_is_its_mod_rs() {
    let beside = |file: &PathBuf| file.with_extension("").is_dir() && !file.ends_with("src/main.rs");
    let files = CRATES.iter().flat_map(|dir| sources(&root().join(dir)));
    let twice: Vec<PathBuf> = files.filter(beside).collect();
    assert!(twice.is_empty(), "one convention, x/mod.rs: {twice:?}");
}

/// Files that join the parts: they know all of them, and nothing may know them.
const JOINTS: [&str; 3] = ["lib", "main", "server"];

/// The imports between the folders of a crate, tests left out: who imports, who is imported, where.
fn imports(dir: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let base = root().join(dir);
    let folder = |file: &Path| {
        let below = file.strip_prefix(&base).expect("below the crate");
        let first = below.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        first.trim_end_matches(".rs").to_owned()
    };
    let files = sources(&base);
    let folders: BTreeSet<String> = files.iter().map(|file| folder(file)).collect();
    let mut found: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    for file in &files {
        let name = file.to_string_lossy().into_owned();
        let from = folder(file);
        if JOINTS.contains(&from.as_str())
            || TESTS.iter().any(|t| name.contains(t))
            || name.contains("fixture")
        {
            continue;
        }
        for line in mentions(file, &["crate::"]) {
            let code = line.split_once("crate::").map_or("", |(_, code)| code);
            let names = code.trim_start_matches('{').split(|c: char| !c.is_alphanumeric() && c != '_');
            // `crate::{a, b}` names several, `crate::a::B` one.
            let several = code.starts_with('{');
            let named = names.filter(|n| !n.is_empty()).take(if several { usize::MAX } else { 1 });
            for to in named.filter(|n| *n != from && folders.contains(*n)) {
                found.entry(from.clone()).or_default().entry(to.to_owned()).or_insert(line.clone());
            }
        }
    }
    found
}

/// Returns the first circle of imports that begins and ends with `folder`, as the lines that import.
fn circle(imports: &BTreeMap<String, BTreeMap<String, String>>, folder: &str) -> Option<Vec<String>> {
    let mut ways: VecDeque<(&str, Vec<String>)> = VecDeque::from([(folder, Vec::new())]);
    let mut seen = BTreeSet::new();
    while let Some((at, way)) = ways.pop_front() {
        for (to, line) in imports.get(at).into_iter().flatten() {
            let way: Vec<String> = way.iter().chain([line]).cloned().collect();
            if to == folder {
                return Some(way);
            }
            if seen.insert(to) {
                ways.push_back((to.as_str(), way));
            }
        }
    }
    None
}

#[test]
fn no_folders_import_each_other_in_a_circle() {
    for dir in ["gateway/engine/src", "gateway/src"] {
        let imports = imports(dir);
        assert!(imports.len() > 3, "{dir}: the check looks in the wrong place");
        for folder in imports.keys() {
            let circle = circle(&imports, folder);
            assert_eq!(
                circle, None,
                "{folder} imports itself in a circle: what is shared belongs below both"
            );
        }
    }
}

#[test]
fn a_circle_over_several_folders_is_found() {
    let import = |from: &str, to: &str| {
        (from.to_owned(), BTreeMap::from([(to.to_owned(), format!("{from} -> {to}"))]))
    };
    let imports = BTreeMap::from([import("a", "b"), import("b", "c"), import("c", "b"), import("d", "a")]);
    assert_eq!(circle(&imports, "b"), Some(vec!["b -> c".to_owned(), "c -> b".to_owned()]));
    assert_eq!((circle(&imports, "a"), circle(&imports, "d")), (None, None));
}

#[test]
fn the_parts_of_a_host_know_no_host() {
    let dir = root().join("gateway/engine/src/monitor/host");
    let is_test = |file: &PathBuf| TESTS.iter().any(|test| file.to_string_lossy().contains(test));
    let coordinates = |file: &PathBuf| !mentions(file, &["impl Host {"]).is_empty();
    let files = sources(&dir).into_iter().filter(|file| !is_test(file));
    let (hosts, parts): (Vec<PathBuf>, Vec<PathBuf>) = files.partition(coordinates);
    assert!(hosts.len() > 3 && parts.len() > 10, "the check looks in the wrong place: {hosts:?} {parts:?}");
    let known: Vec<String> =
        parts.iter().flat_map(|part| mentions(part, &["host::Host", "super::"])).collect();
    assert!(
        known.is_empty(),
        "Host is made of its parts, so that each is understood alone\n{}",
        known.join("\n")
    );
    let names = hosts.iter().filter_map(|file| file.file_stem()).map(|name| name.to_string_lossy());
    let imports: Vec<String> =
        names.filter(|name| name != "mod").map(|name| format!("host::{name}::")).collect();
    let imports: Vec<&str> = imports.iter().map(String::as_str).collect();
    let engine = sources(&root().join("gateway/engine/src"));
    let found: Vec<String> = engine.iter().flat_map(|file| mentions(file, &imports)).collect();
    assert!(found.is_empty(), "what other files need of a host is a part of it\n{}", found.join("\n"));
}

#[test]
fn the_roots_of_the_crates_hold_few_files() {
    for dir in CRATES {
        let entries = std::fs::read_dir(root().join(dir)).expect("a crate").flatten();
        let files = entries.filter(|e| e.path().extension().is_some_and(|e| e == "rs")).count();
        assert!(files <= 14, "{dir} has {files} files in its root: a domain is a folder");
    }
}

/// The document of the API would have only one of two types with one name, without a word.
#[test]
fn every_schema_of_the_api_has_a_name_of_its_own() {
    let mut places: BTreeMap<String, Vec<PathBuf>> = BTreeMap::new();
    for file in sources(&root().join("gateway/src")) {
        let text = std::fs::read_to_string(&file).expect("a source");
        let mut is_schema = false;
        for line in text.lines().map(str::trim_start) {
            is_schema |= line.starts_with("#[derive(") && line.contains("ToSchema");
            let declared = line.split_once("struct ").or_else(|| line.split_once("enum "));
            let Some((before, name)) = declared.filter(|_| is_schema) else { continue };
            if before.is_empty() || before.starts_with("pub") {
                let end = name.find(|c: char| !c.is_alphanumeric()).unwrap_or(name.len());
                places.entry(name[..end].to_owned()).or_default().push(file.clone());
                is_schema = false;
            }
        }
    }
    assert!(places.len() > 100, "only {} schemas were found", places.len());
    places.retain(|_, files| files.len() > 1);
    assert!(places.is_empty(), "types of one name: {places:?}");
}
