//! The build script of the program, run by itself: with a dashboard that was built elsewhere, and
//! with a missing prerequisite.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Script {
    dir: tempfile::TempDir,
}

impl Script {
    fn compiled() -> Script {
        let dir = tempfile::tempdir().unwrap();
        let source = gateway().join("build.rs");
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let mut compile = Command::new(rustc);
        compile.args(["--edition", "2024", "-o"]).arg(dir.path().join("script")).arg(source);
        assert!(compile.status().unwrap().success());
        fs::create_dir(dir.path().join("out")).unwrap();
        Script { dir }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn run(&self, variables: &[(&str, &Path)]) -> Output {
        let mut command = Command::new(self.path("script"));
        command.env_clear().env("CARGO_FEATURE_DASHBOARD", "1").env("CARGO_MANIFEST_DIR", gateway());
        command
            .env("OUT_DIR", self.path("out"))
            .env("PATH", self.path("empty"))
            .envs(variables.iter().copied());
        command.output().unwrap()
    }

    /// Returns the error, which must say what to do.
    fn refused(&self, variables: &[(&str, &Path)]) -> String {
        let out = self.run(variables);
        assert!(!out.status.success());
        String::from_utf8(out.stderr).unwrap()
    }

    fn table(&self) -> String {
        fs::read_to_string(self.path("out/assets.rs")).unwrap()
    }
}

fn gateway() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../gateway")
}

#[test]
fn a_dashboard_that_was_built_elsewhere_is_embedded() {
    let script = Script::compiled();
    let dist = script.path("dist");
    fs::create_dir_all(dist.join("assets")).unwrap();
    fs::write(dist.join("index.html"), "<p>hello").unwrap();
    fs::write(dist.join("assets/a.js"), "1").unwrap();
    assert!(script.run(&[("FLEETGATE_WEB_DIST", &dist)]).status.success());
    let table = script.table();
    assert!(table.contains("name: \"index.html\"") && table.contains("name: \"assets/a.js\""), "{table}");
    assert!(script.run(&[("FLEETGATE_WEB", Path::new("skip"))]).status.success());
    assert_eq!(script.table(), "&[\n]\n");
}

#[test]
fn what_is_missing_is_named_with_the_ways_out() {
    let script = Script::compiled();
    let without_node = script.refused(&[]);
    for words in ["Node 20.19", "FLEETGATE_WEB=skip", "--no-default-features", "FLEETGATE_WEB_DIST"] {
        assert!(without_node.contains(words), "{without_node}");
    }
    let empty = script.path("nothing-here");
    let elsewhere = script.refused(&[("FLEETGATE_WEB_DIST", &empty)]);
    assert!(elsewhere.contains("nothing-here/index.html is not there"), "{elsewhere}");
    let relative = script.refused(&[("FLEETGATE_WEB_DIST", Path::new("dist"))]);
    assert!(relative.contains("absolute path"), "{relative}");
    let typo = script.refused(&[("FLEETGATE_WEB", Path::new("skp"))]);
    assert!(typo.contains("the only value is skip"), "{typo}");
}
