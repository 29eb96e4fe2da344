//! Reads whole files that people name, with a limit.
//!
//! The files of a start must be regular: a pipe could block it for ever, and a device has no end. A file of the
//! command line may be a pipe.

use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// More than any key, password, certificate chain or settings file.
pub const MOST: u64 = 1024 * 1024;

/// Reads a regular file of at most [`MOST`] bytes.
///
/// # Errors
/// Fails when it cannot be read, is not a regular file, or is larger.
pub fn regular(path: &Path) -> io::Result<Vec<u8>> {
    // Without the flag, a pipe that no process writes to would block here.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "this is not a regular file"));
    }
    at_most(file, MOST)
}

/// The same for a file of text.
///
/// # Errors
/// As [`regular`], or when it is not UTF-8.
pub fn regular_text(path: &Path) -> io::Result<String> {
    String::from_utf8(regular(path)?)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "this is not UTF-8 text"))
}

/// Reads any file of at most `most` bytes.
///
/// # Errors
/// Fails when it cannot be read or is larger.
pub fn any(path: &Path, most: u64) -> io::Result<Vec<u8>> {
    at_most(File::open(path)?, most)
}

/// Reads to the end.
///
/// # Errors
/// Fails when it cannot be read, or when `most` bytes are not all.
pub fn at_most(from: impl Read, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    from.take(most + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > most {
        let text = format!("larger than {} MiB", most / 1024 / 1024);
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_regular_file_of_bounded_size_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, "text").unwrap();
        assert_eq!(regular_text(&file).unwrap(), "text");
        std::fs::write(&file, [0xff]).unwrap();
        assert_eq!(regular_text(&file).unwrap_err().to_string(), "this is not UTF-8 text");
        File::create(&file).unwrap().set_len(MOST + 1).unwrap();
        assert_eq!(regular(&file).unwrap_err().to_string(), "larger than 1 MiB");
        assert_eq!(regular(Path::new("/dev/zero")).unwrap_err().to_string(), "this is not a regular file");
        let pipe = dir.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success() && regular(&pipe).is_err(), "a pipe without a writer does not block");
    }

    #[test]
    fn a_file_without_an_end_is_not_read_to_its_end() {
        assert!(any(Path::new("/dev/zero"), MOST).is_err());
        assert_eq!(at_most(&b"text"[..], 4).unwrap(), b"text");
    }
}
