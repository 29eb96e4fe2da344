//! Output of commands on stdout, with an error if it is lost.
//!
//! The macros of the standard library panic when a write fails. Here, a closed pipe ends the
//! command silently, and a full disk is reported with the possible loss.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};

/// `EX_IOERR` from `sysexits.h`.
const LOST_OUTPUT: i32 = 74;

/// Like `println!`, without colours unless stdout is a terminal.
macro_rules! line {
    () => { $crate::cli::out::write(format_args!("\n")) };
    ($($word:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($word)*))) };
}

/// Like `print!`.
macro_rules! text {
    ($($word:tt)*) => { $crate::cli::out::write(format_args!($($word)*)) };
}

pub(crate) use {line, text};

/// Writes the text. Ends the program when it cannot be written.
pub(crate) fn write(words: Arguments<'_>) {
    let mut out = anstream::stdout().lock();
    // Flush now, because a failure at the end would go unnoticed.
    if let Err(error) = out.write_fmt(words).and_then(|()| out.flush()) {
        lost(&error);
    }
}

fn lost(error: &std::io::Error) -> ! {
    if error.kind() != ErrorKind::BrokenPipe {
        eprintln!(
            "fleetgate: cannot write the output: {error}. The change itself was made. If the output was a secret, make a \
             new one: `fleetgate device reissue DEVICE`, or another token"
        );
    }
    std::process::exit(LOST_OUTPUT)
}
