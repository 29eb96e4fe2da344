//! What commands print on stdout: written, or said to be lost.
//!
//! The macros of the standard library panic where nothing can be written. Here a reader that has gone ends the
//! command without a word, and a full disk is said in words, with what it may have cost.

use std::fmt::Arguments;
use std::io::{ErrorKind, Write as _};

/// As `sysexits.h` has it for input and output.
const LOST_OUTPUT: i32 = 74;

/// As `println!`, without colours where no terminal reads.
macro_rules! line {
    () => { $crate::cli::out::write(format_args!("\n")) };
    ($($word:tt)*) => { $crate::cli::out::write(format_args!("{}\n", format_args!($($word)*))) };
}

/// As `print!`.
macro_rules! text {
    ($($word:tt)*) => { $crate::cli::out::write(format_args!($($word)*)) };
}

pub(crate) use {line, text};

/// Ends the program where it cannot be written.
pub(crate) fn write(words: Arguments<'_>) {
    let mut out = anstream::stdout().lock();
    // What is only buffered is lost in silence at the end.
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
