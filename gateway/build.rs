//! Builds the dashboard and writes the table of files that `web.rs` embeds. It never writes into the
//! source tree, and does nothing when nothing changed. It does not know the content of the pages.
//!
//! - `FLEETGATE_WEB=skip`, or the feature `dashboard` switched off: an empty table.
//! - `FLEETGATE_WEB_DIST=folder`: the files of a folder that was built elsewhere.
//! - Otherwise npm builds a copy of `gateway/web` below the target directory. All profiles share that
//!   copy, so a file lock keeps two builds apart.

use std::env;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, exit};

/// Inputs of the dashboard's build, below `gateway/web`, without its tests and tools.
const SOURCES: [&str; 8] = [
    "index.html",
    "package.json",
    "package-lock.json",
    "public",
    "src",
    "svelte.config.js",
    "tsconfig.json",
    "vite.config.ts",
];
/// The OpenAPI document, below the root of the workspace: the typed client is generated from it.
const OPENAPI: &str = "docs/openapi.json";
/// The oldest Node (major, minor) that the bundler runs on.
const NODE: (u32, u32) = (20, 19);
const WAYS_OUT: &str = "or build without the dashboard (`--no-default-features`, or FLEETGATE_WEB=skip), \
                        or let FLEETGATE_WEB_DIST name a folder with a built one";

type Result<T> = std::result::Result<T, String>;

fn main() {
    if let Err(why) = run() {
        eprintln!("\nthe dashboard: {why}\n");
        exit(1);
    }
}

fn run() -> Result<()> {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=FLEETGATE_WEB");
    println!("cargo::rerun-if-env-changed=FLEETGATE_WEB_DIST");
    let out = folder_of("OUT_DIR")?;
    let embedded = out.join("dashboard");
    clear(&embedded)?;
    make(&embedded)?;
    fill(&embedded, &out)?;
    write_table(&embedded, &out.join("assets.rs"))
}

/// Copies the built files into `embedded`, or leaves it empty.
fn fill(embedded: &Path, out: &Path) -> Result<()> {
    if skip()? || env::var_os("CARGO_FEATURE_DASHBOARD").is_none() {
        return Ok(());
    }
    if let Some(dist) = env::var_os("FLEETGATE_WEB_DIST").filter(|name| !name.is_empty()) {
        let dist = PathBuf::from(dist);
        println!("cargo::rerun-if-changed={}", dist.display());
        let what = "FLEETGATE_WEB_DIST must be the absolute path of a folder with a built dashboard";
        if !dist.is_absolute() {
            return Err(format!("{what}, not {dist:?}: builds run in a folder of their own"));
        }
        need(&dist.join("index.html"), what)?;
        return copy(&dist, embedded);
    }
    let gateway = folder_of("CARGO_MANIFEST_DIR")?;
    build(&gateway, &shared_folder(out))?;
    copy(&shared_folder(out).join("gateway/web/dist"), embedded)
}

/// A typo must not start an unwanted build that takes minutes.
fn skip() -> Result<bool> {
    match env::var("FLEETGATE_WEB").unwrap_or_default().as_str() {
        "" => Ok(false),
        "skip" => Ok(true),
        other => {
            Err(format!("FLEETGATE_WEB = {other:?}: the only value is skip; leave it out to build the page"))
        }
    }
}

/// Returns the copy that all profiles share: `dashboard` in the target directory, which cargo marks
/// with a tag.
fn shared_folder(out: &Path) -> PathBuf {
    let target = out.ancestors().find(|folder| folder.join("CACHEDIR.TAG").exists());
    target.unwrap_or(out).join(if target.is_some() { "dashboard" } else { "work" })
}

fn build(gateway: &Path, work: &Path) -> Result<()> {
    let openapi = gateway.join("..").join(OPENAPI);
    watch(gateway, &openapi);
    need(&openapi, "the API's description is missing")?;
    let node = node_version()?;
    let web = work.join("gateway/web");
    make(&web)?;
    let lock = File::create(work.join("lock")).map_err(at(work))?;
    lock.lock().map_err(at(work))?;
    take_sources(&gateway.join("web"), &web)?;
    make(&work.join("docs"))?;
    copy(&openapi, &work.join(OPENAPI))?;
    install(&web, work, &node)?;
    bundle(&web, work, &node)
}

fn watch(gateway: &Path, openapi: &Path) {
    println!("cargo::rerun-if-changed={}", openapi.display());
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", gateway.join("web").join(source).display());
    }
}

/// Copies the sources afresh each time, so that a removed file does not remain; `node_modules` stays.
fn take_sources(from: &Path, to: &Path) -> Result<()> {
    for source in SOURCES {
        clear(&to.join(source))?;
        copy(&from.join(source), &to.join(source))?;
    }
    Ok(())
}

/// Installs the dependencies of the lock file. Their install scripts are not run: none of them needs
/// it.
fn install(web: &Path, work: &Path, node: &str) -> Result<()> {
    let wanted = digest(&[web.join("package-lock.json"), web.join("package.json")], node)?;
    once(&work.join("installed"), &wanted, &web.join("node_modules"), || {
        npm(web, &["ci", "--include=dev", "--ignore-scripts", "--no-audit", "--no-fund"])
    })
}

fn bundle(web: &Path, work: &Path, node: &str) -> Result<()> {
    let mut inputs: Vec<PathBuf> = SOURCES.iter().map(|source| web.join(source)).collect();
    inputs.push(work.join(OPENAPI));
    let wanted = digest(&inputs, node)?;
    once(&work.join("built"), &wanted, &web.join("dist/index.html"), || npm(web, &["run", "build"]))
}

/// Runs `act` unless `product` exists and the stamp says that it was built from the same inputs.
fn once(stamp: &Path, wanted: &str, product: &Path, act: impl FnOnce() -> Result<()>) -> Result<()> {
    if product.exists() && fs::read_to_string(stamp).is_ok_and(|done| done == wanted) {
        return Ok(());
    }
    clear(stamp)?;
    act()?;
    fs::write(stamp, wanted).map_err(at(stamp))
}

fn node_version() -> Result<String> {
    let (major, minor) = NODE;
    let missing = format!("needs Node {major}.{minor} or newer and npm: install them, {WAYS_OUT}");
    let output = Command::new("node").arg("--version").output().map_err(|_| missing.clone())?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut numbers = version.trim_start_matches('v').split('.').map(|part| part.parse().unwrap_or(0));
    let found = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if found < NODE { Err(format!("{missing} (found {version:?})")) } else { Ok(version) }
}

fn npm(web: &Path, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new("npm");
    command.args(arguments).current_dir(web).env_remove("NODE_ENV");
    let what = format!("`npm {}` in {}", arguments.join(" "), web.display());
    let output = command
        .output()
        .map_err(|error| format!("{what} did not start ({error}): install npm, {WAYS_OUT}"))?;
    if output.status.success() {
        return Ok(());
    }
    Err(format!("{what} failed:\n{}\nmend that, {WAYS_OUT}", said(&output)))
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

/// Writes `[Asset { .. }, ..]`, to be included where `Asset` is defined. A file `x.gz` beside `x` is
/// its compressed form, not a file of its own.
fn write_table(embedded: &Path, table: &Path) -> Result<()> {
    let mut files = Vec::new();
    list(embedded, &mut files)?;
    let mut text = String::from("&[\n");
    for file in files.iter().filter(|file| file.extension() != Some(OsStr::new("gz"))) {
        text.push_str(&entry(embedded, file)?);
    }
    text.push_str("]\n");
    fs::write(table, text).map_err(at(table))
}

fn entry(embedded: &Path, file: &Path) -> Result<String> {
    let name = file.strip_prefix(embedded).map_err(|error| error.to_string())?;
    let packed = PathBuf::from(format!("{}.gz", file.display()));
    let gzip = if packed.exists() { format!("Some(include_bytes!({packed:?}))") } else { "None".to_owned() };
    let tag = digest(&[file.to_owned()], "")?;
    Ok(format!("Asset {{ name: {name:?}, tag: {tag:?}, body: include_bytes!({file:?}), gzip: {gzip} }},\n"))
}

/// Returns a digest of `more`, and of the names and contents of all files at and below these paths.
fn digest(paths: &[PathBuf], more: &str) -> Result<String> {
    let mut hasher = DefaultHasher::new();
    more.hash(&mut hasher);
    for path in paths {
        let mut files = Vec::new();
        list(path, &mut files)?;
        for file in files {
            file.file_name().hash(&mut hasher);
            fs::read(&file).map_err(at(&file))?.hash(&mut hasher);
        }
    }
    Ok(format!("{:016x}", hasher.finish()))
}

/// Collects the files at and below a path, in the order of their names.
fn list(path: &Path, files: &mut Vec<PathBuf>) -> Result<()> {
    if !path.is_dir() {
        files.push(path.to_owned());
        return Ok(());
    }
    let entries = fs::read_dir(path).map_err(at(path))?;
    let mut paths =
        entries.map(|entry| entry.map(|e| e.path())).collect::<io::Result<Vec<_>>>().map_err(at(path))?;
    paths.sort();
    paths.iter().try_for_each(|path| list(path, files))
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        return fs::copy(from, to).map(|_| ()).map_err(at(from));
    }
    make(to)?;
    for entry in fs::read_dir(from).map_err(at(from))? {
        let entry = entry.map_err(at(from))?;
        copy(&entry.path(), &to.join(entry.file_name()))?;
    }
    Ok(())
}

/// Removes a file or a folder, if it exists.
fn clear(path: &Path) -> Result<()> {
    let gone = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match gone {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(at(path)(error)),
        _ => Ok(()),
    }
}

fn make(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).map_err(at(folder))
}

fn need(path: &Path, why: &str) -> Result<()> {
    if path.exists() { Ok(()) } else { Err(format!("{why}: {} is not there", path.display())) }
}

fn folder_of(variable: &str) -> Result<PathBuf> {
    env::var_os(variable).map(PathBuf::from).ok_or_else(|| format!("cargo does not set {variable}"))
}

fn at(path: &Path) -> impl Fn(io::Error) -> String + '_ {
    move |error| format!("{}: {error}", path.display())
}
