//! Passwords from the keyboard. At a terminal they are hidden and entered twice. Elsewhere, the
//! first line of standard input is used.

use std::io::{BufRead as _, IsTerminal as _};

use anyhow::{Context as _, ensure};
use zeroize::Zeroizing;

/// Reads a new password for the user of this name.
pub(super) fn new_password(name: &str) -> anyhow::Result<Zeroizing<String>> {
    if !std::io::stdin().is_terminal() {
        return first_line();
    }
    let ask = |prompt: String| rpassword::prompt_password(prompt).map(Zeroizing::new);
    let first = ask(format!("New password for {name}: ")).context("no password was read")?;
    let second = ask("Repeat it: ".to_owned()).context("no password was read")?;
    ensure!(first == second, "the two passwords differ: nothing was changed");
    Ok(first)
}

fn first_line() -> anyhow::Result<Zeroizing<String>> {
    let mut line = Zeroizing::new(String::new());
    std::io::stdin().lock().read_line(&mut line).context("standard input cannot be read")?;
    let password = line.trim_end_matches(['\r', '\n']);
    ensure!(!password.is_empty(), "a password is expected in the first line of standard input");
    Ok(Zeroizing::new(password.to_owned()))
}
