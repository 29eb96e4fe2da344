//! Whether the person who looks at a command is still there: the terminal that it was started from, or the reader
//! of its output.
//!
//! A signal tells of that only where the shell sends one: not to a job in the background, and not through `ssh`
//! without a terminal.

use std::io::IsTerminal as _;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::time::Duration;

/// How often it is looked.
const LOOK: Duration = Duration::from_secs(1);

/// Until the terminal on standard input or output is closed, or nobody reads standard output any more. A state from
/// the beginning does not count.
pub async fn closed() {
    let (input, output) = (std::io::stdin(), std::io::stdout());
    let watched = |fd: BorrowedFd<'_>, counts: bool| counts && !is_gone(fd);
    let (input_counts, output_counts) =
        (watched(input.as_fd(), input.is_terminal()), watched(output.as_fd(), true));
    let mut look = tokio::time::interval(LOOK);
    loop {
        look.tick().await;
        if input_counts && is_gone(input.as_fd()) || output_counts && is_gone(output.as_fd()) {
            return;
        }
    }
}

/// A terminal that was hung up, or a pipe without a reader.
#[allow(unsafe_code, reason = "poll, which std does not have")]
fn is_gone(fd: BorrowedFd<'_>) -> bool {
    let mut asked = libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 };
    // SAFETY: `asked` is one valid structure for the length of the call, which does not wait.
    let changed = unsafe { libc::poll(&raw mut asked, 1, 0) };
    changed == 1 && asked.revents & (libc::POLLHUP | libc::POLLERR) != 0
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::{FromRawFd as _, OwnedFd};

    use super::*;

    /// The side of the window, and that of the program in it.
    #[allow(unsafe_code, reason = "openpty, which std does not have")]
    fn terminal() -> (OwnedFd, OwnedFd) {
        let (mut window, mut program) = (0, 0);
        let null = std::ptr::null_mut();
        // SAFETY: both numbers live for the length of the call, and the rest may be null.
        let made =
            unsafe { libc::openpty(&raw mut window, &raw mut program, null, null.cast(), null.cast()) };
        assert_eq!(made, 0);
        // SAFETY: the call has opened both, and nothing else owns them.
        unsafe { (OwnedFd::from_raw_fd(window), OwnedFd::from_raw_fd(program)) }
    }

    #[test]
    fn a_closed_window_and_a_pipe_without_a_reader_are_gone() {
        let (window, program) = terminal();
        assert!(!is_gone(program.as_fd()));
        drop(window);
        assert!(is_gone(program.as_fd()));
        let (reader, writer) = std::io::pipe().unwrap();
        assert!(!is_gone(writer.as_fd()));
        drop(reader);
        assert!(is_gone(writer.as_fd()));
        let file = File::open("/dev/null").unwrap();
        assert!(!is_gone(file.as_fd()));
    }
}
